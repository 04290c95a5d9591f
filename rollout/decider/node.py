"""The rules of one node: a beat that changes nothing is no event; an older look at the inventory is ignored."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from eventstore.decider import Decider
from rollout.errors import NodeNotFoundError, NodePhaseError
from rollout.events import (
    NodeActivated,
    NodeCameBack,
    NodeDecommissioned,
    NodeDrained,
    NodeDrifted,
    NodeDriftEnded,
    NodeEvent,
    NodeInventoryChanged,
    NodeJoined,
    NodeLabelled,
    NodeProfileChanged,
    NodeWentOffline,
)
from rollout.messages import InstalledModule, Inventory, NodeProfile


class NodePhase(StrEnum):
    ONLINE = "online"
    OFFLINE = "offline"
    DRAINING = "draining"
    DECOMMISSIONED = "decommissioned"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """`profile` is None until the node joins."""

    profile: NodeProfile | None = None
    online: bool = False
    draining: bool = False
    decommissioned: bool = False
    sequence: int = -1
    modules: tuple[InstalledModule, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Drifts that have been recorded and have not ended: what was observed, by module and version.
    drifts: Mapping[tuple[str, int], tuple[str, str]] = field(default_factory=dict)

    @property
    def phase(self) -> NodePhase:
        if self.decommissioned:
            return NodePhase.DECOMMISSIONED
        if not self.online:
            return NodePhase.OFFLINE
        return NodePhase.DRAINING if self.draining else NodePhase.ONLINE


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordBeat:
    """`hello`: the agent has just started. Only that brings a decommissioned node back."""

    node: str
    hello: bool
    profile: NodeProfile
    inventory: Inventory


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordInventory:
    node: str
    inventory: Inventory


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclareOffline:
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelNode:
    """All labels the node is to have from an operator."""

    node: str
    labels: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainNode:
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivateNode:
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecommissionNode:
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordContact:
    """The node was heard of, by anything but a beat."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordDrift:
    """A module is not as the last operation left it; `observed` is `load`, `files` or `absent`."""

    node: str
    module_name: str
    version: int
    desired: str
    observed: str
    content_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndDrift:
    node: str
    module_name: str
    version: int


NodeCommand = (
    RecordBeat
    | RecordContact
    | RecordInventory
    | DeclareOffline
    | LabelNode
    | DrainNode
    | ActivateNode
    | DecommissionNode
    | RecordDrift
    | EndDrift
)


def decide(state: NodeState, command: NodeCommand) -> list[NodeEvent]:
    match command:
        case RecordBeat():
            return _record_beat(state, command)
        case RecordContact():
            is_gone = state.profile is None or state.decommissioned
            return [] if is_gone or state.online else [NodeCameBack(node=command.node)]
        case RecordInventory():
            return [] if state.profile is None else _record_inventory(state, command.node, command.inventory)
        case DeclareOffline():
            return [NodeWentOffline(node=command.node)] if state.online and not state.decommissioned else []
        case _ if state.profile is None:
            raise NodeNotFoundError
        case DecommissionNode():
            return [] if state.decommissioned else [NodeDecommissioned(node=command.node)]
        case _ if state.decommissioned:
            raise NodePhaseError(f"{command.node} was decommissioned; it joins again when its agent is restarted.")
        case LabelNode():
            return [] if command.labels == state.labels else [NodeLabelled(node=command.node, labels=command.labels)]
        case DrainNode():
            return [] if state.draining else [NodeDrained(node=command.node)]
        case ActivateNode():
            return [NodeActivated(node=command.node)] if state.draining else []
        case RecordDrift():
            return _record_drift(state, command)
        case EndDrift(node=node, module_name=module_name, version=version):
            if (module_name, version) not in state.drifts:
                return []
            return [NodeDriftEnded(node=node, module_name=module_name, version=version)]


def _record_beat(state: NodeState, beat: RecordBeat) -> list[NodeEvent]:
    if state.decommissioned and not beat.hello:
        return []
    events: list[NodeEvent] = []
    if state.profile is None or state.decommissioned:
        events.append(NodeJoined(node=beat.node, profile=beat.profile))
    else:
        if not state.online:
            events.append(NodeCameBack(node=beat.node))
        if state.profile != beat.profile:
            events.append(NodeProfileChanged(node=beat.node, profile=beat.profile))
    return events + _record_inventory(state, beat.node, beat.inventory)


def _record_inventory(state: NodeState, node: str, inventory: Inventory) -> list[NodeEvent]:
    if inventory.sequence <= state.sequence or inventory.modules == state.modules:
        return []
    return [NodeInventoryChanged(node=node, sequence=inventory.sequence, modules=inventory.modules)]


def _record_drift(state: NodeState, command: RecordDrift) -> list[NodeEvent]:
    if state.drifts.get((command.module_name, command.version)) == (command.observed, command.content_sha256):
        return []
    return [
        NodeDrifted(
            node=command.node,
            module_name=command.module_name,
            version=command.version,
            desired=command.desired,
            observed=command.observed,
            content_sha256=command.content_sha256,
        )
    ]


def evolve(state: NodeState, event: NodeEvent) -> NodeState:
    match event:
        case NodeJoined():
            return NodeState(profile=event.profile, online=True, sequence=state.sequence, modules=state.modules)
        case NodeProfileChanged():
            return replace(state, profile=event.profile)
        case NodeInventoryChanged():
            return replace(state, sequence=event.sequence, modules=event.modules)
        case NodeLabelled():
            return replace(state, labels=event.labels)
        case NodeWentOffline():
            return replace(state, online=False)
        case NodeCameBack():
            return replace(state, online=True)
        case NodeDrained():
            return replace(state, draining=True)
        case NodeActivated():
            return replace(state, draining=False)
        case NodeDecommissioned():
            return replace(state, decommissioned=True, online=False)
        case NodeDrifted():
            key = (event.module_name, event.version)
            return replace(state, drifts={**state.drifts, key: (event.observed, event.content_sha256)})
        case NodeDriftEnded():
            key = (event.module_name, event.version)
            return replace(state, drifts={each: seen for each, seen in state.drifts.items() if each != key})


NODE = Decider(NodeState(), decide, evolve)
