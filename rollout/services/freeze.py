"""Freezes and thaws the fleet."""

from eventstore import transact
from rollout.domain.fleet.decider import FLEET, Freeze, Thaw
from rollout.domain.fleet.events import FLEET_STREAM
from rollout.process.advance import advance_all
from rollout.queries.rollouts import unfinished_rollouts


def freeze_fleet(reason: str) -> None:
    """Nothing is released anywhere until it is thawed. What was released goes on."""
    transact(FLEET_STREAM, FLEET, Freeze(reason=reason))


def thaw_fleet() -> None:
    transact(FLEET_STREAM, FLEET, Thaw())
    advance_all(unfinished_rollouts())
