"""The full synchronizations with its master that a replica begins after the restart of an operation."""

from rollout.agent.failure import Failure
from rollout.agent.operations.operation import Operation
from rollout.agent.server.full_syncs import continued
from rollout.agent.server.session import RefusedError, Session
from rollout.messages import Reason, Way

#: One may be needed after a restart. Another one says that it never ends.
MOST = 1
_SECTIONS = ("server", "replication", "stats")


class SyncLoopError(Failure):
    """The replica begins one after the other. Another restart would cause one more."""


def refuse_loop(operation: Operation, session: Session) -> None:
    """Raises: `SyncLoopError` if the server has begun more than one since the operation has."""
    if operation.command.way is not Way.RESTART:
        return
    operation.node.full_syncs.look(session.info(*_SECTIONS))
    if (begun := _begun(operation)) > MOST:
        words = f"The replica has begun {begun} full synchronizations with its master during the operation."
        raise SyncLoopError(Reason.SYNC_LOOP, f"{words} Read its log and the log of its master.")


def words_on_sync(operation: Operation) -> str:
    """Return how a restarted replica has got the newest writes of its master, one sentence; empty if that is not known."""
    try:
        with operation.node.server.session() as session:
            info = session.info(*_SECTIONS)
    except (Failure, RefusedError):
        return ""
    operation.node.full_syncs.look(info)
    if info.get("role") == "slave" and _begun(operation):
        return "The replica got all data of its master with a full synchronization."
    return "The replica continued with a partial synchronization." if continued(info) else ""


def _begun(operation: Operation) -> int:
    return max(operation.node.full_syncs.since(operation.watch.since), operation.server_log.full_syncs())
