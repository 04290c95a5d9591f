"""Rollouts with their waves, operations and timeline; and what the whole fleet is to have."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from api.fields import rfc3339
from eventstore import RecordedEvent, is_person, is_shown_person, shown
from rollout.domain.placement.events import (
    OperationCancelRequested,
    OperationFinished,
    OperationGivenBack,
    OperationProgressed,
    OperationReleased,
    OperationReportedLate,
    OperationScheduled,
    ReportRejected,
)
from rollout.domain.rollout.decider import ROLLOUT, RolloutState, left_alone_in_words
from rollout.domain.rollout.events import (
    AbortRequested,
    LeftAlone,
    NodesReleased,
    NodesRetried,
    Origin,
    RollbackRequested,
    RollbackStarted,
    RolloutApproved,
    RolloutEvent,
    RolloutFinished,
    RolloutFollowed,
    RolloutPaused,
    RolloutPhase,
    RolloutRejected,
    RolloutResumed,
    RolloutStarted,
    WaveFailed,
    WaveGated,
    WavePassed,
    WavePhase,
    WaveSoaking,
    WaveStarted,
)
from rollout.domain.strategy import Strategy
from rollout.messages import RUNNING_PHASES, Action, Phase, Reason
from rollout.models import ClusterTarget, Operation, Rollout, TimelineEntry
from rollout.projections.outcomes import ACTION_FIELDS, BAD, STOP_FIELDS, action_of, joined, stop_of
from rollout.projections.rows import load, save

#: Phases with a counter of their own; those in which the node works share `running`.
COUNTERS = (
    "scheduled",
    "queued",
    "running",
    "succeeded",
    "failed",
    "timed_out",
    "canceled",
    "skipped",
    "rolled_back",
)
#: How many of the newest durations an estimate is made from, and how many of the slowest nodes are named.
DURATIONS = 100
SLOWEST = 5
#: How many of the newest stops, actions and retries a rollout's document has, and how many nodes and rollouts it names of
#: those that were left alone. The report has all.
STOPS = 10

_OF_ROLLOUTS = (
    RolloutStarted,
    RolloutApproved,
    RolloutRejected,
    WaveStarted,
    WaveSoaking,
    WaveGated,
    WavePassed,
    WaveFailed,
    NodesReleased,
    RolloutPaused,
    RolloutResumed,
    AbortRequested,
    RollbackRequested,
    RollbackStarted,
    NodesRetried,
    RolloutFinished,
    RolloutFollowed,
)
_OF_OPERATIONS = (
    OperationScheduled,
    OperationReleased,
    OperationCancelRequested,
    OperationGivenBack,
    OperationProgressed,
    OperationFinished,
    OperationReportedLate,
    ReportRejected,
)
#: From then on a rollout does what these ask for.
_TURNS = (RolloutStarted, RolloutRejected, AbortRequested, RollbackRequested)
#: Why a node is not given back what it had though nothing has failed: a person wants it so, or it has left the fleet.
_NOT_UNRESTORED = (Reason.MANUAL, Reason.NEWER_ROLLOUT, Reason.NODE_DECOMMISSIONED)
#: Those whose operation there always is.
_OfOperation = (
    OperationGivenBack
    | OperationProgressed
    | OperationReleased
    | OperationCancelRequested
    | OperationFinished
    | OperationReportedLate
)


def operation_key(rollout: str, node: str) -> str:
    return f"{rollout}:{node}"


def former_key(operation: Operation) -> str:
    """The key of an attempt that another one of the same rollout follows."""
    return f"{operation.rollout}:{operation.node}:{operation.generation}:{operation.attempt}"


def counter_of(phase: str) -> str:
    """The counter that an operation in this phase is counted in."""
    return "running" if phase in RUNNING_PHASES else str(phase)


def state_of(rollout: Rollout) -> RolloutState:
    """The rollout as its decider knows it."""
    return msgspec.json.decode(rollout.state, type=RolloutState)


class RolloutProjection:
    name = "rollouts"
    version = 4
    handles = (*_OF_ROLLOUTS, *_OF_OPERATIONS)
    tables = (Rollout, Operation, TimelineEntry, ClusterTarget)

    def apply(self, batch: Sequence[RecordedEvent]) -> None:
        uids = {each.event.rollout for each in batch}
        keys = {operation_key(each.event.rollout, each.event.node) for each in batch if hasattr(each.event, "node")}
        ended = {each.event.node for each in batch if isinstance(each.event, OperationFinished)}
        behind = {each.key: each for each in Operation.objects.filter(behind=True, node__in=ended)} if ended else {}
        fold = RolloutFold(load(Rollout, uids), behind | load(Operation, keys))
        story = [each for each in batch if fold.apply(each)]
        for rollout in fold.rollouts.values():
            rollout.document = json.dumps(document(rollout))
        save(Rollout, fold.rollouts.values())
        save(Operation, (*fold.operations.values(), *fold.former))
        TimelineEntry.objects.bulk_create(
            (TimelineEntry(position=each.position, rollout=each.event.rollout) for each in story), batch_size=1000
        )
        for each in batch:
            if isinstance(each.event, RolloutFinished):
                _set_target(fold.rollouts[each.event.rollout], RolloutPhase(each.event.phase))


class RolloutFold:
    """The rows of some rollouts while events are folded into them."""

    def __init__(self, rollouts: dict[str, Rollout], operations: dict[str, Operation]) -> None:
        self.rollouts = rollouts
        self.operations = operations
        #: Attempts that were followed by another one while events were folded in.
        self.former: list[Operation] = []
        #: The operation that waits behind the live one, by node and module.
        self.behind = {(each.node, each.module_name): each for each in operations.values() if each.behind}

    def apply(self, recorded: RecordedEvent) -> bool:
        """Fold the event in. Return False if it is not about the rollout that it names: a node may report about any."""
        event = recorded.event
        if isinstance(event, ReportRejected) and not self._is_own(event):
            return False
        if isinstance(event, RolloutStarted):
            self.rollouts[event.rollout] = _new_rollout(event, recorded)
        if isinstance(event, _OF_ROLLOUTS):
            _tell(self.rollouts[event.rollout], recorded)
        elif isinstance(event, OperationScheduled):
            self._schedule(event, recorded)
        else:
            self._apply_to_operation(recorded)
        self._note_action(recorded)
        self._note_cause(recorded)
        return True

    def _is_own(self, event: ReportRejected) -> bool:
        operation = self.operations.get(operation_key(event.rollout, event.node))
        return operation is not None and operation.module_name == event.module_name

    def _note_action(self, recorded: RecordedEvent) -> None:
        event = recorded.event
        canceled_by = self._operation(event).canceled_by if isinstance(event, OperationFinished) else ""
        if (action := action_of(recorded, canceled_by)) is not None:
            rollout = self.rollouts[event.rollout]
            rollout.actions = joined(rollout.actions, action)[-STOPS:]

    def _note_cause(self, recorded: RecordedEvent) -> None:
        """A rollout follows the request that started it, or the one that has turned it back since; an operation the
        newest one that was about it. A report that is rejected or late leads to nothing."""
        event, rollout = recorded.event, self.rollouts[recorded.event.rollout]
        rollout.position = recorded.position
        if isinstance(event, OperationReportedLate | ReportRejected):
            return
        rollout.event_id = recorded.event_id
        if isinstance(event, _TURNS):
            rollout.adopt_request(recorded)
        if isinstance(event, _OF_OPERATIONS):
            operation = self.operations[operation_key(event.rollout, event.node)]
            operation.event_id = recorded.event_id
            operation.adopt_request(recorded)

    def _apply_to_operation(self, recorded: RecordedEvent) -> None:
        event, now = recorded.event, recorded.recorded_at
        match event:
            case OperationReleased():
                self._release(event, now)
            case OperationCancelRequested():
                operation = self._operation(event)
                operation.cancel_requested_at = now
                operation.canceled_by = _canceled_by(self.rollouts[event.rollout], recorded)
                self._move(operation, Phase.CANCELING)
            case OperationGivenBack():
                operation = self._operation(event)
                self._move(operation, Phase.SCHEDULED)
                operation.deadline_at = None
            case OperationProgressed():
                operation = self._operation(event)
                operation.started_at = operation.started_at or now
                # A node may have started what was given back when it seemed offline.
                operation.deadline_at = operation.deadline_at or self._deadline(event.rollout, now)
                self._move(operation, event.phase)
            case OperationFinished():
                self._finish(event, recorded)
            case OperationReportedLate():
                # Answers to an attempt that another one of the rollout follows are not recorded.
                self._operation(event).late = event.phase
            case ReportRejected():
                pass

    def _operation(self, event: _OfOperation) -> Operation:
        return self.operations[operation_key(event.rollout, event.node)]

    def _move(self, operation: Operation, phase: Phase) -> None:
        self._count(operation, -1)
        operation.phase = phase
        self._count(operation, 1)

    def _count(self, operation: Operation, change: int) -> None:
        rollout, name = self.rollouts[operation.rollout], counter_of(operation.phase)
        setattr(rollout, name, getattr(rollout, name) + change)
        had_failed = change if operation.failed_before and operation.phase not in BAD else 0
        rollout.failed_before += had_failed
        if operation.wave >= 0:
            wave = rollout.waves[operation.wave]
            wave[name] += change
            wave["failed_before"] = wave.get("failed_before", 0) + had_failed

    def _schedule(self, event: OperationScheduled, recorded: RecordedEvent) -> None:
        key, now = operation_key(event.rollout, event.node), recorded.recorded_at
        before = self.operations.get(key)
        operation = Operation(
            key=key,
            rollout=event.rollout,
            node=event.node,
            module_name=event.module_name,
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
            phase=Phase.SCHEDULED,
            reason="",
            message="",
            behind=event.behind,
            asked_by=_asked_by(self.rollouts[event.rollout], recorded),
            automatic=_is_automatic(self.rollouts[event.rollout], recorded),
            scheduled_at=now,
            scheduled_position=recorded.position,
            ready_at=now + timedelta(seconds=event.delay_seconds) if event.delay_seconds else None,
        )
        if before is not None:  # a retry, or what was done is taken back
            self._count(before, -1)
            operation.healthy = before.healthy
            operation.touched = before.touched and event.attempt > 1
            operation.failed_before = before.failed_before or before.phase in BAD
            before.key, before.former = former_key(before), True
            self.former.append(before)
        self.operations[key] = operation
        self._count(operation, 1)
        if operation.wave >= 0:
            self.rollouts[event.rollout].waves[operation.wave]["finished_at"] = None
        if event.behind:
            self.behind[event.node, event.module_name] = operation

    def _release(self, event: OperationReleased, now: datetime) -> None:
        operation = self._operation(event)
        self._move(operation, Phase.QUEUED)
        operation.touched = True
        operation.had = None if event.before is None else msgspec.to_builtins(event.before)
        operation.released_at = now
        operation.deadline_at = self._deadline(event.rollout, now)

    def _deadline(self, rollout: str, released_at: datetime) -> datetime:
        return released_at + timedelta(seconds=self.rollouts[rollout].strategy["node_deadline_seconds"])

    def _finish(self, event: OperationFinished, recorded: RecordedEvent) -> None:
        operation, rollout, now = self._operation(event), self.rollouts[event.rollout], recorded.recorded_at
        is_canceled = event.phase == Phase.CANCELED
        self._move(operation, event.phase)
        operation.canceled_by = (operation.canceled_by or _canceled_by(rollout, recorded)) if is_canceled else ""
        operation.reason, operation.message = event.reason or "", event.message
        if is_canceled and event.reason == Reason.MANUAL and not operation.canceled_by:
            operation.reason = rollout.reason or Reason.MANUAL  # a node does not know why it is asked to give up
        operation.seconds, operation.swap_seconds = event.seconds, event.swap_seconds
        operation.finished_at, operation.deadline_at = now, None
        operation.healthy = event.phase not in {Phase.FAILED, Phase.TIMED_OUT}
        waiting = self.behind.pop((event.node, event.module_name), None)
        if waiting is not None:
            waiting.behind = False  # either the one it waited for has ended, or it has itself
        if is_canceled and event.reason == Reason.NEWER_ROLLOUT:
            rollout.superseded += 1
            if waiting is not None and waiting is not operation and is_shown_person(waiting.asked_by):
                operation.canceled_by = operation.canceled_by or waiting.asked_by
        if operation.wave >= 0:
            _close_if_ended(rollout.waves[operation.wave], now)
        if operation.rollback and event.phase != Phase.ROLLED_BACK and event.reason not in _NOT_UNRESTORED:
            rollout.unrestored += 1
        if event.phase in {Phase.SUCCEEDED, Phase.SKIPPED, Phase.ROLLED_BACK}:
            rollout.progressed_at = now
        if event.phase == Phase.SUCCEEDED and event.seconds is not None:
            _measure(rollout, event.node, event.seconds)


def _close_if_ended(wave: dict[str, Any], now: datetime) -> None:
    """A wave that was started has finished when the last of its nodes has ended."""
    unfinished = wave["scheduled"] + wave["queued"] + wave["running"]
    if wave["started_at"] and not wave["finished_at"] and not unfinished:
        wave["finished_at"] = rfc3339(now)


def _asked_by(rollout: Rollout, recorded: RecordedEvent) -> str:
    """The person at whose request an operation was scheduled; else who started the rollout."""
    requested_by = recorded.metadata.requested_by
    return shown(requested_by) if is_person(requested_by) else rollout.actor


def _is_automatic(rollout: Rollout, recorded: RecordedEvent) -> bool:
    """Whether the strategy retries or undoes it, and no person."""
    event: OperationScheduled = recorded.event
    if event.attempt > 1:
        return not is_person(recorded.actor)
    return event.rollback and rollout.reason not in {"", Reason.MANUAL}


def _canceled_by(rollout: Rollout, recorded: RecordedEvent) -> str:
    """The person who cancels an operation by this event: by itself, by stopping the rollout, or by a newer rollout. Empty
    if a rule does, a deadline, or a node of its own."""
    if is_person(recorded.actor):
        return recorded.shown_actor
    requested_by = recorded.metadata.requested_by
    is_stop = (
        rollout.reason in {"", Reason.MANUAL} and getattr(recorded.event, "reason", Reason.MANUAL) == Reason.MANUAL
    )
    is_by_person = is_person(requested_by) and recorded.actor.startswith("system:")
    return shown(requested_by) if is_stop and is_by_person else ""


def _new_rollout(event: RolloutStarted, recorded: RecordedEvent) -> Rollout:
    return Rollout(
        uid=event.rollout,
        action=event.action,
        module_name=event.module_name,
        version=event.version,
        activation=event.activation,
        origin=event.origin,
        actor=recorded.shown_actor,
        retry_of=event.retry_of,
        rollback_of=event.rollback_of,
        left_alone=_left(event.left_alone),
        needs=list(event.needs),
        named=event.named,
        strategy=msgspec.to_builtins(event.strategy),
        created_at=recorded.recorded_at,
        total=event.total,
        started_position=recorded.position,
        position=recorded.position,
        waves=[_new_wave(total) for total in event.waves],
    )


def _left(groups: Sequence[LeftAlone]) -> dict[str, Any]:
    first = [
        {"rollout": each.rollout, "count": len(each.nodes), "nodes": list(each.nodes[:STOPS])}
        for each in groups[:STOPS]
    ]
    return {"count": sum(len(each.nodes) for each in groups), "by": first, "text": left_alone_in_words(groups)}


def _new_wave(total: int) -> dict[str, Any]:
    counters = dict.fromkeys(COUNTERS, 0)
    counters["failed_before"] = 0
    return {"phase": WavePhase.PENDING, "total": total, **counters, "started_at": None, "finished_at": None}


# --- What an event says of the rollout itself -------------------------------------------------------------------------

_CLOCK_STARTS = (WaveStarted, WavePassed, RolloutResumed, RollbackStarted)


def _tell(rollout: Rollout, recorded: RecordedEvent) -> None:
    event, now = recorded.event, recorded.recorded_at
    before = RolloutState() if isinstance(event, RolloutStarted) else state_of(rollout)
    state = ROLLOUT.evolve(before, event)
    rollout.state = msgspec.json.encode(state).decode()
    rollout.phase, rollout.reason, rollout.message = state.phase, state.reason or "", state.message
    if (stop := stop_of(recorded, before)) is not None:
        rollout.stops = [*rollout.stops[1 - STOPS :], stop]
    if isinstance(event, _CLOCK_STARTS) or (isinstance(event, RolloutStarted) and event.rollback_of):
        rollout.progressed_at = now
    match event:
        case NodesRetried(nodes=nodes, automatic=automatic):
            rollout.retries += len(nodes) if automatic else 0
            rollout.unrestored -= len(nodes) if state.restoring else 0
            rollout.progressed_at = rollout.progressed_at if automatic else now
        case RollbackStarted(left_alone=left_alone):
            rollout.left_alone = _left(left_alone)
        case RolloutFollowed(follower=follower, is_rollback=True):
            rollout.rolled_back_by = follower
        case RolloutFollowed(follower=follower):
            rollout.retried_by = [*rollout.retried_by[1 - STOPS :], follower]
        case RolloutFinished():
            rollout.finished_at = now
    _tell_waves(rollout.waves, state, event, now)


def _tell_waves(waves: list[dict[str, Any]], state: RolloutState, event: RolloutEvent, now: datetime) -> None:
    match event:
        case RolloutStarted(rollback_of=former) if former:
            for each in waves:  # all at once; one of which no node is given back anything is over
                each |= {"phase": WavePhase.RUNNING, "started_at": rfc3339(now)}
                if not each["total"]:
                    each |= {"phase": WavePhase.PASSED, "finished_at": rfc3339(now)}
        case WaveStarted(wave=wave):
            waves[wave] |= {"phase": WavePhase.RUNNING, "started_at": rfc3339(now)}
            _close_if_ended(waves[wave], now)
        case WaveSoaking(wave=wave, until=until):
            waves[wave] |= {"phase": WavePhase.SOAKING, "soak_until": rfc3339(until)}
        case WaveGated(wave=wave):
            waves[wave]["phase"] = WavePhase.GATED
        case WavePassed(wave=wave):
            waves[wave]["phase"] = WavePhase.PASSED
        case WaveFailed(wave=wave):
            waves[wave]["phase"] = WavePhase.FAILED
        case RolloutResumed() if state.wave >= 0:
            waves[state.wave]["phase"] = state.wave_phase
        case RolloutFinished(phase=RolloutPhase.ROLLED_BACK) if state.started is not None and state.started.rollback_of:
            for each in waves:
                each["phase"] = WavePhase.PASSED
        case AbortRequested() | RolloutRejected() | RollbackRequested() | RolloutFinished():
            for each in waves:
                if state.phase == RolloutPhase.SUCCEEDED and each["phase"] == WavePhase.FAILED:
                    each["phase"] = WavePhase.PASSED  # the answer that was missed came after all
                if each["phase"] not in {WavePhase.PASSED, WavePhase.FAILED}:
                    each["phase"] = WavePhase.CANCELED
        case _:
            pass


# --- What is shown ----------------------------------------------------------------------------------------------------


def document(rollout: Rollout) -> dict[str, Any]:
    """The answer to `GET /v2/rollouts/{uid}`."""
    ended = rollout.finished_at
    return {
        "uid": rollout.uid,
        "title": rollout.title,
        "action": rollout.action,
        "module_name": rollout.module_name,
        "version": rollout.version,
        "activation": rollout.activation,
        "phase": rollout.phase,
        "reason": rollout.reason or None,
        "message": _message(rollout),
        "origin": rollout.origin,
        "actor": rollout.actor,
        "needs": rollout.needs,
        "retry_of": rollout.retry_of or None,
        "rollback_of": rollout.rollback_of or None,
        "retried_by": rollout.retried_by,
        "rolled_back_by": rollout.rolled_back_by or None,
        "left_alone": _left_in_order(rollout.left_alone or _left(())),
        "strategy": msgspec.to_builtins(msgspec.convert(rollout.strategy, Strategy)),
        "created_at": rfc3339(rollout.created_at),
        "finished_at": rfc3339(ended) if ended else None,
        "seconds": round((ended - rollout.created_at).total_seconds(), 3) if ended else None,
        "stops": [{name: stop[name] for name in STOP_FIELDS} for stop in rollout.stops],
        "actions": [{name: action[name] for name in ACTION_FIELDS} for action in rollout.actions],
        "progress": progress(rollout),
        "waves": [{"wave": number, **_in_order(wave)} for number, wave in enumerate(rollout.waves)],
        "slowest_nodes": [{"node": node, "seconds": seconds} for node, seconds in rollout.slowest],
    }


def _in_order(wave: dict[str, Any]) -> dict[str, Any]:
    """PostgreSQL gives a JSON object back with its keys in another order, and the same row is to be the same text."""
    names = ("phase", "total", *COUNTERS, "failed_before", "started_at", "soak_until", "finished_at")
    return {name: wave[name] for name in names if name in wave}


def _left_in_order(left: dict[str, Any]) -> dict[str, Any]:
    by = [{name: each[name] for name in ("rollout", "count", "nodes")} for each in left["by"]]
    return {"count": left["count"], "by": by, "text": left["text"]}


def progress(rollout: Rollout) -> dict[str, object]:
    """The counters, which add up to `total`; `failed_before`, `percent` and `eta_seconds`."""
    counters = {name: getattr(rollout, name) for name in COUNTERS}
    final = rollout.total - rollout.scheduled - rollout.queued - rollout.running
    percent = 100 * final // rollout.total if rollout.total else 100
    return {
        "total": rollout.total,
        **counters,
        "failed_before": rollout.failed_before,
        "percent": percent,
        "eta_seconds": _eta_seconds(rollout),
    }


def _measure(rollout: Rollout, node: str, seconds: float) -> None:
    rollout.durations = [*rollout.durations[1 - DURATIONS :], seconds]
    slowest = sorted([*rollout.slowest, [node, seconds]], key=lambda each: -each[1])
    rollout.slowest = slowest[:SLOWEST]


def _eta_seconds(rollout: Rollout) -> float | None:
    """For each wave to come: the work that is left shared by the slots, but no less than a slow node takes; and its
    soak. Persons and pauses are not foreseen. None until a node has said how long it took."""
    if rollout.finished_at is not None:
        return 0
    if not rollout.durations:
        return None
    ordered = sorted(rollout.durations)
    mean, slow = sum(ordered) / len(ordered), ordered[9 * len(ordered) // 10]
    state = state_of(rollout)
    parallel = state.strategy.parallel(state.nodes)
    seconds = 0.0
    for wave in rollout.waves:
        if left := wave["scheduled"] + wave["queued"] + wave["running"]:
            seconds += max(left / parallel * mean, slow)
        if wave["phase"] in {WavePhase.PENDING, WavePhase.RUNNING} and not state.restoring:
            seconds += state.strategy.soak_seconds
    return round(seconds, 1)


def counted(rollout: Rollout) -> str:
    """How many of its nodes have succeeded, and what became of the others."""
    others = [
        f"{count} {name.replace('_', ' ')}"
        for name in ("skipped", "failed", "timed_out", "canceled", "rolled_back", "failed_before")
        if (count := getattr(rollout, name))
    ]
    if left := rollout.left_alone.get("count"):
        others.append(f"{left} left alone")
    return ", ".join([f"{rollout.succeeded} of {rollout.total} nodes succeeded", *others])


def _message(rollout: Rollout) -> str:
    return f"{rollout.message} {counted(rollout)}." if rollout.message else counted(rollout)


# --- What the whole fleet is to have ----------------------------------------------------------------------------------


def _set_target(rollout: Rollout, phase: RolloutPhase) -> None:
    """A rollout that named no nodes and has succeeded sets the target. Its rollback restores the one before, if any node
    was given back what it had.

    One of the vendor's API does so too if it has succeeded on some nodes: nobody decides about the others, which get it
    when they are back if they were skipped.
    """
    has_brought = phase == RolloutPhase.SUCCEEDED or (
        phase == RolloutPhase.COMPLETED_WITH_FAILURES and rollout.origin == Origin.VENDOR and rollout.succeeded
    )
    target = ClusterTarget.objects.filter(module_name=rollout.module_name).first()
    if rollout.rollback_of:
        if target is not None and target.rollout == rollout.rollback_of and rollout.rolled_back:
            _restore_target(target)
    elif has_brought and not rollout.named:
        _replace_target(target, rollout)


def _replace_target(target: ClusterTarget | None, rollout: Rollout) -> None:
    is_removal = rollout.action == Action.REMOVE
    if is_removal and (target is None or target.version != rollout.version):
        return
    former = None
    if target is not None:
        former = {name: getattr(target, name) for name in ("version", "activation", "rollout", "position")}
    ClusterTarget(
        module_name=rollout.module_name,
        version=None if is_removal else rollout.version,
        activation=rollout.activation,
        rollout=rollout.uid,
        position=rollout.started_position,
        former=former,
    ).save()


def _restore_target(target: ClusterTarget) -> None:
    if target.former is None:
        target.delete()
        return
    ClusterTarget(module_name=target.module_name, former=None, **target.former).save()
