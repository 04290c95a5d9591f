"""The rules of the freeze: a frozen fleet releases nothing to any node. Freezing a frozen fleet does nothing."""

from dataclasses import dataclass

from eventstore import Decider
from rollout.domain.fleet.events import FleetEvent, FleetFrozen, FleetThawed


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetState:
    """`frozen`: the reason of the freeze, None while the fleet is not frozen."""

    frozen: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """Stop all releases. `reason` is for people. Do nothing if the fleet is frozen: the first reason stays."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Thaw:
    """End the freeze. Do nothing if the fleet is not frozen."""


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
