"""A failover by the command FAILOVER: for shards that nothing watches."""

import time
from collections.abc import Iterable, Sequence

from rollout.agent.failover.shard import (
    Failover,
    FailoverNotPossibleError,
    Peer,
    link_problem,
    replica_at,
    replicas_of,
    rewrite,
    wait_until,
)
from rollout.agent.failure import Failure
from rollout.agent.inspection.process import server_pid
from rollout.agent.inspection.rewritable import can_rewrite
from rollout.agent.server import place
from rollout.agent.server.sentinels import COUNT, count_in
from rollout.agent.server.session import RefusedError
from rollout.agent.settings import AgentSettings

#: How long FAILOVER may take after its own timeout, seconds: then its replica hangs in the switch.
GRACE_SECONDS = 0.5


class ByCommand:
    def __init__(self, own: Peer, settings: AgentSettings) -> None:
        self._own, self._settings = own, settings

    def check(self, replicas: Sequence[str], limit: float, target: str) -> tuple[str, str]:
        """Return where the master is, and the replica that takes over. Raises: `FailoverNotPossibleError`."""
        own, info = self._own, self._own.info("server")
        if count_in(own.call(*COUNT)) != 0:
            raise FailoverNotPossibleError("A Sentinel watches the server. Set MODFLEET_FAILOVER=sentinel.")
        own.refuse_without(("FAILOVER", "ABORT"), ("CONFIG", "REWRITE"))
        file = info.get("config_file")
        if not file or not can_rewrite(file, server_pid(self._settings.server_url, info)):
            raise FailoverNotPossibleError(
                "The server cannot write a configuration file, so a restart would undo its role."
            )
        found = replicas_of(own, self._settings, replicas)
        for peer, peer_info in found.items():
            if not peer_info.get("config_file"):
                raise FailoverNotPossibleError(
                    f"The replica {peer.name} has no configuration file, so a restart would undo its role. Give it one."
                )
            peer.refuse_without(("REPLICAOF", "NO", "ONE"), ("CONFIG", "REWRITE"))
        for peer, peer_info in found.items():
            if target in {"", peer.name} and peer_info.get("slave_priority", "0") != "0":
                return place.master(peer_info), peer.name
        raise FailoverNotPossibleError(
            f"{target or 'Each replica'} has replica-priority 0. Set another one where a master may be."
        )

    def switch(self, failover: Failover) -> str:
        host, _, port = failover.target.rpartition(":")
        end = time.monotonic() + failover.limit + GRACE_SECONDS
        try:
            self._own.call("FAILOVER", "TO", host, port, "TIMEOUT", str(round(failover.limit * 1000)))
        except RefusedError as error:
            raise FailoverNotPossibleError(f"The server refuses FAILOVER: {error}.") from error
        wait_until(lambda: self._own.replication().get("master_failover_state") == "no-failover", end)
        if now := self.settle(failover):
            return now
        raise FailoverNotPossibleError(
            f"{failover.target} has not taken over within {failover.limit:g} s. Retry when fewer clients write."
        )

    def finish(self, failover: Failover, now: str) -> Iterable[str]:
        """Let the other replicas follow the new master, and all servers write their new roles."""
        host, _, port = now.rpartition(":")
        yield from rewrite(replica_at(self._settings, now, self._own))
        for address in failover.candidates:
            if address != now:
                peer = replica_at(self._settings, address, self._own)
                try:
                    peer.call("REPLICAOF", host, port)
                except (Failure, RefusedError) as error:
                    yield f"{address} still follows the former master: {error} Call REPLICAOF there."
                    continue
                yield from rewrite(peer)
        yield from rewrite(self._own)
        yield from link_problem(self._own)

    def settle(self, failover: Failover) -> str:
        """Also undo a restart: after FAILOVER, the server may have started as a master, as its file still said."""
        own = self._own
        own.abort()
        if own.info("server").get("run_id") != failover.run_id and not place.master(own.replication()):
            target = replica_at(self._settings, failover.target, own)
            if place.role(target.replication()) == "master":
                host, _, port = failover.target.rpartition(":")
                own.call("REPLICAOF", host, port)
        return place.master(own.replication())
