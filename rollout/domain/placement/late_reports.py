"""A late report: a node reports the end of an operation that has already ended, for example by its deadline.

The recorded outcome stays. A late success still changes what the node has: the desired state follows it, unless a person
canceled the operation.
"""

from dataclasses import replace

from rollout.domain.placement.events import OperationReportedLate, PlacementEvent
from rollout.domain.placement.outcomes import answer_of, final_phase, is_success
from rollout.domain.placement.rollback import successes_after
from rollout.domain.placement.state import Operation, PlacementState
from rollout.messages import Phase, Report


def record_late_report(state: PlacementState, report: Report) -> list[PlacementEvent]:
    for ended in (state.ended, state.changed):
        if ended is None or ended.rollout != report.rollout:
            continue
        if not report.phase.is_final or (report.generation, report.attempt) < (ended.generation, ended.attempt):
            return []
        late = OperationReportedLate(
            rollout=report.rollout,
            node=report.node,
            module_name=report.module_name,
            phase=final_phase(ended, report.phase, report.reason),
            reason=report.reason,
            message=report.message,
        )
        # Each answer once: a success counts whatever was reported before, and contradictions come to an end.
        return [] if answer_of(late) in ended.answers else [late]
    return []


def evolve_reported_late(state: PlacementState, event: OperationReportedLate) -> PlacementState:
    """Record a late success: the node had its result when the next operation started there."""
    changed = state.changed
    if state.ended is not None and state.ended.rollout == event.rollout:
        state = replace(state, ended=_answered(state.ended, event))
    if changed is None or changed.rollout != event.rollout:
        return state
    changed = _answered(changed, event)
    if not is_success(event) or changed.before is None:
        return replace(state, changed=changed)
    desired = state.desired if state.live is None or state.live.before is None else state.live.was
    brought = state.brought if changed.succeeded else successes_after(state, replace(changed, succeeded=True))
    if changed.phase != Phase.CANCELED:
        changed, desired = replace(changed, succeeded=True), changed.result
    state = replace(state, changed=changed, had=changed.result, desired=desired, brought=brought)
    if state.live is None or state.live.before is None:
        return state
    live = replace(state.live, before=changed.result, was=desired)
    return replace(state, live=live, desired=live.result)


def _answered(operation: Operation, event: OperationReportedLate) -> Operation:
    return replace(operation, answers=(*operation.answers, answer_of(event)), answered=True)
