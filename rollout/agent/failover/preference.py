"""Leads Sentinel to choose one replica: it takes the one with the lowest replica-priority above 0.

The priority of the target is lowered, and restored after the failover. The note on disk has the former one, also after a kill.
"""

import time
from collections.abc import Callable

from rollout.agent.failover.shard import Failover, FailoverNotPossibleError, Peer, replica_at, rewrite, wait_until
from rollout.agent.failure import Failure
from rollout.agent.server import place
from rollout.agent.server.session import RefusedError
from rollout.agent.server.texts import number
from rollout.agent.settings import AgentSettings

#: The lowered replica-priority.
PREFERRED = 1
#: Sentinel reads INFO of a replica every 10 s. The longest wait, seconds.
INFO_SECONDS = 20.0


def priority_to_lower(own: Peer, settings: AgentSettings, target: str) -> str:
    """Return the replica-priority of the target if it must be lowered, empty if Sentinel chooses the target with it.

    Raises: `FailoverNotPossibleError` if Sentinel cannot be led to choose the target.
    """
    found = {}
    for each in place.replicas(own.replication()):
        try:
            replication = replica_at(settings, each.address, own).replication()
        except (Failure, RefusedError) as error:
            raise FailoverNotPossibleError(f"The replica-priority of {each.address} cannot be read. {error}") from error
        found[each.address] = number(replication.get("slave_priority")) or 0
    now = found.pop(target, 0)
    if not now:
        raise FailoverNotPossibleError(f"{target} has replica-priority 0. Set another one where a master may be.")
    lowest = min(filter(None, found.values()), default=0)
    if not lowest or now < lowest:
        return ""
    words = f"Sentinel may choose another replica than {target}."
    if lowest <= PREFERRED:
        raise FailoverNotPossibleError(f"{words} Give the others a higher replica-priority than {PREFERRED}.")
    try:
        peer = replica_at(settings, target, own)
        peer.refuse_without(("CONFIG", "SET", "replica-priority", str(now)), ("CONFIG", "REWRITE"))
    except FailoverNotPossibleError as error:
        raise FailoverNotPossibleError(
            f"{words} Give that one a lower replica-priority than the others, or let the agent's user call CONFIG SET there "
            "(the rights `options` in docs/howto/doctor.md)."
        ) from error
    return str(now)


def prefer(own: Peer, settings: AgentSettings, failover: Failover, is_seen: Callable[[str], bool]) -> None:
    """Lower the priority of the target, and wait until each Sentinel has seen it. `is_seen`: ask them.

    Raises: `FailoverNotPossibleError`. Then the priority is as it was.
    """
    try:
        replica_at(settings, failover.target, own).call("CONFIG", "SET", "replica-priority", str(PREFERRED))
        if wait_until(lambda: is_seen(str(PREFERRED)), time.monotonic() + INFO_SECONDS):
            return
        problem = f"Sentinel has not seen the replica-priority of {failover.target} within {INFO_SECONDS:g} s."
    except (Failure, RefusedError) as error:
        problem = f"The replica-priority of {failover.target} cannot be changed: {str(error).rstrip('.')}."
    raise FailoverNotPossibleError(" ".join([problem, *restore(own, settings, failover)]))


def restore(own: Peer, settings: AgentSettings, failover: Failover) -> list[str]:
    """Give the target its former priority. Return a sentence if that fails. May run more than once."""
    if not failover.priority:
        return []
    peer = replica_at(settings, failover.target, own)
    try:
        peer.call("CONFIG", "SET", "replica-priority", failover.priority)
    except (Failure, RefusedError) as error:
        return [f"{failover.target} still has another replica-priority ({error}). Set it to {failover.priority}."]
    return rewrite(peer)
