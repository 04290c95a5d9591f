"""The rules of one module on one node: which events each command leads to.

An operation's outcome is final. A later report of its node is recorded in addition.
"""

from eventstore import Decider
from rollout.domain.placement.commands import (
    Cancel,
    End,
    Forget,
    GiveBack,
    PlacementCommand,
    RecordReport,
    RejectReport,
    Release,
    Retry,
    RollBack,
    Schedule,
    Wait,
)
from rollout.domain.placement.ending import cancel, end
from rollout.domain.placement.events import PlacementEvent, PlacementForgotten
from rollout.domain.placement.evolve import evolve
from rollout.domain.placement.reports import record_report, reject_report
from rollout.domain.placement.rollback import roll_back
from rollout.domain.placement.scheduling import give_back, release, retry, schedule, wait
from rollout.domain.placement.state import PlacementState


def decide(state: PlacementState, command: PlacementCommand) -> list[PlacementEvent]:
    match command:
        case Schedule():
            return schedule(state, command)
        case Release():
            return release(state, command)
        case Wait():
            return wait(state, command)
        case GiveBack():
            return give_back(state, command)
        case RecordReport(report=report):
            return record_report(state, report)
        case RejectReport(report=report, why=why):
            return reject_report(state, report, why)
        case End():
            return end(state, command)
        case Cancel():
            return cancel(state, command)
        case Retry():
            return retry(state, command)
        case RollBack():
            return roll_back(state, command)
        case Forget():
            return _forget(state, command)


def _forget(state: PlacementState, command: Forget) -> list[PlacementEvent]:
    is_known = state.desired or state.had is not None or state.changed is not None
    return [PlacementForgotten(node=command.node, module_name=command.module_name)] if is_known else []


PLACEMENT = Decider(PlacementState(), decide, evolve)
