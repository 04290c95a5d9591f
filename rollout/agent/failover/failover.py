"""Fails over, and brings a shard whose failover was interrupted into a defined state."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rollout import messages
from rollout.agent.failover.cluster import ByCluster
from rollout.agent.failover.command import ByCommand
from rollout.agent.failover.preference import prefer, priority_to_lower
from rollout.agent.failover.sentinel import BySentinel
from rollout.agent.failover.shard import Failover, FailoverNotPossibleError, NotYetError, Peer, Way
from rollout.agent.failure import Failure
from rollout.agent.server import place
from rollout.agent.server.session import RefusedError, Server
from rollout.agent.settings import AgentSettings, FailoverWay
from rollout.messages import Reason

#: The default limit of the pause of the clients' writes, seconds.
PAUSE_SECONDS = 5.0
#: How fast a replica surely catches up, bytes per second.
BYTES_PER_SECOND = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedOver:
    """Where the master was and is, `host:port`. `remarks`: what a person should do, sentences.

    `stall_seconds`: for how long no server accepted writes. After an interruption, for how long at most.
    """

    way: FailoverWay
    was: str
    now: str
    stall_seconds: float
    remarks: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """Return where the master was and is, as a sentence."""
        return f"The master was {self.was} and is {self.now}; writes waited for {self.stall_seconds:.1f} s."

    @property
    def as_reported(self) -> messages.Failover:
        return messages.Failover(way=self.way, former=self.was, new=self.now, pause_seconds=self.stall_seconds)


def check(
    server: Server,
    settings: AgentSettings,
    candidates: Sequence[str],
    limit: float = PAUSE_SECONDS,
    target: str = "",
) -> Failover:
    """Return the failover that is possible now. Nothing is changed. Raises: `FailoverNotPossibleError`; `Failure`.

    `candidates`: `host:port` of each replica, as the master's INFO lists it, that has what a master needs. `limit`: of the pause,
    seconds. `target`: the candidate that becomes the master; empty if any of them may.
    """
    own = Peer("the agent's own server", server)
    way = settings.failover
    if way == "none":
        raise FailoverNotPossibleError(
            "MODFLEET_FAILOVER is none. Set it to the way in which this shard fails over, or make a replica the master by hand."
        )
    try:
        info = own.info("server", "replication", "cluster")
        run_id = info.get("run_id", "")
        if (info.get("cluster_enabled") == "1") != (way == "cluster"):
            raise FailoverNotPossibleError(
                "MODFLEET_FAILOVER must be cluster for servers of a cluster, and only for them."
            )
        replicas = _replicas(info, candidates, limit)
        if target and target not in replicas:
            raise NotYetError(f"The server has no replica {target}. Wait until it is in step.")
        was, chosen = _way(way, own, settings).check(replicas, limit, target)
        priority = priority_to_lower(own, settings, target) if way == "sentinel" and target else ""
    except RefusedError as error:
        raise FailoverNotPossibleError(f"The failover cannot be prepared: {str(error).rstrip('.')}.") from error
    return Failover(
        way=way, candidates=tuple(replicas), target=chosen, was=was, run_id=run_id, limit=limit, priority=priority
    )


def fail_over(
    server: Server,
    settings: AgentSettings,
    candidates: Sequence[str],
    keep: Callable[[Failover], object],
    limit: float = PAUSE_SECONDS,
    target: str = "",
) -> FailedOver:
    """Make a replica the master. `server` has its role afterwards: it is a replica in step, and can be restarted.

    `keep` writes what it gets to disk, before the first step. If this raises anything else than `FailoverNotPossibleError`, or does
    not return, `settle` does the rest. See `check` for the other arguments.
    """
    failover = check(server, settings, candidates, limit, target)
    keep(failover)
    own = Peer("the agent's own server", server)
    if failover.priority:
        chosen = failover.target
        prefer(own, settings, failover, lambda priority: BySentinel(own, settings).sees(chosen, priority))
        failover = failover.begun_now()
        keep(failover)
    way = _way(failover.way, own, settings)
    began = time.monotonic()
    try:
        now = way.switch(failover)
    except FailoverNotPossibleError:
        raise
    except (Failure, RefusedError) as error:
        if not (now := _settled(way, failover)):
            raise FailoverNotPossibleError(f"The failover was interrupted, and undone: {error}") from error
    stall = time.monotonic() - began
    return _finished(way, failover, now, stall)


def settle(server: Server, settings: AgentSettings, failover: Failover) -> FailedOver | None:
    """Finish a failover that was interrupted, or undo it: then None. Afterwards no pause is left. May run more than once.

    Raises: `Failure` if that is not possible now, because a server or each Sentinel cannot be reached.
    """
    way = _way(failover.way, Peer("the agent's own server", server), settings)
    now = _settled(way, failover)
    return _finished(way, failover, now, failover.age) if now else None


def _settled(way: Way, failover: Failover) -> str:
    try:
        return way.settle(failover)
    except RefusedError as error:
        raise Failure(Reason.FAILOVER_NOT_POSSIBLE, f"The failover could not be finished: {error}") from error


def _finished(way: Way, failover: Failover, now: str, stall: float) -> FailedOver:
    remarks = tuple(way.finish(failover, now))
    return FailedOver(way=failover.way, was=failover.was, now=now, stall_seconds=stall, remarks=remarks)


def _way(way: str, own: Peer, settings: AgentSettings) -> Way:
    ways: dict[str, Callable[[Peer, AgentSettings], Way]] = {
        "sentinel": BySentinel,
        "command": ByCommand,
        "cluster": ByCluster,
    }
    return ways[way](own, settings)


def _replicas(info: Mapping[str, str], candidates: Sequence[str], limit: float) -> list[str]:
    """Return the candidates, the one with most of the data first. Raises: `FailoverNotPossibleError`."""
    if place.role(info) != "master":
        raise NotYetError("The server is no master.")
    found = {each.address: each for each in place.replicas(info)}
    if strangers := sorted(found.keys() - set(candidates)):
        raise FailoverNotPossibleError(f"The replica {strangers[0]} was not checked: it may lack what a master needs.")
    lags = {}
    for address in candidates:
        replica = found.get(address)
        if replica is None or replica.state != "online" or replica.lag_bytes is None:
            raise NotYetError(f"The replica {address} is not online. Wait until it is in step.")
        if replica.lag_bytes > limit * BYTES_PER_SECOND:
            raise FailoverNotPossibleError(
                f"The replica {address} is {replica.lag_bytes / 1e6:,.0f} MB behind. Wait until it has caught up."
            )
        lags[address] = replica.lag_bytes
    if not lags:
        raise FailoverNotPossibleError("The server has no replica that could become the master.")
    return sorted(lags, key=lambda each: lags[each])
