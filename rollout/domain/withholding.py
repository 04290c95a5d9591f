"""Whether a replica with another version than its master must not become the master for now. Pure.

A replica is kept back only while another one could take over: a shard in which none can is worse than one with two versions.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A copy of the shard. `version`: of the module that it has loaded, None if none. `serves`: it is the master, or could become
    it, by its newest heartbeat."""

    version: int | None
    serves: bool


def must_withhold(version: int, master: Copy | None, others: Iterable[Copy], *, waits_for_person: bool) -> bool:
    """Return True if the replica with this version must not become the master.

    `master`: None if it is no node. `others`: the other replicas. `waits_for_person`: no person has accepted yet that there is no
    way back to the former version.
    """
    if master is not None and master.version == version:
        return False
    former = {each.version for each in others if each.serves} - {version, None}
    if master is None:
        return bool(former)
    return master.version in former or (waits_for_person and master.serves)
