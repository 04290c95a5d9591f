"""Nodes, the modules on them and their placements: folds events into rows.

The desired state comes from the placement's decider: its state is stored, and the rows are copied from it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import get_args

import msgspec

import decoding
from eventstore import RecordedEvent
from rollout.domain.node.events import (
    NODE_IDENTITY,
    NODE_PHASES,
    NodeAccepted,
    NodeActivated,
    NodeAddressSet,
    NodeCameBack,
    NodeConfigChangedOutside,
    NodeDecommissioned,
    NodeDegraded,
    NodeDrained,
    NodeDrifted,
    NodeDriftEnded,
    NodeDuplicateEnded,
    NodeDuplicateFound,
    NodeEnrolled,
    NodeForgotten,
    NodeInventoryChanged,
    NodeJoined,
    NodeKeyAdded,
    NodeKeyRetired,
    NodeLabelled,
    NodePersistenceResolved,
    NodeProfileChanged,
    NodeRecovered,
    NodeRekeyRequested,
    NodeRevoked,
    NodeWentOffline,
)
from rollout.domain.node.state import REMEMBERED_CHANGES, Identity, NodePhase
from rollout.domain.placement.decider import PLACEMENT
from rollout.domain.placement.events import OperationReleased, PlacementEvent, PlacementForgotten
from rollout.domain.placement.state import PlacementState
from rollout.messages import NodeProfile
from rollout.models import Node, NodeModule, Placement
from rollout.projections.node_modules import ModulesOfNodes, modules_of
from rollout.projections.rows import load, save


class NodeProjection:
    name = "nodes"
    version = 5
    handles = (
        NodeEnrolled,
        NodeAccepted,
        NodeRekeyRequested,
        NodeKeyAdded,
        NodeKeyRetired,
        NodeRevoked,
        NodeDuplicateFound,
        NodeDuplicateEnded,
        NodeDegraded,
        NodeRecovered,
        NodeConfigChangedOutside,
        NodePersistenceResolved,
        NodeJoined,
        NodeProfileChanged,
        NodeInventoryChanged,
        NodeLabelled,
        NodeAddressSet,
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
        fold = NodeFold(load(Node, known), modules_of(batch), load(Placement, keys).values())
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
    """Return the decider's state of the placement."""
    return decoded(placement.state)


def decoded(state: str) -> PlacementState:
    """Decode `Placement.state`."""
    return decoding.decode(state, PlacementState)


class NodeFold:
    """Folds events into the rows of some nodes."""

    def __init__(self, nodes: dict[str, Node], modules: Iterable[NodeModule], placements: Iterable[Placement]) -> None:
        self.nodes = nodes
        self.placements = {each.key: each for each in placements}
        #: The decider's states of the changed placements, by key.
        self._states: dict[str, PlacementState] = {}
        self._modules = ModulesOfNodes(modules)

    def apply(self, recorded: RecordedEvent) -> None:
        match recorded.event:
            case NodeInventoryChanged() as event:
                self._modules.observe(event.node, event.modules, event.unloaded)
            case NodeDrifted() | NodeDriftEnded() as event:
                self._modules.drift(event, recorded.recorded_at)
                _note_drift(self.nodes[event.node], event)
            case NodeEnrolled() as event:
                self.nodes[event.node] = _enrolled(recorded, self.nodes.get(event.node))
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
        if isinstance(recorded.event, NODE_IDENTITY):
            self.nodes[recorded.event.node].identity_position = recorded.position
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
            self._modules.desire(event.node, event.module_name, state)

    def finished_placements(self) -> list[Placement]:
        """Return the changed placements."""
        for key, state in self._states.items():
            placement = self.placements[key]
            placement.state, placement.undone = msgspec.json.encode(state).decode(), state.undone
        return [self.placements[key] for key in self._states]

    def finished_nodes(self) -> list[Node]:
        for node in self.nodes.values():
            node.phase = _phase(node)
        return list(self.nodes.values())

    def finished_modules(self) -> tuple[list[NodeModule], set[str]]:
        """Return the changed rows, and the keys of the rows to delete."""
        return self._modules.finished()


def _joined(recorded: RecordedEvent, before: Node | None) -> Node:
    event: NodeJoined = recorded.event
    node = Node(name=event.node, phase=NodePhase.ONLINE, online=True, draining=False, labels={})
    node.joined_at, node.joined_position = recorded.recorded_at, recorded.position
    if before is not None:
        node.joined_at, node.joined_position = before.joined_at, before.joined_position
        node.identity, node.keys = before.identity, before.keys
        node.identity_position = before.identity_position
        node.rekey_requested, node.duplicate = before.rekey_requested, before.duplicate
        if before.phase == NodePhase.PENDING:
            node.labels, node.address = before.labels, before.address
    _set_profile(node, event.profile)
    return node


def _enrolled(recorded: RecordedEvent, before: Node | None) -> Node:
    event: NodeEnrolled = recorded.event
    if before is None or before.phase == NodePhase.DECOMMISSIONED:
        node = Node(name=event.node, phase=NodePhase.PENDING, online=False, draining=False, labels={})
        node.joined_at, node.joined_position = recorded.recorded_at, recorded.position
        if before is not None:
            node.joined_at, node.joined_position = before.joined_at, before.joined_position
        _set_profile(node, NodeProfile(platform=""))
    else:
        node = before
    node.identity = Identity.SIGNED if event.accepted else Identity.PENDING
    node.keys = [[event.public_key, event.broker_password_sha256]]
    node.rekey_requested = node.duplicate = False
    node.labels = {**node.labels, **event.labels}
    return node


def _add_key(node: Node, event: NodeKeyAdded) -> None:
    in_use = [each for each in node.keys[:1] if each[0] != event.public_key]
    node.keys = [*in_use, [event.public_key, event.broker_password_sha256]]


def _retire_key(node: Node, event: NodeKeyRetired) -> None:
    node.keys = [each for each in node.keys if each[0] != event.public_key]
    node.rekey_requested = False


def _degrade(node: Node, event: NodeDegraded) -> None:
    node.degraded_reason, node.degraded_message = event.reason, event.message


def _note_configuration_change(node: Node, event: NodeConfigChangedOutside | NodePersistenceResolved) -> None:
    node.configuration_changes = [*node.configuration_changes, event.id][-REMEMBERED_CHANGES:]


def _set_profile(node: Node, profile: NodeProfile) -> None:
    node.platform, node.server, node.server_version = profile.platform, profile.server, profile.server_version
    node.operating_system, node.redis_version = profile.operating_system, profile.redis_version
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
    if node.phase in {NodePhase.DECOMMISSIONED, NodePhase.PENDING}:
        return node.phase
    if not node.online:
        return NodePhase.OFFLINE
    if node.draining:
        return NodePhase.DRAINING
    return NodePhase.DEGRADED if node.degraded_reason else NodePhase.ONLINE


_NODE_CHANGES: dict[type, Callable[[Node, object], None]] = {
    NodeAccepted: _set(identity=Identity.SIGNED),
    NodeRekeyRequested: _set(rekey_requested=True),
    NodeKeyAdded: _add_key,  # type: ignore[dict-item]  # likewise
    NodeKeyRetired: _retire_key,  # type: ignore[dict-item]  # likewise
    NodeRevoked: _set(identity=Identity.REVOKED, keys=[], rekey_requested=False, online=False),
    NodeDuplicateFound: _set(duplicate=True),
    NodeDuplicateEnded: _set(duplicate=False),
    NodeDegraded: _degrade,  # type: ignore[dict-item]  # likewise
    NodeRecovered: _set(degraded_reason="", degraded_message=""),
    NodeConfigChangedOutside: _note_configuration_change,  # type: ignore[dict-item]  # likewise
    NodePersistenceResolved: _note_configuration_change,  # type: ignore[dict-item]  # likewise
    NodeProfileChanged: lambda node, event: _set_profile(node, event.profile),  # type: ignore[attr-defined]  # by its key
    NodeLabelled: lambda node, event: setattr(node, "labels", event.labels),  # type: ignore[attr-defined]  # by its key
    NodeAddressSet: lambda node, event: setattr(node, "address", event.address),  # type: ignore[attr-defined]  # by its key
    NodeWentOffline: _set(online=False),
    NodeCameBack: _set(online=True),
    NodeDrained: _set(draining=True),
    NodeActivated: _set(draining=False),
    NodeDecommissioned: _set(online=False, phase=NodePhase.DECOMMISSIONED),
    NodeForgotten: _set(online=False, degraded_reason="", degraded_message=""),
}
