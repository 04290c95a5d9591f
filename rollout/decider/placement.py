"""The rules of one module on one node: at most one live operation, and a newer one may wait behind it.

A generation is an intent: it grows with each operation, so that the node can refuse what is older. A retry keeps the
generation and raises the attempt. Final is final: what the node says later is recorded beside the outcome. What the
node is to have changes when an operation is released, and a rollback brings back what it was to have before that.
"""

from dataclasses import dataclass, replace

from eventstore.decider import Decider
from rollout.errors import RolloutInProgressError
from rollout.events import (
    OperationCancelRequested,
    OperationFinished,
    OperationGivenBack,
    OperationProgressed,
    OperationReleased,
    OperationReportedLate,
    OperationScheduled,
    PlacementEvent,
    ReportRejected,
    Target,
)
from rollout.messages import Action, Activation, Phase, Reason, Report

#: A report never takes an operation back to an earlier one of these.
_ORDER = tuple(Phase)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`before`: what the node was to have when it was first released, None until then."""

    rollout: str
    version: int
    action: Action
    activation: Activation
    content_sha256: str
    generation: int
    attempt: int
    ordinal: int
    wave: int
    rollback: bool
    undoes: int | None
    before: tuple[Target, ...] | None = None
    phase: Phase = Phase.SCHEDULED
    late: Phase | None = None

    def outcome_of(self, phase: Phase) -> Phase:
        """The final phase that the operation gets by a final report of `phase`."""
        return Phase.ROLLED_BACK if self.rollback and phase in {Phase.SUCCEEDED, Phase.SKIPPED} else phase


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementState:
    """`waiting` is scheduled behind `live`; `ended` is the newest that is final; `rejected` is the last report that
    was (rollout, generation, attempt, phase), which is recorded once however often it comes. `desired`: what the node
    is to have of the module, an entry for each version; at most one of them is loaded. `changed` is the newest that was
    released and has ended."""

    generation: int = 0
    live: Operation | None = None
    waiting: Operation | None = None
    ended: Operation | None = None
    rejected: tuple[str, int, int, Phase] | None = None
    desired: tuple[Target, ...] = ()
    changed: Operation | None = None


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
    """Ended by the control plane: `canceled` and `skipped` only what is still scheduled, `timed_out` only what is not,
    anything else whatever is not final.
    `attempt`: only if this one, for what was judged by rows may have been retried since."""

    rollout: str
    node: str
    module_name: str
    phase: Phase
    reason: Reason
    message: str = ""
    attempt: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """What is scheduled is canceled; the node is asked to give up what it has in hand, and with `force` nobody waits
    for its answer."""

    rollout: str
    node: str
    module_name: str
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    rollout: str
    node: str
    module_name: str
    delay_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RollBack:
    """Take back what `rollout` did here, as a part of `into`: nothing, if something newer has been done since."""

    rollout: str
    node: str
    module_name: str
    into: str


PlacementCommand = Schedule | Release | GiveBack | RecordReport | End | Cancel | Retry | RollBack


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
        case Cancel():
            return _cancel(state, command)
        case Retry():
            return _retry(state, command)
        case RollBack():
            return _roll_back(state, command)


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
        undoes=live.undoes,
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
    operation: Operation, command: Schedule | GiveBack | End | Cancel, phase: Phase, reason: Reason, message: str = ""
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
        if (report.generation, report.attempt) < (ended.generation, ended.attempt):
            return []
        if not report.phase.is_final or ended.outcome_of(report.phase) in {ended.phase, ended.late}:
            return []
        return [
            OperationReportedLate(
                rollout=report.rollout,
                node=report.node,
                module_name=report.module_name,
                phase=ended.outcome_of(report.phase),
                reason=report.reason,
                message=report.message,
            )
        ]
    if report.generation <= state.generation:
        return []  # of an operation before the newest one that ended: nothing depends on it any more
    return _reject(state, report, "no such operation")


def _record_live(live: Operation, report: Report) -> list[PlacementEvent]:
    if report.phase.is_final:
        phase, reason, message = _outcome(live, report)
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
            )
        ]
    if _ORDER.index(report.phase) <= _ORDER.index(live.phase):
        return []
    return [
        OperationProgressed(
            rollout=report.rollout, node=report.node, module_name=report.module_name, phase=report.phase
        )
    ]


def _outcome(live: Operation, report: Report) -> tuple[Phase, Reason | None, str]:
    """As the node says, unless what it has says otherwise: a success counts only with the bytes that were asked for."""
    if report.phase in {Phase.SUCCEEDED, Phase.SKIPPED} and (found := _contradiction(live, report)):
        message = f"{report.node} says that it is done, but {found}. {report.message}".rstrip()
        return Phase.FAILED, Reason.INVENTORY_MISMATCH, message
    return live.outcome_of(report.phase), report.reason, report.message


def _contradiction(live: Operation, report: Report) -> str:
    """What the inventory of a report holds against it, empty if nothing."""
    if report.inventory is None:
        return ""
    version = (report.module_name, live.version)
    found = next((each for each in report.inventory.modules if (each.module_name, each.version) == version), None)
    if live.action == Action.REMOVE:
        return "" if found is None else "still has the module"
    if found is None:
        return "does not have the module"
    if found.content_sha256 != live.content_sha256:
        return f"has other bytes: {found.content_sha256}"
    return "has not loaded it" if live.activation == Activation.LOAD and not found.loaded else ""


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
        if (command.phase in {Phase.CANCELED, Phase.SKIPPED} and not is_scheduled) or (
            command.phase == Phase.TIMED_OUT and is_scheduled
        ):
            return []
        return [_finished(operation, command, command.phase, command.reason, command.message)]
    return []


def _cancel(state: PlacementState, command: Cancel) -> list[PlacementEvent]:
    for operation in (state.waiting, state.live):
        if operation is None or operation.rollout != command.rollout:
            continue
        if operation.phase == Phase.SCHEDULED:
            return [_finished(operation, command, Phase.CANCELED, Reason.MANUAL)]
        if command.force:
            message = f"{command.node} was not waited for; its last phase was {operation.phase}."
            return [_finished(operation, command, Phase.CANCELED, Reason.MANUAL, message)]
        if operation.phase == Phase.CANCELING:
            return []
        return [OperationCancelRequested(rollout=command.rollout, node=command.node, module_name=command.module_name)]
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
            wave=ended.wave,
            rollback=ended.rollback,
            undoes=ended.undoes,
            delay_seconds=command.delay_seconds,
        )
    ]


def _roll_back(state: PlacementState, command: RollBack) -> list[PlacementEvent]:
    changed = state.changed
    if state.live is not None or changed is None or changed.rollout != command.rollout:
        return []
    if changed.before is None or changed.rollback:
        return []
    target, undoes = _former(changed, changed.before)
    return [
        OperationScheduled(
            rollout=command.into,
            node=command.node,
            module_name=command.module_name,
            version=changed.version if target is None else target.version,
            action=Action.REMOVE if target is None else Action.INSTALL,
            activation=changed.activation if target is None else target.activation,
            content_sha256="" if target is None else target.content_sha256,
            generation=state.generation + 1,
            attempt=1,
            ordinal=changed.ordinal,
            wave=changed.wave,
            rollback=True,
            undoes=undoes,
        )
    ]


def _former(operation: Operation, before: tuple[Target, ...]) -> tuple[Target | None, int | None]:
    """What to install so that the node is as it was before `operation`, None to remove its version; and the version
    that has to go then."""
    own = next((each for each in before if each.version == operation.version), None)
    loaded = next((each for each in before if each.activation == Activation.LOAD), None)
    replaced = operation.action == Action.INSTALL and operation.activation == Activation.LOAD
    if replaced and loaded is not None and loaded is not own:
        return loaded, operation.version if own is None else None
    return own, operation.version if own is None or own.activation == Activation.FILES else None


def evolve(state: PlacementState, event: PlacementEvent) -> PlacementState:
    match event:
        case OperationScheduled():
            return _evolve_scheduled(state, event)
        case OperationReleased():
            return _evolve_released(state, event)
        case OperationCancelRequested():
            return _with_live(state, Phase.CANCELING)
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
        wave=event.wave,
        rollback=event.rollback,
        undoes=event.undoes,
        before=state.ended.before if state.ended is not None and event.attempt > 1 else None,
    )
    generation = max(state.generation, event.generation)
    if event.behind:
        return replace(state, generation=generation, waiting=operation)
    return replace(state, generation=generation, live=operation)


def _evolve_released(state: PlacementState, event: OperationReleased) -> PlacementState:
    live = state.live
    if live is None:
        return state
    before = state.desired if live.before is None else live.before
    desired = desired_after(state.desired, event)
    return replace(state, live=replace(live, phase=Phase.QUEUED, before=before), desired=desired)


def desired_after(desired: tuple[Target, ...], event: OperationReleased) -> tuple[Target, ...]:
    """What the node is to have of the module once the operation is released; by version."""
    former = {each.version: each for each in desired}
    kept = {version: each for version, each in former.items() if version not in {event.version, event.undoes}}
    if event.action == Action.INSTALL:
        activation = event.activation
        if event.version in former and event.undoes != event.version:
            activation = max(activation, former[event.version].activation)  # files in place unload nothing
        if activation == Activation.LOAD:  # a server holds one version of a module at a time
            kept = {version: replace(each, activation=Activation.FILES) for version, each in kept.items()}
        kept[event.version] = Target(version=event.version, activation=activation, content_sha256=event.content_sha256)
    return tuple(kept[version] for version in sorted(kept))


def _with_live(state: PlacementState, phase: Phase) -> PlacementState:
    return state if state.live is None else replace(state, live=replace(state.live, phase=phase))


def _evolve_finished(state: PlacementState, event: OperationFinished) -> PlacementState:
    if state.waiting is not None and state.waiting.rollout == event.rollout:
        return replace(state, waiting=None, ended=replace(state.waiting, phase=event.phase))
    if state.live is None or state.live.rollout != event.rollout:
        return state
    ended = replace(state.live, phase=event.phase)
    changed = state.changed if ended.before is None else ended
    return replace(state, live=state.waiting, waiting=None, ended=ended, changed=changed)


PLACEMENT = Decider(PlacementState(), decide, evolve)
