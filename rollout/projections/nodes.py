"""Nodes, what each is to have of every module, and what its agent sees there.

What it is to have is computed by the decider alone: its state is stored, and the rows are copied from it.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import get_args

import msgspec
from django.db.models import Q

from eventstore import RecordedEvent
from rollout.domain.node.events import (
    NODE_PHASES,
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
)
from rollout.domain.node.state import NodePhase
from rollout.domain.placement.decider import PLACEMENT
from rollout.domain.placement.events import OperationReleased, PlacementEvent, PlacementForgotten
from rollout.domain.placement.state import PlacementState
from rollout.messages import Activation, InstalledModule, NodeProfile
from rollout.models import Node, NodeModule, Placement
from rollout.projections.rows import load, save

ABSENT = "absent"


_OfModule = PlacementEvent | NodeDrifted | NodeDriftEnded


class ModuleState(StrEnum):
    """How a module version on a node stands, the worst first."""

    ERROR = "error"
    MISSING = "missing"
    DRIFTED = "drifted"
    PENDING = "pending"
    IN_SYNC = "in_sync"


class NodeProjection:
    name = "nodes"
    version = 5
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
        *get_args(PlacementEvent),
    )
    tables = (Node, NodeModule, Placement)

    def apply(self, batch: Sequence[RecordedEvent]) -> None:
        known = {each.event.node for each in batch if not isinstance(each.event, PlacementEvent | NodeInventoryChanged)}
        of_placements: list[PlacementEvent] = [each.event for each in batch if isinstance(each.event, PlacementEvent)]
        keys = {placement_key(each.node, each.module_name) for each in of_placements}
        fold = NodeFold(load(Node, known), _modules_of(batch), load(Placement, keys).values())
        for each in batch:
            fold.apply(each)
        save(Node, fold.finished_nodes())
        modules, gone = fold.finished_modules()
        NodeModule.objects.filter(key__in=gone).delete()
        save(NodeModule, modules)
        save(Placement, fold.finished_placements())


def placement_key(node: str, module_name: str) -> str:
    return f"{node}:{module_name}"


def state_of(placement: Placement) -> PlacementState:
    """The module on the node as its decider knows it."""
    return decoded(placement.state)


def decoded(state: str) -> PlacementState:
    """What `Placement.state` says."""
    return msgspec.json.decode(state, type=PlacementState)


def _modules_of(batch: Sequence[RecordedEvent]) -> list[NodeModule]:
    """An inventory is about all modules of its node, and so is its leaving; an operation is about one."""
    whole = (NodeInventoryChanged, NodeDecommissioned, NodeForgotten)
    nodes = {each.event.node for each in batch if isinstance(each.event, whole)}
    single: list[_OfModule] = [each.event for each in batch if isinstance(each.event, _OfModule)]
    if not (nodes or single):
        return []
    of_single = Q(node__in={each.node for each in single}, module_name__in={each.module_name for each in single})
    return list(NodeModule.objects.filter(Q(node__in=nodes) | of_single))


class NodeFold:
    """The rows of some nodes while events are folded into them."""

    def __init__(self, nodes: dict[str, Node], modules: Iterable[NodeModule], placements: Iterable[Placement]) -> None:
        self.nodes = nodes
        self.placements = {each.key: each for each in placements}
        #: By key, what the decider says of those that have changed.
        self._states: dict[str, PlacementState] = {}
        self._modules = _Modules(modules)

    def apply(self, recorded: RecordedEvent) -> None:
        match recorded.event:
            case NodeInventoryChanged() as event:
                self._modules.observe(event.node, event.modules)
            case NodeDrifted() | NodeDriftEnded() as event:
                self._modules.drift(event, recorded.recorded_at)
                _note_drift(self.nodes[event.node], event)
            case NodeJoined() as event:
                self.nodes[event.node] = _joined(recorded, self.nodes.get(event.node))
            case event if isinstance(event, PlacementEvent):
                self._evolve(event, recorded.position)
                return
            case event:
                _NODE_CHANGES[type(event)](self.nodes[event.node], event)
                if isinstance(event, NodeCameBack):
                    self.nodes[event.node].came_back_at = recorded.recorded_at
                if isinstance(event, NodeDecommissioned):
                    self._modules.end_drifts(event.node)
                if isinstance(event, NodeForgotten):
                    self._modules.observe(event.node, ())
        if isinstance(recorded.event, NODE_PHASES):
            node = self.nodes[recorded.event.node]
            node.phase_position, node.phase_event_id = recorded.position, recorded.event_id

    def _evolve(self, event: PlacementEvent, position: int) -> None:
        key = placement_key(event.node, event.module_name)
        placement = self.placements.get(key)
        if placement is None:
            placement = Placement(key=key, node=event.node, module_name=event.module_name)
            self.placements[key] = placement
            self._states[key] = PLACEMENT.initial
        before = self._states.get(key) or state_of(placement)
        state = self._states[key] = PLACEMENT.evolve(before, event)
        if isinstance(event, OperationReleased):
            placement.released_position = position
        if isinstance(event, PlacementForgotten):
            placement.released_position = None
        if (before.desired, before.at_work, before.failed) != (state.desired, state.at_work, state.failed):
            self._modules.want(event.node, event.module_name, state)

    def finished_placements(self) -> list[Placement]:
        """Those that have changed."""
        for key, state in self._states.items():
            placement = self.placements[key]
            placement.state, placement.undone = msgspec.json.encode(state).decode(), state.undone
        return [self.placements[key] for key in self._states]

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
    node.operating_system = profile.operating_system
    node.other_modules = list(profile.other_modules)
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
    """The module versions of some nodes, desired and observed. What nobody wants and is not there has no row."""

    def __init__(self, found: Iterable[NodeModule]) -> None:
        self.rows: dict[str, NodeModule] = {}
        self._of_place: dict[tuple[str, str], dict[int, NodeModule]] = {}
        self._of_node: dict[str, set[str]] = {}
        self._touched: dict[str, NodeModule] = {}
        self._gone: set[str] = set()
        for row in found:
            self._add(row)

    def _add(self, row: NodeModule) -> None:
        self.rows[row.key] = row
        self._of_place.setdefault((row.node, row.module_name), {})[row.version] = row
        self._of_node.setdefault(row.node, set()).add(row.module_name)

    def _row(self, node: str, module_name: str, version: int) -> NodeModule:
        key = f"{node}:{module_name}:{version}"
        if key not in self.rows:
            self._add(
                NodeModule(
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
            )
        return self.rows[key]

    def _keep(self, row: NodeModule) -> None:
        """Note that the row has changed. At once, and not at the end of the batch: a row that comes again is a new one,
        however the events are cut into batches."""
        row.state = _state(row)
        if row.desired == row.observed == ABSENT and not row.rollout and not row.failed:
            self._gone.add(row.key)
            self._touched.pop(row.key, None)
            del self.rows[row.key], self._of_place[row.node, row.module_name][row.version]
        else:
            self._gone.discard(row.key)
            self._touched[row.key] = row

    def _rows_of(self, node: str) -> list[NodeModule]:
        return [row for name in self._of_node.get(node, ()) for row in self._of_place[node, name].values()]

    def observe(self, node: str, modules: Sequence[InstalledModule]) -> None:
        seen = {(each.module_name, each.version) for each in modules}
        for row in self._rows_of(node):
            if row.observed != ABSENT and (row.module_name, row.version) not in seen:
                row.observed, row.content_sha256 = ABSENT, ""
                self._keep(row)
        for each in modules:
            row = self._row(node, each.module_name, each.version)
            row.observed = Activation.LOAD if each.loaded else Activation.FILES
            row.content_sha256 = each.content_sha256
            self._keep(row)

    def want(self, node: str, module_name: str, state: PlacementState) -> None:
        """As the decider says. A module that differs while an operation is about it has not drifted."""
        desired = {each.version: each for each in state.desired}
        rows = self._of_place.get((node, module_name), {})
        failed = set() if state.failed is None else {state.failed}
        for version in sorted({*rows, *desired, *state.at_work, *failed}):
            row, target = self._row(node, module_name, version), desired.get(version)
            before = (row.desired, row.desired_sha256)
            row.desired = ABSENT if target is None else target.activation
            row.desired_sha256 = "" if target is None else target.content_sha256
            row.rollout = state.live.rollout if state.live is not None and version in state.at_work else ""
            row.failed = version == state.failed
            if row.rollout or before != (row.desired, row.desired_sha256):
                row.drifted_at = None
            self._keep(row)

    def drift(self, event: NodeDrifted | NodeDriftEnded, now: datetime) -> None:
        row = self.rows.get(f"{event.node}:{event.module_name}:{event.version}")
        if row is not None:
            row.drifted_at = now if isinstance(event, NodeDrifted) else None
            self._keep(row)

    def end_drifts(self, node: str) -> None:
        for row in self._rows_of(node):
            row.drifted_at = None
            self._keep(row)

    def finished(self) -> tuple[list[NodeModule], set[str]]:
        return list(self._touched.values()), self._gone


def _state(row: NodeModule) -> ModuleState:
    if row.rollout:
        return ModuleState.PENDING
    if row.failed:
        return ModuleState.ERROR
    if row.desired == row.observed and row.desired_sha256 == row.content_sha256:
        return ModuleState.IN_SYNC
    return ModuleState.MISSING if row.observed == ABSENT else ModuleState.DRIFTED
