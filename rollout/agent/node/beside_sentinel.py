"""No line in our include file while a Sentinel watches: at a failover, it calls CONFIG REWRITE, also if the agent is dead."""

from rollout.agent.failure import Failure
from rollout.agent.inspection.rewritable import can_rewrite
from rollout.agent.inspection.start_lines import StartReader
from rollout.agent.server.sentinels import count_sentinels
from rollout.agent.server.session import Server
from rollout.messages import Reason


def refuse_beside_sentinel(server: Server, reader: StartReader, *, node: str) -> None:
    """Raises: `Failure` (persistence_conflict, permission_denied) if a failover could make two lines load one module."""
    with server.session() as session:
        reader.read(session.info("server"))  # it may have been restarted since the last heartbeat
        if not can_rewrite(reader.main, reader.pid):
            return
        count = count_sentinels(session)
    if count is None:
        raise Failure(
            Reason.PERMISSION_DENIED,
            "It is not known if a Sentinel watches the server. Allow +pubsub|numsub to the agent's user at the server, or set "
            "MODFLEET_PERSISTENCE=rewrite.",
        )
    if count:
        raise Failure(
            Reason.PERSISTENCE_CONFLICT,
            "A Sentinel watches the server. At a failover it calls CONFIG REWRITE: then the main configuration file would load "
            f"the module too, and the next start would fail. Run `modfleet agent install --name {node} --persistence rewrite` "
            "on the host, or set MODFLEET_PERSISTENCE=rewrite. Then retry.",
        )
