"""The rules of one module on one node: at most one live operation, and a newer one may wait behind it.

A generation is an intent: it grows with each operation, so that the node can refuse what is older. A retry keeps the
generation and raises the attempt. Final is final: what the node says later is recorded beside the outcome.

The desired state changes when an operation is released, and changes back when it ends without success. A rollback
restores what the node had before the operation: what the last success left, or the inventory if there was none.
Nothing else computes the desired state: `projections.nodes` stores what `evolve` says.
"""

from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from eventstore import Decider
from rollout.domain.errors import RolloutInProgressError
from rollout.domain.placement.events import (
    OperationCancelRequested,
    OperationFinished,
    OperationGivenBack,
    OperationProgressed,
    OperationReleased,
    OperationReportedLate,
    OperationScheduled,
    PlacementEvent,
    PlacementForgotten,
    ReportRejected,
    Target,
)
from rollout.messages import REPORTED_PHASES, REPORTED_REASONS, Action, Activation, Phase, Reason, Report

#: A report never takes an operation back to an earlier one of these.
_ORDER = tuple(Phase)
#: Why a node skips an operation: it is as it was asked for.
NOTHING_TO_DO = frozenset({Reason.ALREADY_INSTALLED, Reason.NOT_INSTALLED})


#: So many intents for one module of one node may be lost with a restored backup.
LARGEST_LEAD = 1000
#: So many rejected reports are recorded between two operations that are scheduled: a node may say anything, and the log
#: must not grow by that without end.
MOST_REJECTED = 10
#: So many of the newest successes may be taken back one after the other, the newest first.
MOST_BROUGHT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`before`: what the node had when this was first released, None until then; `was`: what was desired at that time.
    `yields`: an operation of a person takes its place. `succeeded`: the node is as this was to leave it.
    `answers`: how the attempt has ended, and what the node has said of it since: a phase and whether it is a success.
    `released`: the node was asked, in this attempt. `answered`: it has said at least once how the attempt ended."""

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
    yields: bool = False
    before: tuple[Target, ...] | None = None
    was: tuple[Target, ...] = ()
    phase: Phase = Phase.SCHEDULED
    released: bool = False
    answers: tuple[tuple[Phase, bool], ...] = ()
    answered: bool = False
    succeeded: bool = False

    @property
    def result(self) -> tuple[Target, ...]:
        """What the node has after its success. Only of an operation that was released."""
        return desired_after(self.before or (), self)

    @property
    def changes_nothing(self) -> bool:
        """Whether its success leaves the node as it was. Only of an operation that was released."""
        return self.result == self.before

    @property
    def may_still_change(self) -> bool:
        """Whether it has ended, and the node may bring it about all the same."""
        return not (self.answered or self.before is None or self.changes_nothing)

    @property
    def changes(self) -> frozenset[int]:
        """The versions that it is about. Only of an operation that was released."""
        differing = {each.version for each in {*self.was} ^ {*self.result}}
        own = {self.version} if self.undoes is None else {self.version, self.undoes}
        return frozenset(differing | own)

    def outcome_of(self, phase: Phase) -> Phase:
        """The final phase that the operation gets by a final report of `phase`."""
        return Phase.ROLLED_BACK if self.rollback and phase in {Phase.SUCCEEDED, Phase.SKIPPED} else phase


class _Yielding(Protocol):
    @property
    def yields(self) -> bool: ...


Busy = TypeVar("Busy", bound=_Yielding)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementState:
    """`waiting` is scheduled behind `live`; `ended` is the newest that is final; `rejections` are the reports that were
    rejected since an operation was last scheduled (rollout, generation, attempt, phase). `desired`: what the node is to
    have of the module, an entry for each version; at most one of them is loaded. `had`: what the last success left
    there, None without one. `changed` is the newest that was released and has ended. `brought`: the newest successes
    that were not taken back, the newest last: what the node has is the work of the last of them."""

    generation: int = 0
    live: Operation | None = None
    waiting: Operation | None = None
    ended: Operation | None = None
    rejections: tuple[tuple[str, int, int, Phase], ...] = ()
    desired: tuple[Target, ...] = ()
    had: tuple[Target, ...] | None = None
    changed: Operation | None = None
    brought: tuple[Operation, ...] = ()

    @property
    def at_work(self) -> frozenset[int]:
        """The versions that an operation is about which was released and has not ended."""
        return frozenset() if self.live is None or self.live.before is None else self.live.changes

    @property
    def undone(self) -> bool:
        """Whether the newest operation that was released has ended without success."""
        return self.changed is not None and not self.changed.succeeded

    @property
    def failed(self) -> int | None:
        """The version whose operation failed, until another one that was released has ended."""
        changed = self.changed
        if changed is None or changed.succeeded or changed.phase not in {Phase.FAILED, Phase.TIMED_OUT}:
            return None
        return changed.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """`known_generation` is the newest that the node has journaled: after a restored backup it may be above ours. It
    raises ours by `LARGEST_LEAD` at most, for a node may say anything.
    `skip`: the node is in the rollout, and it is known already that nothing can be done there.
    `yields`: it takes the place of nothing, and anything else takes its place."""

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
    undoes: int | None = None
    supersede: bool = False
    yields: bool = False
    skip: tuple[Reason, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """`inventory`: the versions of the module that the node was last seen with."""

    rollout: str
    node: str
    module_name: str
    inventory: tuple[Target, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveBack:
    node: str
    module_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordReport:
    report: Report


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectReport:
    """The report could not be recorded."""

    report: Report
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Ended by the control plane: `canceled` and `skipped` only what is still scheduled or whose node has left the fleet,
    `timed_out` only what is not scheduled, anything else whatever is not final.
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
    """Take back what `rollout` did here, as a part of `into`: nothing, if the node has the work of another one."""

    rollout: str
    node: str
    module_name: str
    into: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """The node leaves the fleet, or joins it again as a new one."""

    node: str
    module_name: str


PlacementCommand = (
    Schedule | Release | GiveBack | RecordReport | RejectReport | End | Cancel | Retry | RollBack | Forget
)


def decide(state: PlacementState, command: PlacementCommand) -> list[PlacementEvent]:
    match command:
        case Schedule():
            return _schedule(state, command)
        case Release(rollout=rollout):
            live = state.live
            if live is None or live.rollout != rollout or live.phase != Phase.SCHEDULED:
                return []
            return [_released(state, live, command)]
        case GiveBack():
            return _give_back(state, command)
        case RecordReport(report=report):
            return _record(state, report)
        case RejectReport(report=report, why=why):
            return _reject(state, report, why)
        case End():
            return _end(state, command)
        case Cancel():
            return _cancel(state, command)
        case Retry():
            return _retry(state, command)
        case RollBack():
            return _roll_back(state, command)
        case Forget(node=node, module_name=module_name):
            is_known = state.desired or state.had is not None or state.changed is not None
            return [PlacementForgotten(node=node, module_name=module_name)] if is_known else []


def blocking(command_yields: bool, live: Busy | None, waiting: Busy | None) -> Busy | None:
    """The operation that keeps another one from being scheduled: the live one, or if that yields the one behind it.
    What yields itself is kept by any."""
    if command_yields or live is None or not live.yields:
        return live
    return None if waiting is None or waiting.yields else waiting


def _schedule(state: PlacementState, command: Schedule) -> list[PlacementEvent]:
    live = state.live
    if any(known is not None and known.rollout == command.rollout for known in (live, state.waiting, state.ended)):
        return []
    if not command.supersede and (other := blocking(command.yields, live, state.waiting)) is not None:
        raise RolloutInProgressError(other.rollout, command.node)
    known = min(command.known_generation, state.generation + LARGEST_LEAD)
    generation = max(state.generation, known) + 1
    events: list[PlacementEvent] = [
        _superseded(older, command, command.rollout)
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
            undoes=command.undoes,
            yields=command.yields,
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


def _released(state: PlacementState, live: Operation, command: Release) -> OperationReleased:
    known = live.before if live.before is not None else state.had
    return OperationReleased(
        rollout=live.rollout,
        node=command.node,
        module_name=command.module_name,
        version=live.version,
        action=live.action,
        activation=live.activation,
        content_sha256=live.content_sha256,
        undoes=live.undoes,
        before=command.inventory if known is None else known,
    )


def _give_back(state: PlacementState, command: GiveBack) -> list[PlacementEvent]:
    live = state.live
    if live is None or live.phase != Phase.QUEUED:
        return []
    given_back = OperationGivenBack(rollout=live.rollout, node=command.node, module_name=command.module_name)
    if state.waiting is None:
        return [given_back]
    return [given_back, _superseded(live, command, state.waiting.rollout)]


def _superseded(operation: Operation, command: Schedule | GiveBack | RollBack, newer: str) -> OperationFinished:
    return _finished(operation, command, Phase.CANCELED, Reason.NEWER_ROLLOUT, f"Rollout {newer} took its place.")


def _finished(
    operation: Operation,
    command: Schedule | GiveBack | End | Cancel | RollBack,
    phase: Phase,
    reason: Reason,
    message: str = "",
) -> OperationFinished:
    return OperationFinished(
        rollout=operation.rollout,
        node=command.node,
        module_name=command.module_name,
        phase=phase,
        reason=reason,
        message=message,
        answered=False,
    )


def refusal(state: PlacementState, report: Report) -> str:
    """Why the report answers nothing that was ever asked of the node; empty if it does."""
    if not state.generation:
        return "nothing was ever asked of this module there"
    if report.phase not in REPORTED_PHASES:
        return f"no agent reports that it is {report.phase}"
    if report.reason is not None and report.reason not in REPORTED_REASONS:
        return f"no agent gives the reason {report.reason}"
    live = state.live
    if live is not None and live.rollout == report.rollout:
        asked, newest = (report.generation, report.attempt), (live.generation, live.attempt)
        if live.phase == Phase.SCHEDULED and asked == newest and not live.released:
            return "the operation was not released yet"
        is_ahead = asked > newest
        return f"the newest is generation {live.generation}, attempt {live.attempt}" if is_ahead else ""
    known = [each for each in (state.ended, state.changed) if each is not None and each.rollout == report.rollout]
    if known and all(each.before is None for each in known):
        return "the operation was never released"
    # Nothing depends any more on operations before the newest one that ended.
    return "" if known or report.generation <= state.generation else "no such operation"


def _record(state: PlacementState, report: Report) -> list[PlacementEvent]:
    if why := refusal(state, report):
        return _reject(state, report, why)
    live = state.live
    if live is not None and live.rollout == report.rollout:
        if (report.generation, report.attempt) < (live.generation, live.attempt):
            return []  # an answer to an attempt that was given up
        return _record_live(live, report)
    for ended in (state.ended, state.changed):
        if ended is None or ended.rollout != report.rollout:
            continue
        if not report.phase.is_final or (report.generation, report.attempt) < (ended.generation, ended.attempt):
            return []
        late = OperationReportedLate(
            rollout=report.rollout,
            node=report.node,
            module_name=report.module_name,
            phase=ended.outcome_of(report.phase),
            reason=report.reason,
            message=report.message,
        )
        # Each answer once: a success is taken whatever was said before, and a node that contradicts itself comes to an end.
        return [] if _answer(late) in ended.answers else [late]
    return []


def _answer(event: OperationFinished | OperationReportedLate) -> tuple[Phase, bool]:
    return event.phase, _has_succeeded(event)


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
                answered=True,
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
    """As the node says, unless what it has says otherwise: a success counts only with the bytes that were asked for, and
    only what was to be canceled is."""
    if report.phase == Phase.CANCELED and live.phase != Phase.CANCELING:
        message = f"{report.node} gave it up, and nobody had asked for that. {report.message}".rstrip()
        return Phase.FAILED, Reason.AGENT_ERROR, message
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
    if not state.generation:
        return []  # nothing was ever asked of this module there: any name could be reported, and begin a stream
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


def _end(state: PlacementState, command: End) -> list[PlacementEvent]:
    for operation in (state.waiting, state.live):
        if operation is None or operation.rollout != command.rollout:
            continue
        if command.attempt not in {None, operation.attempt}:
            return []
        is_scheduled = operation.phase == Phase.SCHEDULED
        is_free = is_scheduled or command.reason == Reason.NODE_DECOMMISSIONED
        if (command.phase in {Phase.CANCELED, Phase.SKIPPED} and not is_free) or (
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
    if live is not None and live.yields:
        return []  # something newer is done there already, and keeps no other node from being tried again
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
            yields=ended.yields,
            delay_seconds=command.delay_seconds,
        )
    ]


def to_undo(state: PlacementState, rollout: str) -> Operation | None:
    """Return the operation that a rollback of `rollout` takes back here, None if there is none.

    That is its last one if nothing newer was released. Else it is the one whose work the node still has: what came after
    it has changed nothing, and will not.
    """
    if _comes_first(state.live):
        return None
    newest = state.changed
    if newest is None or newest.rollout != rollout:
        if newest is not None and newest.may_still_change:
            return None
        newest = state.brought[-1] if state.brought else None
    is_own = newest is not None and newest.rollout == rollout and not newest.rollback
    return newest if is_own else None


def kept_by(state: PlacementState, rollout: str, generation: int) -> str:
    """Return the rollout because of which a rollback of `rollout`, whose operation has this generation, leaves the node
    alone: it has changed the node since, or is about to. Empty if there is none."""
    live = state.live
    if live is not None and _comes_first(live) and live.rollout != rollout:
        return live.rollout
    newest = state.changed
    if newest is None or not newest.may_still_change:
        newest = state.brought[-1] if state.brought else newest
    if newest is None or newest.rollout == rollout or newest.generation <= generation:
        return ""
    return newest.rollout if newest.succeeded or newest.may_still_change else ""


def _comes_first(live: Operation | None) -> bool:
    """Whether a rollback has to leave the node alone: what the reconciler has only scheduled makes room."""
    return live is not None and not (live.yields and live.before is None)


def _roll_back(state: PlacementState, command: RollBack) -> list[PlacementEvent]:
    undone, live = to_undo(state, command.rollout), state.live
    if undone is None or undone.before is None:
        return []
    target, undoes = _former(undone, undone.before)
    return [
        *([] if live is None else [_superseded(live, command, command.into)]),
        OperationScheduled(
            rollout=command.into,
            node=command.node,
            module_name=command.module_name,
            version=undone.version if target is None else target.version,
            action=Action.REMOVE if target is None else Action.INSTALL,
            activation=undone.activation if target is None else target.activation,
            content_sha256="" if target is None else target.content_sha256,
            generation=state.generation + 1,
            attempt=1,
            ordinal=undone.ordinal,
            wave=undone.wave,
            rollback=True,
            undoes=undoes,
        ),
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
            return _evolve_late(state, event)
        case ReportRejected():
            rejected = (event.rollout, event.generation, event.attempt, event.phase)
            return replace(state, rejections=(*state.rejections, rejected))
        case PlacementForgotten():
            live = None if state.live is None else replace(state.live, was=())
            return replace(state, live=live, desired=(), had=None, changed=None, brought=())


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
        yields=event.yields,
    )
    if state.ended is not None and event.attempt > 1:
        # What is desired now is what was before the first attempt, unless that has succeeded late.
        operation = replace(operation, before=state.ended.before, was=state.desired)
    state = replace(state, generation=max(state.generation, event.generation), rejections=())
    return replace(state, waiting=operation) if event.behind else replace(state, live=operation)


def _evolve_released(state: PlacementState, event: OperationReleased) -> PlacementState:
    live = state.live
    if live is None:
        return state
    if live.before is None:
        live = replace(live, before=_had(state, event), was=state.desired)
    return replace(state, live=replace(live, phase=Phase.QUEUED, released=True), desired=live.result)


def _had(state: PlacementState, event: OperationReleased) -> tuple[Target, ...]:
    """What the node has. Where nothing has succeeded and no inventory was recorded, what it is to have."""
    if state.had is not None:
        return state.had
    return state.desired if event.before is None else event.before


def desired_after(had: tuple[Target, ...], operation: Operation) -> tuple[Target, ...]:
    """What a node has of the module once the operation has succeeded where this was; by version."""
    former = {each.version: each for each in had}
    taken_away = {operation.version, operation.undoes}
    kept = {version: each for version, each in former.items() if version not in taken_away}
    if operation.action == Action.INSTALL:
        activation = operation.activation
        if operation.version in former and operation.undoes != operation.version:
            activation = max(activation, former[operation.version].activation)  # files in place unload nothing
        if activation == Activation.LOAD:  # a server holds one version of a module at a time
            kept = {version: replace(each, activation=Activation.FILES) for version, each in kept.items()}
        kept[operation.version] = Target(
            version=operation.version, activation=activation, content_sha256=operation.content_sha256
        )
    return tuple(kept[version] for version in sorted(kept))


def _with_live(state: PlacementState, phase: Phase) -> PlacementState:
    return state if state.live is None else replace(state, live=replace(state.live, phase=phase))


def _evolve_finished(state: PlacementState, event: OperationFinished) -> PlacementState:
    if state.waiting is not None and state.waiting.rollout == event.rollout:
        ended = replace(state.waiting, phase=event.phase, answers=(_answer(event),))  # it was never released
        return replace(state, waiting=None, ended=ended)
    live = state.live
    if live is None or live.rollout != event.rollout:
        return state
    ended = replace(
        live,
        phase=event.phase,
        succeeded=_has_succeeded(event),
        answers=(_answer(event),),
        answered=_is_answered(event),
    )
    state = replace(state, live=state.waiting, waiting=None, ended=ended)
    if ended.before is None:
        return state
    if ended.succeeded:
        return replace(state, changed=ended, desired=ended.result, had=ended.result, brought=_brought(state, ended))
    return replace(state, changed=ended, desired=ended.was)


def _brought(state: PlacementState, succeeded: Operation) -> tuple[Operation, ...]:
    """Whose work the node has after this success. What was there already is still the work of who has brought it."""
    others = state.brought
    if succeeded.rollback:  # what the node has is the work of another one again, or of none that is known
        while others and others[-1].result != succeeded.result:
            others = others[:-1]
        return others
    if succeeded.changes_nothing:
        return others
    others = tuple(each for each in others if each.generation != succeeded.generation)
    return (*others, replace(succeeded, was=()))[-MOST_BROUGHT:]


def _has_succeeded(event: OperationFinished | OperationReportedLate) -> bool:
    """Whether the node says that it is as it was asked for. The control plane skips a node too, which says nothing."""
    if event.phase == Phase.SKIPPED:
        return event.reason is None or event.reason in NOTHING_TO_DO
    return event.phase in {Phase.SUCCEEDED, Phase.ROLLED_BACK}


def _evolve_late(state: PlacementState, event: OperationReportedLate) -> PlacementState:
    """A late success is what the node had when the next operation began there. What a person has canceled is not
    desired for that."""
    changed = state.changed
    if state.ended is not None and state.ended.rollout == event.rollout:
        state = replace(state, ended=_answered(state.ended, event))
    if changed is None or changed.rollout != event.rollout:
        return state
    changed = _answered(changed, event)
    if not _has_succeeded(event) or changed.before is None:
        return replace(state, changed=changed)
    desired = state.desired if state.live is None or state.live.before is None else state.live.was
    brought = state.brought if changed.succeeded else _brought(state, replace(changed, succeeded=True))
    if changed.phase != Phase.CANCELED:
        changed, desired = replace(changed, succeeded=True), changed.result
    state = replace(state, changed=changed, had=changed.result, desired=desired, brought=brought)
    if state.live is None or state.live.before is None:
        return state
    live = replace(state.live, before=changed.result, was=desired)
    return replace(state, live=live, desired=live.result)


def _answered(operation: Operation, event: OperationReportedLate) -> Operation:
    return replace(operation, answers=(*operation.answers, _answer(event)), answered=True)


def _is_answered(event: OperationFinished) -> bool:
    """Older logs do not say. There the control plane has ended most of what was canceled, and all that has timed out."""
    return event.phase not in {Phase.CANCELED, Phase.TIMED_OUT} if event.answered is None else event.answered


PLACEMENT = Decider(PlacementState(), decide, evolve)
