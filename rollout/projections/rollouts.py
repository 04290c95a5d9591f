"""Rollouts with their waves and timeline, and operations: folds events into rows."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby

import msgspec

from eventstore import ClockSetBack, RecordedEvent, is_shown_person
from rollout.domain.placement.events import (
    OperationCancelRequested,
    OperationFinished,
    OperationGivenBack,
    OperationProgressed,
    OperationReleased,
    OperationReportedLate,
    OperationScheduled,
    OperationWaiting,
    ReportRejected,
)
from rollout.domain.rollout.events import (
    AbortRequested,
    NodesReleased,
    NodesRetried,
    OneWayFound,
    OneWayPromoted,
    ProgressDeadlineExtended,
    RollbackRequested,
    RollbackStarted,
    RolloutApproved,
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
    WaveSoaking,
    WaveStarted,
)
from rollout.domain.rollout.releasable import waiting_since
from rollout.messages import Phase, Reason
from rollout.models import ClusterTarget, Operation, Rollout, TimelineEntry
from rollout.projections.actions import action_of, joined
from rollout.projections.attempts import BAD
from rollout.projections.cluster_target import update_target
from rollout.projections.counters import counter_of, former_key, operation_key
from rollout.projections.deadlines import begin_waits_again, deadline, may_run_until
from rollout.projections.requesters import canceler_of, is_automatic, requester_of
from rollout.projections.rollout_document import document
from rollout.projections.rollout_rows import (
    MOST_KEPT,
    add_duration,
    apply_to_rollout,
    close_wave_if_ended,
    new_rollout,
    note_way_back,
)
from rollout.projections.rows import load, save

ROLLOUT_EVENTS = (
    RolloutStarted,
    RolloutApproved,
    RolloutRejected,
    WaveStarted,
    WaveSoaking,
    WaveGated,
    OneWayFound,
    OneWayPromoted,
    WavePassed,
    WaveFailed,
    NodesReleased,
    RolloutPaused,
    RolloutResumed,
    AbortRequested,
    RollbackRequested,
    RollbackStarted,
    NodesRetried,
    ProgressDeadlineExtended,
    RolloutFinished,
    RolloutFollowed,
)
OPERATION_EVENTS = (
    OperationScheduled,
    OperationReleased,
    OperationWaiting,
    OperationCancelRequested,
    OperationGivenBack,
    OperationProgressed,
    OperationFinished,
    OperationReportedLate,
    ReportRejected,
)
#: Events after which a rollout belongs to another request.
_TURNS = (RolloutStarted, RolloutRejected, AbortRequested, RollbackRequested)
#: Reasons for which a node is not restored, but that are no failure: canceled, taken over, decommissioned.
_NOT_UNRESTORED = (Reason.MANUAL, Reason.NEWER_ROLLOUT, Reason.NODE_DECOMMISSIONED)
#: Events whose operation always exists.
_OfOperation = (
    OperationGivenBack
    | OperationProgressed
    | OperationWaiting
    | OperationReleased
    | OperationCancelRequested
    | OperationFinished
    | OperationReportedLate
)


class RolloutProjection:
    name = "rollouts"
    version = 8
    handles = (*ROLLOUT_EVENTS, *OPERATION_EVENTS, ClockSetBack)
    tables = (Rollout, Operation, TimelineEntry, ClusterTarget)

    def apply(self, batch: Sequence[RecordedEvent]) -> None:
        for is_clock, events in groupby(batch, key=lambda each: isinstance(each.event, ClockSetBack)):
            if is_clock:
                for each in events:
                    begin_waits_again(each.recorded_at)
            else:
                self._apply([*events])

    def _apply(self, batch: Sequence[RecordedEvent]) -> None:
        uids = {each.event.rollout for each in batch}
        keys = {operation_key(each.event.rollout, each.event.node) for each in batch if hasattr(each.event, "node")}
        ended = {each.event.node for each in batch if isinstance(each.event, OperationFinished)}
        behind = {each.key: each for each in Operation.objects.filter(behind=True, node__in=ended)} if ended else {}
        fold = RolloutFold(load(Rollout, uids), behind | load(Operation, keys))
        timeline = [each for each in batch if fold.apply(each)]
        for rollout in fold.rollouts.values():
            rollout.document = json.dumps(document(rollout))
        save(Rollout, fold.rollouts.values())
        save(Operation, (*fold.operations.values(), *fold.former))
        TimelineEntry.objects.bulk_create(
            (TimelineEntry(position=each.position, rollout=each.event.rollout) for each in timeline), batch_size=1000
        )
        for each in batch:
            if isinstance(each.event, RolloutFinished):
                update_target(fold.rollouts[each.event.rollout], RolloutPhase(each.event.phase))


class RolloutFold:
    """Folds events into the rows of some rollouts."""

    def __init__(self, rollouts: dict[str, Rollout], operations: dict[str, Operation]) -> None:
        self.rollouts = rollouts
        self.operations = operations
        #: Attempts that another attempt has followed.
        self.former: list[Operation] = []
        #: The operation that waits for the one in progress, by node and module.
        self.behind = {(each.node, each.module_name): each for each in operations.values() if each.behind}

    def apply(self, recorded: RecordedEvent) -> bool:
        """Fold the event. Return False if the rollout has no such operation: a node may report about any rollout."""
        event = recorded.event
        if isinstance(event, ReportRejected) and not self._is_own(event):
            return False
        if isinstance(event, RolloutStarted):
            self.rollouts[event.rollout] = new_rollout(event, recorded)
        if isinstance(event, ROLLOUT_EVENTS):
            apply_to_rollout(self.rollouts[event.rollout], recorded)
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
            rollout.actions = joined(rollout.actions, action)[-MOST_KEPT:]

    def _note_cause(self, recorded: RecordedEvent) -> None:
        """Set the cause of what follows. A rollout belongs to the request that started it, or to the one that aborted, rejected
        or rolled it back. An operation belongs to the newest request about it. Rejected and late reports cause nothing."""
        event, rollout = recorded.event, self.rollouts[recorded.event.rollout]
        rollout.position = recorded.position
        if isinstance(event, OperationReportedLate | ReportRejected):
            return
        rollout.event_id = recorded.event_id
        if isinstance(event, _TURNS):
            rollout.adopt_request(recorded)
        if isinstance(event, OPERATION_EVENTS):
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
                operation.canceled_by = canceler_of(self.rollouts[event.rollout], recorded)
                self._move(operation, Phase.CANCELING)
            case OperationGivenBack():
                self._give_back(event, now)
            case OperationWaiting():
                operation = self._operation(event)
                operation.waiting_since = waiting_since(operation.waiting_since, operation.wait_noted_at, now)
                operation.reason, operation.message, operation.wait_noted_at = event.reason, event.message, now
            case OperationProgressed():
                operation = self._operation(event)
                operation.started_at = operation.started_at or now
                # A node may start an operation that was taken back while the node seemed offline.
                operation.deadline_at = operation.deadline_at or deadline(self.rollouts[event.rollout], now)
                operation.reason, operation.message = event.reason or "", event.message
                self._move(operation, event.phase)
            case OperationFinished():
                self._finish(event, recorded)
            case OperationReportedLate():
                # Late reports about an attempt that was followed by another one are not recorded.
                operation = self._operation(event)
                operation.late, operation.may_run_until = event.phase, None
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
            way=event.way,
            fails_back_to=event.fails_back_to,
            yields=event.yields,
            phase=Phase.SCHEDULED,
            reason="",
            message="",
            behind=event.behind,
            asked_by=requester_of(self.rollouts[event.rollout], recorded),
            automatic=is_automatic(self.rollouts[event.rollout], recorded),
            scheduled_at=now,
            scheduled_position=recorded.position,
            ready_at=now + timedelta(seconds=event.delay_seconds) if event.delay_seconds else None,
        )
        if before is not None:  # a retry or an undo
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
        operation.deadline_at = deadline(self.rollouts[event.rollout], now)
        operation.releases += 1
        operation.expects = None if event.expects is None else msgspec.to_builtins(event.expects)
        operation.reason = operation.message = ""
        if operation.wait_noted_at is not None:
            since = waiting_since(operation.waiting_since, operation.wait_noted_at, now)
            # Kept: the agent may return the operation again.
            operation.waiting_since, operation.wait_noted_at = None if since == now else since, None
            self.rollouts[event.rollout].progressed_at = now

    def _give_back(self, event: OperationGivenBack, now: datetime) -> None:
        operation = self._operation(event)
        self._move(operation, Phase.SCHEDULED)
        operation.deadline_at = None
        if event.reason is None:
            operation.may_run_until = may_run_until(self.rollouts[event.rollout], now)
            operation.waiting_since = None
        else:
            operation.waiting_since = operation.waiting_since or now
            operation.returned_at = operation.wait_noted_at = now
            operation.reason, operation.message = event.reason, event.message

    def _finish(self, event: OperationFinished, recorded: RecordedEvent) -> None:
        operation, rollout, now = self._operation(event), self.rollouts[event.rollout], recorded.recorded_at
        is_canceled = event.phase == Phase.CANCELED
        before = operation.phase
        self._move(operation, event.phase)
        operation.canceled_by = (operation.canceled_by or canceler_of(rollout, recorded)) if is_canceled else ""
        operation.reason, operation.message = event.reason or "", event.message
        if is_canceled and event.reason == Reason.MANUAL and not operation.canceled_by:
            operation.reason = rollout.reason or Reason.MANUAL  # the node does not know why it was asked to cancel
        operation.seconds, operation.swap_seconds = event.seconds, event.swap_seconds
        operation.health = None if event.health is None else msgspec.to_builtins(event.health)
        operation.restart = None if event.restart is None else msgspec.to_builtins(event.restart)
        operation.way_back = None if event.way_back is None else msgspec.to_builtins(event.way_back)
        if event.way_back is not None and event.phase == Phase.SUCCEEDED:
            note_way_back(rollout, event.node, event.way_back)
        operation.finished_at, operation.deadline_at = now, None
        if before != Phase.SCHEDULED:  # else what holds is what holds since it was given back
            is_unanswered = event.answered is False and operation.touched
            operation.may_run_until = may_run_until(rollout, now) if is_unanswered else None
        operation.waiting_since = operation.wait_noted_at = None
        operation.healthy = event.phase not in {Phase.FAILED, Phase.TIMED_OUT}
        waiting = self.behind.pop((event.node, event.module_name), None)
        if waiting is not None:
            waiting.behind = False  # the operation that it waited for has ended, or this one has
        if is_canceled and event.reason == Reason.NEWER_ROLLOUT:
            rollout.superseded += 1
            if waiting is not None and waiting is not operation and is_shown_person(waiting.asked_by):
                operation.canceled_by = operation.canceled_by or waiting.asked_by
        if operation.wave >= 0:
            close_wave_if_ended(rollout.waves[operation.wave], now)
        if operation.rollback and event.phase != Phase.ROLLED_BACK and event.reason not in _NOT_UNRESTORED:
            rollout.unrestored += 1
        if event.phase in {Phase.SUCCEEDED, Phase.SKIPPED, Phase.ROLLED_BACK}:
            rollout.progressed_at = now
        if event.phase == Phase.SUCCEEDED and event.seconds is not None:
            add_duration(rollout, event.node, event.seconds)
