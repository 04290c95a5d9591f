"""Freezes and thaws the fleet."""

from eventstore import transact
from rollout.domain.fleet.decider import FLEET
from rollout.domain.fleet.events import FLEET_STREAM
from rollout.domain.fleet.freeze import Freeze, Thaw
from rollout.process.advance import advance_all
from rollout.queries.rollouts import unfinished_rollouts


def freeze_fleet(reason: str) -> None:
    """Freeze the fleet: no operation is released until it is thawed. Operations in progress continue."""
    transact(FLEET_STREAM, FLEET, Freeze(reason=reason))


def thaw_fleet() -> None:
    """Lift the freeze, and advance all rollouts."""
    transact(FLEET_STREAM, FLEET, Thaw())
    advance_all(unfinished_rollouts())
