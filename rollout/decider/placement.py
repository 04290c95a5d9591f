"""The rules of one module on one node: at most one live operation, and a newer one may wait behind it.

A generation is an intent: it grows with each operation, so that the node can refuse what is older. A retry keeps the
generation and raises the attempt. Final is final: what the node says later is recorded beside the outcome.
"""

from dataclasses import dataclass, replace

from eventstore.decider import Decider
from rollout.errors import RolloutInProgressError
from rollout.events import (
    OperationFinished,
    OperationGivenBack,
    OperationProgressed,
    OperationReleased,
    OperationReportedLate,
    OperationScheduled,
    PlacementEvent,
    ReportRejected,
)
from rollout.messages import Action, Activation, Phase, Reason, Report

#: A report never takes an operation back to an earlier one of these.
_ORDER = tuple(Phase)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    rollout: str
    version: int
    action: Action
    activation: Activation
    content_sha256: str
    generation: int
    attempt: int
    ordinal: int
    phase: Phase = Phase.SCHEDULED
    late: Phase | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementState:
    """`waiting` is scheduled behind `live`; `ended` is the newest that is final; `rejected` is the last report that
    was (rollout, generation, attempt, phase), which is recorded once however often it comes."""

    generation: int = 0
    live: Operation | None = None
    waiting: Operation | None = None
    ended: Operation | None = None
    rejected: tuple[str, int, int, Phase] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """`known_generation` is the newest that the node has journaled: after a restored backup it may be above ours.
    `skip`: the node is in the rollout, and it is known already that nothing can be done there."""

    rollout: str
    node: str
    module_name: str
    version: int
    action: Action
    activation: Activation
    content_sha256: str
    ordinal: int
    wave: int = 0
    known_generation: int = 0
    supersede: bool = False
    skip: tuple[Reason, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    rollout: str
    node: str
    module_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveBack:
    node: str
    module_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordReport:
    report: Report


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Ended by the control plane: `canceled` only what is still scheduled, `timed_out` only what is not, anything else
    whatever is not final.
    `attempt`: only if this one, for what was judged by rows may have been retried since."""

    rollout: str
    node: str
    module_name: str
    phase: Phase
    reason: Reason
    message: str = ""
    attempt: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    rollout: str
    node: str
    module_name: str


PlacementCommand = Schedule | Release | GiveBack | RecordReport | End | Retry


def decide(state: PlacementState, command: PlacementCommand) -> list[PlacementEvent]:
    match command:
        case Schedule():
            return _schedule(state, command)
        case Release(rollout=rollout):
            live = state.live
            if live is None or live.rollout != rollout or live.phase != Phase.SCHEDULED:
                return []
            return [_released(live, command)]
        case GiveBack():
            return _give_back(state, command)
        case RecordReport(report=report):
            return _record(state, report)
        case End():
            return _end(state, command)
        case Retry():
            return _retry(state, command)


def _schedule(state: PlacementState, command: Schedule) -> list[PlacementEvent]:
    live = state.live
    if any(known is not None and known.rollout == command.rollout for known in (live, state.waiting, state.ended)):
        return []
    if live is not None and not command.supersede:
        raise RolloutInProgressError(live.rollout, command.node)
    generation = max(state.generation, command.known_generation) + 1
    events: list[PlacementEvent] = [
        _finished(older, command, Phase.CANCELED, Reason.NEWER_ROLLOUT)
        for older in (state.waiting, live)
        if older is not None and older.phase == Phase.SCHEDULED
    ]
    behind = live is not None and live.phase != Phase.SCHEDULED
    events.append(
        OperationScheduled(
            rollout=command.rollout,
            node=command.node,
            module_name=command.module_name,
            version=command.version,
            action=command.action,
            activation=command.activation,
            content_sha256=command.content_sha256,
            generation=generation,
            attempt=1,
            ordinal=command.ordinal,
            wave=command.wave,
            behind=behind,
        )
    )
    if command.skip is not None:
        reason, message = command.skip
        events.append(
            OperationFinished(
                rollout=command.rollout,
                node=command.node,
                module_name=command.module_name,
                phase=Phase.SKIPPED,
                reason=reason,
                message=message,
            )
        )
    return events


def _released(live: Operation, command: Release) -> OperationReleased:
    return OperationReleased(
        rollout=live.rollout,
        node=command.node,
        module_name=command.module_name,
        version=live.version,
        action=live.action,
        activation=live.activation,
        content_sha256=live.content_sha256,
    )


def _give_back(state: PlacementState, command: GiveBack) -> list[PlacementEvent]:
    live = state.live
    if live is None or live.phase != Phase.QUEUED:
        return []
    given_back = OperationGivenBack(rollout=live.rollout, node=command.node, module_name=command.module_name)
    if state.waiting is None:
        return [given_back]
    return [given_back, _finished(live, command, Phase.CANCELED, Reason.NEWER_ROLLOUT)]


def _finished(
    operation: Operation, command: Schedule | GiveBack | End, phase: Phase, reason: Reason, message: str = ""
) -> OperationFinished:
    return OperationFinished(
        rollout=operation.rollout,
        node=command.node,
        module_name=command.module_name,
        phase=phase,
        reason=reason,
        message=message,
    )


def _record(state: PlacementState, report: Report) -> list[PlacementEvent]:
    live, ended = state.live, state.ended
    if live is not None and live.rollout == report.rollout:
        if (report.generation, report.attempt) < (live.generation, live.attempt):
            return []  # an answer to an attempt that was given up
        if (report.generation, report.attempt) > (live.generation, live.attempt):
            return _reject(state, report, f"the newest is generation {live.generation}, attempt {live.attempt}")
        return _record_live(live, report)
    if ended is not None and ended.rollout == report.rollout:
        if not report.phase.is_final or report.phase in {ended.phase, ended.late}:
            return []
        return [
            OperationReportedLate(
                rollout=report.rollout,
                node=report.node,
                module_name=report.module_name,
                phase=report.phase,
                reason=report.reason,
                message=report.message,
            )
        ]
    if report.generation <= state.generation:
        return []  # of an operation before the newest one that ended: nothing depends on it any more
    return _reject(state, report, "no such operation")


def _record_live(live: Operation, report: Report) -> list[PlacementEvent]:
    if report.phase.is_final:
        return [
            OperationFinished(
                rollout=report.rollout,
                node=report.node,
                module_name=report.module_name,
                phase=report.phase,
                reason=report.reason,
                message=report.message,
                seconds=report.seconds,
            )
        ]
    if _ORDER.index(report.phase) <= _ORDER.index(live.phase):
        return []
    return [
        OperationProgressed(
            rollout=report.rollout, node=report.node, module_name=report.module_name, phase=report.phase
        )
    ]


def _reject(state: PlacementState, report: Report, why: str) -> list[PlacementEvent]:
    if state.rejected == (report.rollout, report.generation, report.attempt, report.phase):
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


def _end(state: PlacementState, command: End) -> list[PlacementEvent]:
    for operation in (state.waiting, state.live):
        if operation is None or operation.rollout != command.rollout:
            continue
        if command.attempt not in {None, operation.attempt}:
            return []
        is_scheduled = operation.phase == Phase.SCHEDULED
        if (command.phase == Phase.CANCELED and not is_scheduled) or (
            command.phase == Phase.TIMED_OUT and is_scheduled
        ):
            return []
        return [_finished(operation, command, command.phase, command.reason, command.message)]
    return []


def _retry(state: PlacementState, command: Retry) -> list[PlacementEvent]:
    ended, live = state.ended, state.live
    if ended is None or ended.rollout != command.rollout or ended.phase not in {Phase.FAILED, Phase.TIMED_OUT}:
        return []
    if live is not None and live.rollout == command.rollout:
        return []
    if live is not None:
        raise RolloutInProgressError(live.rollout, command.node)
    return [
        OperationScheduled(
            rollout=ended.rollout,
            node=command.node,
            module_name=command.module_name,
            version=ended.version,
            action=ended.action,
            activation=ended.activation,
            content_sha256=ended.content_sha256,
            generation=ended.generation,
            attempt=ended.attempt + 1,
            ordinal=ended.ordinal,
        )
    ]


def evolve(state: PlacementState, event: PlacementEvent) -> PlacementState:
    match event:
        case OperationScheduled():
            return _evolve_scheduled(state, event)
        case OperationReleased():
            return _with_live(state, Phase.QUEUED)
        case OperationGivenBack():
            return _with_live(state, Phase.SCHEDULED)
        case OperationProgressed():
            return _with_live(state, event.phase)
        case OperationFinished():
            return _evolve_finished(state, event)
        case OperationReportedLate():
            ended = state.ended
            return state if ended is None else replace(state, ended=replace(ended, late=event.phase))
        case ReportRejected():
            return replace(state, rejected=(event.rollout, event.generation, event.attempt, event.phase))


def _evolve_scheduled(state: PlacementState, event: OperationScheduled) -> PlacementState:
    operation = Operation(
        rollout=event.rollout,
        version=event.version,
        action=event.action,
        activation=event.activation,
        content_sha256=event.content_sha256,
        generation=event.generation,
        attempt=event.attempt,
        ordinal=event.ordinal,
    )
    generation = max(state.generation, event.generation)
    if event.behind:
        return replace(state, generation=generation, waiting=operation)
    return replace(state, generation=generation, live=operation)


def _with_live(state: PlacementState, phase: Phase) -> PlacementState:
    return state if state.live is None else replace(state, live=replace(state.live, phase=phase))


def _evolve_finished(state: PlacementState, event: OperationFinished) -> PlacementState:
    if state.waiting is not None and state.waiting.rollout == event.rollout:
        return replace(state, waiting=None, ended=replace(state.waiting, phase=event.phase))
    if state.live is None or state.live.rollout != event.rollout:
        return state
    return replace(state, live=state.waiting, waiting=None, ended=replace(state.live, phase=event.phase))


PLACEMENT = Decider(PlacementState(), decide, evolve)
