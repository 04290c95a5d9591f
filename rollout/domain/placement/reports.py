"""What a node's report changes: progress, the end of an operation, a late report, or a rejection."""

from rollout.domain.placement.commands import GiveBack
from rollout.domain.placement.ending import superseded
from rollout.domain.placement.events import (
    OperationFinished,
    OperationGivenBack,
    OperationProgressed,
    PlacementEvent,
    ReportRejected,
)
from rollout.domain.placement.late_reports import record_late_report
from rollout.domain.placement.outcomes import reported_outcome
from rollout.domain.placement.state import Operation, PlacementState
from rollout.messages import REPORTED_PHASES, REPORTED_REASONS, RETURNING, RUNNING_PHASES, Phase, Reason, Report

#: The most rejected reports that are recorded between two scheduled operations, so that no node can fill the log.
MOST_REJECTED = 10

#: What may happen in a phase. The operation goes on.
_NOTED = frozenset(
    {
        Reason.LINK_DOWN,
        Reason.SERVER_HANGS,
        Reason.SERVER_RESTARTED,
        Reason.EXTERNAL_CONFIGURATION,
        Reason.RESTART_REQUIRED,  # by a person
        Reason.SERVER_NOT_READY,  # after its restart
    }
)
#: A report never moves an operation back to an earlier phase.
_ORDER = tuple(Phase)


def record_report(state: PlacementState, report: Report) -> list[PlacementEvent]:
    if why := refusal(state, report):
        return reject_report(state, report, why)
    live = state.live
    if live is None or live.rollout != report.rollout:
        return record_late_report(state, report)
    if (report.generation, report.attempt) < (live.generation, live.attempt):
        return []  # a report of an earlier attempt
    if report.phase == Phase.SCHEDULED:
        return _record_return(state, live, report)
    return _record_live(live, report)


def refusal(state: PlacementState, report: Report) -> str:
    """Return why the report fits no operation of this placement; empty if it fits one."""
    if not state.generation:
        return "no operation of this module was ever scheduled on the node"
    if report.phase not in REPORTED_PHASES:
        return f"no agent reports the phase {report.phase}"
    if report.phase == Phase.SCHEDULED and report.reason not in RETURNING:
        return f"no agent returns an operation for the reason {report.reason}"
    if report.reason is not None and report.reason not in REPORTED_REASONS:
        return f"no agent reports the reason {report.reason}"
    live = state.live
    if live is not None and live.rollout == report.rollout:
        asked, newest = (report.generation, report.attempt), (live.generation, live.attempt)
        if live.phase == Phase.SCHEDULED and asked == newest and not live.released:
            return "the operation is not released yet"
        is_ahead = asked > newest
        return f"the newest is generation {live.generation}, attempt {live.attempt}" if is_ahead else ""
    known = [each for each in (state.ended, state.changed) if each is not None and each.rollout == report.rollout]
    if known and all(each.before is None for each in known):
        return "the operation was never released"
    # Nothing depends any more on operations before the newest one that ended.
    return "" if known or report.generation <= state.generation else "no such operation"


def _record_return(state: PlacementState, live: Operation, report: Report) -> list[PlacementEvent]:
    """Schedule the operation again. The return of an earlier release says nothing about the newest one."""
    if live.phase == Phase.SCHEDULED or (report.release and report.release < live.releases):
        return []
    if live.phase == Phase.CANCELING:
        return [
            OperationFinished(
                rollout=report.rollout,
                node=report.node,
                module_name=report.module_name,
                phase=Phase.CANCELED,
                reason=Reason.MANUAL,
                message=report.message,
                seconds=report.seconds,
                answered=True,
            )
        ]
    returned = OperationGivenBack(
        rollout=report.rollout,
        node=report.node,
        module_name=report.module_name,
        reason=report.reason,
        message=report.message,
    )
    if state.waiting is None:
        return [returned]
    again = GiveBack(node=report.node, module_name=report.module_name)
    return [returned, superseded(live, again, state.waiting.rollout)]


def _record_live(live: Operation, report: Report) -> list[PlacementEvent]:
    if report.phase.is_final:
        phase, reason, message = reported_outcome(live, report)
        return [
            OperationFinished(
                rollout=report.rollout,
                node=report.node,
                module_name=report.module_name,
                phase=phase,
                reason=reason,
                message=message,
                seconds=report.seconds,
                swap_seconds=report.swap_seconds,
                answered=True,
                health=report.health,
                restart=report.restart,
                way_back=report.way_back,
            )
        ]
    is_returned = 0 < report.release <= live.returned  # it has arrived after the return
    reason = report.reason if report.reason in _NOTED and report.reason not in live.noted else None
    is_later = _ORDER.index(report.phase) > _ORDER.index(live.phase)
    is_news = reason is not None and live.phase in RUNNING_PHASES and live.phase != Phase.CANCELING
    if is_returned or not (is_later or is_news):
        return []
    return [
        OperationProgressed(
            rollout=report.rollout,
            node=report.node,
            module_name=report.module_name,
            phase=report.phase if is_later else live.phase,
            reason=reason,
            message=report.message if reason else "",
        )
    ]


def reject_report(state: PlacementState, report: Report, why: str) -> list[PlacementEvent]:
    if not state.generation:
        return []  # no operation was ever scheduled here: reports of any module name must not create streams
    is_known = (report.rollout, report.generation, report.attempt, report.phase) in state.rejections
    if is_known or len(state.rejections) >= MOST_REJECTED:
        return []
    return [
        ReportRejected(
            rollout=report.rollout,
            node=report.node,
            module_name=report.module_name,
            generation=report.generation,
            attempt=report.attempt,
            phase=report.phase,
            why=why,
        )
    ]
