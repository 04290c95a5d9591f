"""What holds for the whole fleet, folded from its events."""

from dataclasses import dataclass, replace

from rollout.domain.fleet.events import FleetEvent, FleetFrozen, FleetThawed, ReplicaIgnored, ReplicaUnignored


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetState:
    """`frozen`: the reason of the freeze, None while the fleet is not frozen. `ignored`: addresses of replicas."""

    frozen: str | None = None
    ignored: frozenset[str] = frozenset()


def evolve(state: FleetState, event: FleetEvent) -> FleetState:
    match event:
        case FleetFrozen(reason=reason):
            return replace(state, frozen=reason)
        case FleetThawed():
            return replace(state, frozen=None)
        case ReplicaIgnored(address=address):
            return replace(state, ignored=state.ignored | {address})
        case ReplicaUnignored(address=address):
            return replace(state, ignored=state.ignored - {address})
