"""The state after each event of a placement.

The desired state changes when an operation is released, and changes back when the operation ends without success. Nothing
else computes the desired state.
"""

from dataclasses import replace

from rollout.domain.placement.events import (
    OperationCancelRequested,
    OperationFinished,
    OperationGivenBack,
    OperationProgressed,
    OperationReleased,
    OperationReportedLate,
    OperationScheduled,
    OperationWaiting,
    PlacementEvent,
    PlacementForgotten,
    ReportRejected,
    Target,
)
from rollout.domain.placement.late_reports import evolve_reported_late
from rollout.domain.placement.outcomes import answer_of, is_success
from rollout.domain.placement.rollback import successes_after
from rollout.domain.placement.state import Operation, PlacementState
from rollout.messages import Phase


def evolve(state: PlacementState, event: PlacementEvent) -> PlacementState:
    match event:
        case OperationScheduled():
            return _scheduled(state, event)
        case OperationReleased():
            return _released(state, event)
        case OperationWaiting():
            return state
        case OperationCancelRequested():
            return _with_live(state, Phase.CANCELING)
        case OperationGivenBack():
            return _given_back(state, event)
        case OperationProgressed():
            return _progressed(state, event)
        case OperationFinished():
            return _finished(state, event)
        case OperationReportedLate():
            return evolve_reported_late(state, event)
        case ReportRejected():
            rejected = (event.rollout, event.generation, event.attempt, event.phase)
            return replace(state, rejections=(*state.rejections, rejected))
        case PlacementForgotten():
            live = None if state.live is None else replace(state.live, was=())
            return replace(state, live=live, desired=(), had=None, changed=None, brought=())


def _scheduled(state: PlacementState, event: OperationScheduled) -> PlacementState:
    operation = Operation(**event.values())
    if state.ended is not None and event.attempt > 1:
        # The desired state is that of before the first attempt, unless the first attempt has succeeded late.
        operation = replace(operation, before=state.ended.before, was=state.desired)
    state = replace(state, generation=max(state.generation, event.generation), rejections=())
    return replace(state, waiting=operation) if event.behind else replace(state, live=operation)


def _released(state: PlacementState, event: OperationReleased) -> PlacementState:
    live = state.live
    if live is None:
        return state
    if live.before is None:
        live = replace(live, before=_had(state, event), was=state.desired)
    live = replace(live, phase=Phase.QUEUED, released=True, releases=live.releases + 1)
    return replace(state, live=live, desired=state.desired if live.fails_back_to else live.result)


def _had(state: PlacementState, event: OperationReleased) -> tuple[Target, ...]:
    """Return what the node has. Without a success and without an inventory, return the desired state."""
    if state.had is not None:
        return state.had
    return state.desired if event.before is None else event.before


def _given_back(state: PlacementState, event: OperationGivenBack) -> PlacementState:
    live = state.live
    if live is None:
        return state
    returned = live.returned if event.reason is None else live.releases
    return replace(state, live=replace(live, phase=Phase.SCHEDULED, returned=returned))


def _with_live(state: PlacementState, phase: Phase) -> PlacementState:
    return state if state.live is None else replace(state, live=replace(state.live, phase=phase))


def _progressed(state: PlacementState, event: OperationProgressed) -> PlacementState:
    if state.live is None:
        return state
    noted = state.live.noted if event.reason is None else (*state.live.noted, event.reason)
    return replace(state, live=replace(state.live, phase=event.phase, noted=noted))


def _finished(state: PlacementState, event: OperationFinished) -> PlacementState:
    if state.waiting is not None and state.waiting.rollout == event.rollout:
        ended = replace(state.waiting, phase=event.phase, answers=(answer_of(event),))  # it was never released
        return replace(state, waiting=None, ended=ended)
    live = state.live
    if live is None or live.rollout != event.rollout:
        return state
    ended = replace(
        live,
        phase=event.phase,
        succeeded=is_success(event),
        answers=(answer_of(event),),
        answered=_is_answered(event),
    )
    state = replace(state, live=state.waiting, waiting=None, ended=ended)
    if ended.before is None or ended.fails_back_to:
        return state
    if ended.succeeded:
        brought = successes_after(state, ended)
        return replace(state, changed=ended, desired=ended.result, had=ended.result, brought=brought)
    return replace(state, changed=ended, desired=ended.was)


def _is_answered(event: OperationFinished) -> bool:
    """Return True if the node reported the end. Older logs do not record it: there the control plane ended most canceled
    operations, and all that timed out."""
    return event.phase not in {Phase.CANCELED, Phase.TIMED_OUT} if event.answered is None else event.answered
