"""A failover by CLUSTER FAILOVER, which the replica carries out together with its master and the other masters."""

import time
from collections.abc import Iterable, Sequence

from rollout.agent.failover.shard import (
    LINK_SECONDS,
    Failover,
    FailoverNotPossibleError,
    NotYetError,
    Peer,
    link_problem,
    replica_at,
    replicas_of,
    wait_until,
)
from rollout.agent.server import place
from rollout.agent.server.session import RefusedError
from rollout.agent.settings import AgentSettings

#: The servers' own limit of the pause, where no parameter changes it, milliseconds.
TIMEOUT = "5000"
#: By how much later than the replica its master gives up, seconds.
GRACE_SECONDS = 0.5


class ByCluster:
    def __init__(self, own: Peer, settings: AgentSettings) -> None:
        self._own, self._settings = own, settings

    def check(self, replicas: Sequence[str], limit: float, target: str) -> tuple[str, str]:
        """Return where the master is, and the replica that takes over. Raises: `FailoverNotPossibleError`."""
        found = replicas_of(self._own, self._settings, replicas)
        for peer in (self._own, *found):
            if (state := _state(peer)) != "ok":
                raise NotYetError(f"The state of the cluster is {state} at {peer.name}. Wait until it is ok.")
            timeout = int(peer.parameter("cluster-manual-failover-timeout") or TIMEOUT) / 1000
            if timeout > limit:
                raise FailoverNotPossibleError(
                    f"CLUSTER FAILOVER may pause {peer.name} for {timeout:g} s, but the limit is {limit:g} s."
                )
        for peer, info in found.items():
            if target in {"", peer.name} and peer.parameter("cluster-replica-no-failover") != "yes":
                peer.refuse_without(("CLUSTER", "FAILOVER"))
                return place.master(info), peer.name
        raise FailoverNotPossibleError(
            f"{target or 'Each replica'} has cluster-replica-no-failover. Set it to no where a master may be."
        )

    def switch(self, failover: Failover) -> str:
        try:
            replica_at(self._settings, failover.target, self._own).call("CLUSTER", "FAILOVER")
        except RefusedError as error:
            raise FailoverNotPossibleError(f"{failover.target} refuses CLUSTER FAILOVER: {error}.") from error
        if now := self.settle(failover):
            return now
        raise FailoverNotPossibleError(
            f"{failover.target} has not taken over within {failover.limit:g} s. Each master of the cluster must answer."
        )

    def finish(self, failover: Failover, now: str) -> Iterable[str]:
        servers = (self._own, replica_at(self._settings, now, self._own))
        if not wait_until(lambda: all(_state(each) == "ok" for each in servers), time.monotonic() + LINK_SECONDS):
            yield f"The state of the cluster has not been ok within {LINK_SECONDS:g} s."
        yield from link_problem(self._own)

    def settle(self, failover: Failover) -> str:
        """Wait for the end, which the servers keep themselves: nothing else ends a CLUSTER FAILOVER."""
        end = time.monotonic() + max(0.0, failover.limit - failover.age) + GRACE_SECONDS
        wait_until(lambda: bool(place.master(self._own.replication())), end)
        return place.master(self._own.replication())


def _state(peer: Peer) -> str:
    lines = (line.partition(":") for line in str(peer.call("CLUSTER", "INFO")).splitlines())
    return {key: value for key, _, value in lines}.get("cluster_state", "not known")
