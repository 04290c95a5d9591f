"""The rules of ignored replicas: a person answers for a replica that is no node. Such a replica does not get modules."""

from dataclasses import dataclass

from rollout.domain.errors import IgnoredReplicaNotFoundError
from rollout.domain.fleet.events import FleetEvent, ReplicaIgnored, ReplicaUnignored
from rollout.domain.fleet.state import FleetState


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoreReplica:
    """Accept a replica that is no node. Do nothing if it is ignored: the first reason stays.

    `address`: as the master names it, canonical. `reason` is for people.
    """

    address: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnignoreReplica:
    """Withdraw that. Raises: `IgnoredReplicaNotFoundError`."""

    address: str


def ignore(state: FleetState, command: IgnoreReplica) -> list[FleetEvent]:
    if command.address in state.ignored:
        return []
    return [ReplicaIgnored(address=command.address, reason=command.reason)]


def unignore(state: FleetState, command: UnignoreReplica) -> list[FleetEvent]:
    if command.address not in state.ignored:
        raise IgnoredReplicaNotFoundError
    return [ReplicaUnignored(address=command.address)]
