"""The rules of the freeze: a frozen fleet releases nothing to any node. Freezing a frozen fleet does nothing."""

from dataclasses import dataclass

from rollout.domain.fleet.events import FleetEvent, FleetFrozen, FleetThawed
from rollout.domain.fleet.state import FleetState


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """Stop all releases. `reason` is for people. Do nothing if the fleet is frozen: the first reason stays."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Thaw:
    """End the freeze. Do nothing if the fleet is not frozen."""


def freeze(state: FleetState, command: Freeze) -> list[FleetEvent]:
    return [] if state.frozen is not None else [FleetFrozen(reason=command.reason)]


def thaw(state: FleetState) -> list[FleetEvent]:
    return [] if state.frozen is None else [FleetThawed()]
