"""The one switch for everything: a frozen fleet releases nothing anywhere."""

from dataclasses import dataclass

from eventstore import Decider
from rollout.domain.fleet.events import FleetEvent, FleetFrozen, FleetThawed


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetState:
    """`frozen`: why, None while nothing keeps rollouts from going on."""

    frozen: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Thaw:
    pass


FleetCommand = Freeze | Thaw


def decide(state: FleetState, command: FleetCommand) -> list[FleetEvent]:
    match command:
        case Freeze(reason=reason):
            return [] if state.frozen is not None else [FleetFrozen(reason=reason)]
        case Thaw():
            return [] if state.frozen is None else [FleetThawed()]


def evolve(_: FleetState, event: FleetEvent) -> FleetState:
    match event:
        case FleetFrozen(reason=reason):
            return FleetState(frozen=reason)
        case FleetThawed():
            return FleetState()


FLEET = Decider(FleetState(), decide, evolve)
