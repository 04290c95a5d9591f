"""Events to rows: nodes with their modules, rollouts with their operations. A batch is folded, then written at once."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec
from django.db import models
from django.db.models import Q

from api.fields import rfc3339
from eventstore.store import RecordedEvent
from rollout.decider.node import NodePhase
from rollout.events import (
    AbortRequested,
    NodeActivated,
    NodeCameBack,
    NodeDecommissioned,
    NodeDrained,
    NodeInventoryChanged,
    NodeJoined,
    NodeLabelled,
    NodeProfileChanged,
    NodesReleased,
    NodesRetried,
    NodeWentOffline,
    OperationFinished,
    OperationGivenBack,
    OperationProgressed,
    OperationReleased,
    OperationReportedLate,
    OperationScheduled,
    ReportRejected,
    RolloutFinished,
    RolloutPhase,
    RolloutStarted,
)
from rollout.messages import RUNNING_PHASES, Action, Activation, NodeProfile, Phase, Reason
from rollout.models import Node, NodeModule, Operation, Rollout, TimelineEntry

Row = TypeVar("Row", bound=models.Model)

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


def operation_key(rollout: str, node: str) -> str:
    return f"{rollout}:{node}"


def counter_of(phase: str) -> str:
    """The counter that an operation in this phase is counted in."""
    return "running" if phase in RUNNING_PHASES else str(phase)


def _load(model: type[Row], keys: Iterable[str]) -> dict[str, Row]:
    wanted = list(set(keys))
    found: dict[str, Row] = {}
    for start in range(0, len(wanted), 500):
        found.update(model._default_manager.in_bulk(wanted[start : start + 500]))  # noqa: SLF001  # public to Django's users
    return found


def _save(model: type[Row], rows: Iterable[Row]) -> None:
    """Insert or replace whole rows: one statement for many, unlike `bulk_update`."""
    columns = [field.name for field in model._meta.concrete_fields if not field.primary_key]
    model._default_manager.bulk_create(  # noqa: SLF001  # public to Django's users
        rows,
        batch_size=500,
        update_conflicts=True,
        unique_fields=[model._meta.pk.name],
        update_fields=columns,
    )


# --- Rollouts and operations ------------------------------------------------------------------------------------------


class RolloutProjection:
    name = "rollouts"
    handles = (
        RolloutStarted,
        NodesReleased,
        AbortRequested,
        NodesRetried,
        RolloutFinished,
        OperationScheduled,
        OperationReleased,
        OperationGivenBack,
        OperationProgressed,
        OperationFinished,
        OperationReportedLate,
        ReportRejected,
    )
    tables = (Rollout, Operation, TimelineEntry)

    def apply(self, batch: Sequence[RecordedEvent]) -> None:
        uids = {each.event.rollout for each in batch}
        keys = {operation_key(each.event.rollout, each.event.node) for each in batch if hasattr(each.event, "node")}
        ended = {each.event.node for each in batch if isinstance(each.event, OperationFinished)}
        behind = {each.key: each for each in Operation.objects.filter(behind=True, node__in=ended)}
        fold = _RolloutFold(_load(Rollout, uids), behind | _load(Operation, keys))
        for each in batch:
            fold.apply(each)
        for rollout in fold.rollouts.values():
            rollout.document = json.dumps(_document(rollout))
        _save(Rollout, fold.rollouts.values())
        _save(Operation, fold.operations.values())
        TimelineEntry.objects.bulk_create(
            (TimelineEntry(position=each.position, rollout=each.event.rollout) for each in batch), batch_size=1000
        )


class _RolloutFold:
    def __init__(self, rollouts: dict[str, Rollout], operations: dict[str, Operation]) -> None:
        self.rollouts = rollouts
        self.operations = operations
        #: The operation that waits behind the live one, by node and module.
        self.behind = {(each.node, each.module_name): each for each in operations.values() if each.behind}

    def apply(self, recorded: RecordedEvent) -> None:
        event, now = recorded.event, recorded.recorded_at
        match event:
            case RolloutStarted():
                self.rollouts[event.rollout] = _new_rollout(event, recorded)
            case OperationScheduled():
                self._schedule(event, now)
            case OperationReleased():
                self._release(event, now)
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
                self._finish(event, now)
            case AbortRequested():
                self.rollouts[event.rollout].phase = RolloutPhase.ABORTING
            case RolloutFinished():
                rollout = self.rollouts[event.rollout]
                rollout.phase, rollout.reason, rollout.finished_at = event.phase, event.reason or "", now
            case OperationReportedLate() | ReportRejected() | NodesReleased() | NodesRetried():
                pass
        if event.rollout in self.rollouts:
            self.rollouts[event.rollout].position = recorded.position

    def _operation(
        self, event: OperationGivenBack | OperationProgressed | OperationReleased | OperationFinished
    ) -> Operation:
        return self.operations[operation_key(event.rollout, event.node)]

    def _move(self, operation: Operation, phase: Phase) -> None:
        rollout = self.rollouts[operation.rollout]
        for name, change in ((counter_of(operation.phase), -1), (counter_of(phase), 1)):
            setattr(rollout, name, getattr(rollout, name) + change)
        operation.phase = phase

    def _schedule(self, event: OperationScheduled, now: datetime) -> None:
        key = operation_key(event.rollout, event.node)
        before = self.operations.get(key)
        rollout = self.rollouts[event.rollout]
        if before is not None:  # a retry
            setattr(rollout, counter_of(before.phase), getattr(rollout, counter_of(before.phase)) - 1)
        rollout.scheduled += 1
        self.operations[key] = Operation(
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
            phase=Phase.SCHEDULED,
            reason="",
            message="",
            behind=event.behind,
            scheduled_at=now,
        )
        if event.behind:
            self.behind[event.node, event.module_name] = self.operations[key]

    def _release(self, event: OperationReleased, now: datetime) -> None:
        operation = self._operation(event)
        self._move(operation, Phase.QUEUED)
        operation.released_at = now
        operation.deadline_at = self._deadline(event.rollout, now)

    def _deadline(self, rollout: str, released_at: datetime) -> datetime:
        return released_at + timedelta(seconds=self.rollouts[rollout].strategy["node_deadline_seconds"])

    def _finish(self, event: OperationFinished, now: datetime) -> None:
        operation, rollout = self._operation(event), self.rollouts[event.rollout]
        self._move(operation, event.phase)
        operation.reason, operation.message = event.reason or "", event.message
        operation.seconds, operation.finished_at, operation.deadline_at = event.seconds, now, None
        if waiting := self.behind.pop((event.node, event.module_name), None):
            waiting.behind = False  # either the one it waited for has ended, or it has itself
        if event.phase == Phase.CANCELED and event.reason == Reason.NEWER_ROLLOUT:
            rollout.superseded += 1
        if event.phase == Phase.SUCCEEDED and event.seconds is not None:
            rollout.measured += 1
            rollout.measured_seconds += event.seconds


def _new_rollout(event: RolloutStarted, recorded: RecordedEvent) -> Rollout:
    return Rollout(
        uid=event.rollout,
        action=event.action,
        module_name=event.module_name,
        version=event.version,
        activation=event.activation,
        phase=RolloutPhase.RUNNING,
        reason="",
        origin=event.origin,
        actor=recorded.actor,
        retry_of=event.retry_of,
        named=event.named,
        strategy=msgspec.to_builtins(event.strategy),
        created_at=recorded.recorded_at,
        total=event.total,
        started_position=recorded.position,
        position=recorded.position,
    )


def _document(rollout: Rollout) -> dict[str, object]:
    ended = rollout.finished_at
    return {
        "uid": rollout.uid,
        "action": rollout.action,
        "module_name": rollout.module_name,
        "version": rollout.version,
        "activation": rollout.activation,
        "phase": rollout.phase,
        "reason": rollout.reason or None,
        "message": _message(rollout),
        "origin": rollout.origin,
        "actor": rollout.actor,
        "retry_of": rollout.retry_of or None,
        "strategy": rollout.strategy,
        "created_at": rfc3339(rollout.created_at),
        "finished_at": rfc3339(ended) if ended else None,
        "seconds": round((ended - rollout.created_at).total_seconds(), 3) if ended else None,
        "progress": progress(rollout),
    }


def progress(rollout: Rollout) -> dict[str, object]:
    """The counters, which add up to `total`, `percent` and `eta_seconds`."""
    counters = {name: getattr(rollout, name) for name in COUNTERS}
    final = rollout.total - rollout.scheduled - rollout.queued - rollout.running
    percent = 100 * final // rollout.total if rollout.total else 100
    return {"total": rollout.total, **counters, "percent": percent, "eta_seconds": _eta_seconds(rollout, final)}


def _eta_seconds(rollout: Rollout, final: int) -> float | None:
    """Mean time of those that have succeeded, times the rounds that are left."""
    if rollout.finished_at is not None:
        return 0
    if not rollout.measured:
        return None
    rounds = math.ceil((rollout.total - final) / rollout.strategy["max_parallel"])
    mean: float = rollout.measured_seconds / rollout.measured
    return float(round(mean * rounds, 1))


def _message(rollout: Rollout) -> str:
    others = [
        f"{count} {name.replace('_', ' ')}"
        for name in ("skipped", "failed", "timed_out", "canceled")
        if (count := getattr(rollout, name))
    ]
    return ", ".join([f"{rollout.succeeded} of {rollout.total} nodes succeeded", *others])


# --- Nodes and their modules ------------------------------------------------------------------------------------------

ABSENT = "absent"


_OF_PLACEMENTS = (OperationReleased, OperationFinished)


class NodeProjection:
    name = "nodes"
    handles = (
        NodeJoined,
        NodeProfileChanged,
        NodeInventoryChanged,
        NodeLabelled,
        NodeWentOffline,
        NodeCameBack,
        NodeDrained,
        NodeActivated,
        NodeDecommissioned,
        OperationReleased,
        OperationFinished,
    )
    tables = (Node, NodeModule)

    def apply(self, batch: Sequence[RecordedEvent]) -> None:
        nodes = _load(Node, {each.event.node for each in batch if not isinstance(each.event, _OF_PLACEMENTS)})
        placements = _Placements(batch)
        for each in batch:
            match each.event:
                case NodeInventoryChanged():
                    placements.observe(each.event)
                case OperationReleased():
                    placements.release(each.event)
                case OperationFinished():
                    placements.end(each.event)
                case NodeJoined():
                    nodes[each.event.node] = _joined(each, nodes.get(each.event.node))
                case _:
                    _NODE_CHANGES[type(each.event)](nodes[each.event.node], each.event)
        for node in nodes.values():
            node.phase = _phase(node)
        _save(Node, nodes.values())
        placements.save()


def _joined(recorded: RecordedEvent, before: Node | None) -> Node:
    event: NodeJoined = recorded.event
    node = Node(name=event.node, phase=NodePhase.ONLINE, online=True, draining=False, labels={})
    node.joined_at, node.joined_position = recorded.recorded_at, recorded.position
    if before is not None:
        node.joined_at, node.joined_position = before.joined_at, before.joined_position
    _set_profile(node, event.profile)
    return node


def _set_profile(node: Node, profile: NodeProfile) -> None:
    node.platform, node.server, node.server_version = profile.platform, profile.server, profile.server_version
    node.role, node.api_hosts, node.agent_labels = profile.role, list(profile.api_hosts), profile.labels


def _set(**changes: object) -> Callable[[Node, object], None]:
    def change(node: Node, _: object) -> None:
        for name, value in changes.items():
            setattr(node, name, value)

    return change


def _phase(node: Node) -> str:
    if node.phase == NodePhase.DECOMMISSIONED:
        return NodePhase.DECOMMISSIONED
    if not node.online:
        return NodePhase.OFFLINE
    return NodePhase.DRAINING if node.draining else NodePhase.ONLINE


_NODE_CHANGES: dict[type, Callable[[Node, object], None]] = {
    NodeProfileChanged: lambda node, event: _set_profile(node, event.profile),  # type: ignore[attr-defined]  # by its key
    NodeLabelled: lambda node, event: setattr(node, "labels", event.labels),  # type: ignore[attr-defined]  # by its key
    NodeWentOffline: _set(online=False),
    NodeCameBack: _set(online=True),
    NodeDrained: _set(draining=True),
    NodeActivated: _set(draining=False),
    NodeDecommissioned: _set(online=False, phase=NodePhase.DECOMMISSIONED),
}


class _Placements:
    """The module versions of some nodes, desired and observed."""

    def __init__(self, batch: Sequence[RecordedEvent]) -> None:
        """An inventory is about all modules of its node, an operation about one."""
        looked_at = {each.event.node for each in batch if isinstance(each.event, NodeInventoryChanged)}
        operations = [each.event for each in batch if isinstance(each.event, _OF_PLACEMENTS)]
        found = NodeModule.objects.filter(
            Q(node__in=looked_at)
            | Q(node__in={each.node for each in operations}, module_name__in={each.module_name for each in operations})
        )
        self._rows = {row.key: row for row in found}
        self._by_module: dict[tuple[str, str], list[NodeModule]] = {}
        self._by_node: dict[str, list[NodeModule]] = {}
        for row in self._rows.values():
            self._index(row)
        self._touched: dict[str, NodeModule] = {}

    def _index(self, row: NodeModule) -> None:
        self._by_module.setdefault((row.node, row.module_name), []).append(row)
        self._by_node.setdefault(row.node, []).append(row)

    def _touch(self, row: NodeModule) -> NodeModule:
        self._touched[row.key] = row
        return row

    def _row(self, node: str, module_name: str, version: int) -> NodeModule:
        key = f"{node}:{module_name}:{version}"
        if key not in self._rows:
            self._rows[key] = NodeModule(
                key=key,
                node=node,
                module_name=module_name,
                version=version,
                desired=ABSENT,
                desired_sha256="",
                observed=ABSENT,
                content_sha256="",
                rollout="",
                failed=False,
            )
            self._index(self._rows[key])
        return self._touch(self._rows[key])

    def observe(self, event: NodeInventoryChanged) -> None:
        seen = {(each.module_name, each.version) for each in event.modules}
        for row in self._by_node.get(event.node, []):
            if row.observed != ABSENT and (row.module_name, row.version) not in seen:
                self._touch(row).observed, row.content_sha256 = ABSENT, ""
        for each in event.modules:
            row = self._row(event.node, each.module_name, each.version)
            row.observed = Activation.LOAD if each.loaded else Activation.FILES
            row.content_sha256 = each.content_sha256

    def release(self, event: OperationReleased) -> None:
        row = self._row(event.node, event.module_name, event.version)
        row.rollout, row.failed = event.rollout, False
        if event.action == Action.REMOVE:
            row.desired, row.desired_sha256 = ABSENT, ""
            return
        row.desired, row.desired_sha256 = event.activation, event.content_sha256
        if event.activation == Activation.LOAD:  # a server holds one version of a module at a time
            for other in self._by_module[event.node, event.module_name]:
                if other is not row and other.desired == Activation.LOAD:
                    self._give_way(other, event.rollout)

    def _give_way(self, other: NodeModule, rollout: str) -> None:
        """Its files stay if they are there; that it is still loaded is no drift until the operation has ended."""
        self._touch(other).rollout, other.failed = rollout, False
        other.desired = Activation.FILES
        if other.observed == ABSENT:
            other.desired, other.desired_sha256 = ABSENT, ""

    def end(self, event: OperationFinished) -> None:
        for row in self._by_module.get((event.node, event.module_name), []):
            if row.rollout == event.rollout:
                self._touch(row).rollout = ""
                row.failed = event.phase in {Phase.FAILED, Phase.TIMED_OUT}

    def save(self) -> None:
        for row in self._touched.values():
            row.state = _state(row)
        gone = {key for key, row in self._touched.items() if row.desired == row.observed == ABSENT and not row.rollout}
        NodeModule.objects.filter(key__in=gone).delete()
        _save(NodeModule, [row for key, row in self._touched.items() if key not in gone])


def _state(row: NodeModule) -> str:
    if row.rollout:
        return "pending"
    if row.desired == row.observed and row.desired_sha256 == row.content_sha256:
        return "in_sync"
    if row.failed:
        return "error"
    return "missing" if row.observed == ABSENT else "drifted"
