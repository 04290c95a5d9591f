"""Nodes, what each is to have of every module, and what its agent sees there."""

from collections.abc import Callable, Sequence
from datetime import datetime

from django.db.models import Q

from eventstore.store import RecordedEvent
from rollout.decider.node import NodePhase
from rollout.events import (
    NodeActivated,
    NodeCameBack,
    NodeDecommissioned,
    NodeDrained,
    NodeDrifted,
    NodeDriftEnded,
    NodeForgotten,
    NodeInventoryChanged,
    NodeJoined,
    NodeLabelled,
    NodeProfileChanged,
    NodeWentOffline,
    OperationFinished,
    OperationReleased,
)
from rollout.messages import Action, Activation, InstalledModule, NodeProfile, Phase
from rollout.models import Node, NodeModule, Placement
from rollout.projections.rows import load, save

ABSENT = "absent"


_OF_OPERATIONS = (OperationReleased, OperationFinished)


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
        NodeForgotten,
        NodeDrifted,
        NodeDriftEnded,
        OperationReleased,
        OperationFinished,
    )
    tables = (Node, NodeModule, Placement)

    def apply(self, batch: Sequence[RecordedEvent]) -> None:
        known = {
            each.event.node for each in batch if not isinstance(each.event, (*_OF_OPERATIONS, NodeInventoryChanged))
        }
        fold = NodeFold(load(Node, known), _modules_of(batch), _placements_of(batch))
        for each in batch:
            fold.apply(each)
        save(Node, fold.finished_nodes())
        modules, gone = fold.finished_modules()
        NodeModule.objects.filter(key__in=gone).delete()
        save(NodeModule, modules)
        Placement.objects.filter(key__in=fold.left).delete()
        save(Placement, [each for key, each in fold.placements.items() if key in fold.released])


def placement_key(node: str, module_name: str) -> str:
    return f"{node}:{module_name}"


def _modules_of(batch: Sequence[RecordedEvent]) -> list[NodeModule]:
    """An inventory is about all modules of its node, and so is its leaving; an operation is about one."""
    whole = (NodeInventoryChanged, NodeDecommissioned, NodeForgotten)
    nodes = {each.event.node for each in batch if isinstance(each.event, whole)}
    single = [each.event for each in batch if isinstance(each.event, (*_OF_OPERATIONS, NodeDrifted, NodeDriftEnded))]
    names = {each.module_name for each in single}
    of_single = Q(node__in={each.node for each in single}, module_name__in=names)
    return list(NodeModule.objects.filter(Q(node__in=nodes) | of_single))


def _placements_of(batch: Sequence[RecordedEvent]) -> list[Placement]:
    nodes = {each.event.node for each in batch if isinstance(each.event, NodeDecommissioned)}
    operations = [each.event for each in batch if isinstance(each.event, _OF_OPERATIONS)]
    keys = {placement_key(each.node, each.module_name) for each in operations}
    found = list(load(Placement, keys).values())
    return found + list(Placement.objects.filter(node__in=nodes).exclude(key__in=keys)) if nodes else found


class NodeFold:
    """The rows of some nodes while events are folded into them."""

    def __init__(self, nodes: dict[str, Node], modules: Sequence[NodeModule], placements: Sequence[Placement]) -> None:
        self.nodes = nodes
        self.placements = {each.key: each for each in placements}
        #: Keys of the placements that have changed, and of those that are of no interest any more.
        self.released: set[str] = set()
        self.left: set[str] = set()
        self._modules = _Modules(modules)

    def apply(self, recorded: RecordedEvent) -> None:
        match recorded.event:
            case NodeInventoryChanged() as event:
                self._modules.observe(event.node, event.modules)
            case NodeDrifted() | NodeDriftEnded() as event:
                self._modules.drift(event, recorded.recorded_at)
                _note_drift(self.nodes[event.node], event)
            case OperationReleased() as event:
                self._modules.release(event)
                self._release(event, recorded.position)
            case OperationFinished() as event:
                self._modules.end(event)
                self._end(event, recorded.recorded_at)
            case NodeJoined() as event:
                self.nodes[event.node] = _joined(recorded, self.nodes.get(event.node))
            case event:
                _NODE_CHANGES[type(event)](self.nodes[event.node], event)
                if isinstance(event, NodeCameBack):
                    self.nodes[event.node].came_back_at = recorded.recorded_at
                if isinstance(event, NodeDecommissioned):
                    self._leave(event.node)
                if isinstance(event, NodeForgotten):
                    self._modules.observe(event.node, ())

    def _release(self, event: OperationReleased, position: int) -> None:
        key = placement_key(event.node, event.module_name)
        self.placements[key] = Placement(
            key=key,
            node=event.node,
            module_name=event.module_name,
            rollout=event.rollout,
            released_position=position,
            phase=Phase.QUEUED,
            reason="",
        )
        self.released.add(key)
        self.left.discard(key)

    def _end(self, event: OperationFinished, now: datetime) -> None:
        key = placement_key(event.node, event.module_name)
        placement = self.placements.get(key)
        if placement is not None and placement.rollout == event.rollout:
            placement.phase, placement.reason, placement.finished_at = event.phase, event.reason or "", now
            self.released.add(key)

    def _leave(self, node: str) -> None:
        """Nothing is wanted of a node that has left: if it joins again it is treated as new."""
        self._modules.want_nothing(node)
        gone = {key for key, each in self.placements.items() if each.node == node}
        self.left |= gone
        self.released -= gone

    def finished_nodes(self) -> list[Node]:
        for node in self.nodes.values():
            node.phase = _phase(node)
        return list(self.nodes.values())

    def finished_modules(self) -> tuple[list[NodeModule], set[str]]:
        """The rows that have changed, and the keys of those that nobody needs any more."""
        return self._modules.finished()


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


def _note_drift(node: Node, event: NodeDrifted | NodeDriftEnded) -> None:
    module = [event.module_name, event.version]
    others = [each for each in node.drifts if each != module]
    node.drifts = [*others, module] if isinstance(event, NodeDrifted) else others


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
    NodeForgotten: _set(online=False),
}


class _Modules:
    """The module versions of some nodes, desired and observed."""

    def __init__(self, found: Sequence[NodeModule]) -> None:
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
        row = self._touch(self._rows[key])
        if _is_of_no_interest(row):  # as new: a batch that ended here would have deleted it
            row.failed, row.drifted_at = False, None
        return row

    def observe(self, node: str, modules: Sequence[InstalledModule]) -> None:
        seen = {(each.module_name, each.version) for each in modules}
        for row in self._by_node.get(node, []):
            if row.observed != ABSENT and (row.module_name, row.version) not in seen:
                self._touch(row).observed, row.content_sha256 = ABSENT, ""
        for each in modules:
            row = self._row(node, each.module_name, each.version)
            row.observed = Activation.LOAD if each.loaded else Activation.FILES
            row.content_sha256 = each.content_sha256

    def release(self, event: OperationReleased) -> None:
        """As `rollout.decider.placement.desired_after` says, and that it differs until the operation has ended is no
        drift."""
        row = self._row(event.node, event.module_name, event.version)
        if event.undoes is not None and event.undoes != event.version:
            self._want(self._row(event.node, event.module_name, event.undoes), event.rollout, ABSENT, "")
        if event.action == Action.REMOVE:
            self._want(row, event.rollout, ABSENT, "")
            return
        activation = event.activation
        if row.desired == Activation.LOAD and event.undoes != event.version:
            activation = Activation.LOAD  # files in place unload nothing
        self._want(row, event.rollout, activation, event.content_sha256)
        if activation == Activation.LOAD:  # a server holds one version of a module at a time
            for other in self._by_module[event.node, event.module_name]:
                if other is not row and other.desired == Activation.LOAD:
                    self._give_way(other, event.rollout)

    def _want(self, row: NodeModule, rollout: str, desired: str, content_sha256: str) -> None:
        self._touch(row).desired, row.desired_sha256 = desired, content_sha256
        row.rollout, row.failed, row.drifted_at = rollout, False, None

    def _give_way(self, other: NodeModule, rollout: str) -> None:
        """Its files stay if they are there."""
        if other.observed == ABSENT:
            self._want(other, rollout, ABSENT, "")
        else:
            self._want(other, rollout, Activation.FILES, other.desired_sha256)

    def want_nothing(self, node: str) -> None:
        for row in self._by_node.get(node, []):
            self._want(row, "", ABSENT, "")

    def drift(self, event: NodeDrifted | NodeDriftEnded, now: datetime) -> None:
        row = self._rows.get(f"{event.node}:{event.module_name}:{event.version}")
        if row is not None:
            self._touch(row).drifted_at = now if isinstance(event, NodeDrifted) else None

    def end(self, event: OperationFinished) -> None:
        for row in self._by_module.get((event.node, event.module_name), []):
            if row.rollout == event.rollout:
                self._touch(row).rollout = ""
                row.failed = event.phase in {Phase.FAILED, Phase.TIMED_OUT}

    def finished(self) -> tuple[list[NodeModule], set[str]]:
        for row in self._touched.values():
            row.state = _state(row)
        gone = {key for key, row in self._touched.items() if _is_of_no_interest(row)}
        return [row for key, row in self._touched.items() if key not in gone], gone


def _is_of_no_interest(row: NodeModule) -> bool:
    """Nobody wants it, and it is not there."""
    return row.desired == row.observed == ABSENT and not row.rollout


def _state(row: NodeModule) -> str:
    if row.rollout:
        return "pending"
    if row.desired == row.observed and row.desired_sha256 == row.content_sha256:
        return "in_sync"
    if row.failed:
        return "error"
    return "missing" if row.observed == ABSENT else "drifted"
