"""The rules of one node: a heartbeat that changes nothing is no event; an older look at the inventory is ignored.

A node's clock orders nothing. `Heard` says which looks are new: those of the newest incarnation, in the order of their
counter. An incarnation that was never heard of is newer than all that were.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from eventstore import Decider
from rollout.domain.errors import NodeNotFoundError, NodePhaseError
from rollout.domain.node.events import (
    NodeActivated,
    NodeCameBack,
    NodeDecommissioned,
    NodeDrained,
    NodeDrifted,
    NodeDriftEnded,
    NodeEvent,
    NodeForgotten,
    NodeInventoryChanged,
    NodeJoined,
    NodeLabelled,
    NodeProfileChanged,
    NodeWentOffline,
)
from rollout.domain.node.pace import Change
from rollout.messages import InstalledModule, Inventory, NodeProfile

#: By how much a counter may grow from one look to the next: all between them may have been lost.
LARGEST_STEP = 1_000_000
#: How many former incarnations of a node are remembered.
REMEMBERED = 16
#: No node has obeyed so many commands for one module: what says so is not believed.
LARGEST_GENERATION = 1_000_000
#: A look of an agent without incarnations is older than another if its clock says so, by less than this: ten minutes in
#: nanoseconds. By more, the clock was set.
RECENT = 600 * 10**9
#: A clock that differs more from the database's is said to be wrong, seconds.
LARGEST_SKEW = 30.0


class NodePhase(StrEnum):
    ONLINE = "online"
    OFFLINE = "offline"
    DRAINING = "draining"
    DECOMMISSIONED = "decommissioned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Which incarnation speaks for a node, the counter of its newest look, and the incarnations before it."""

    incarnation: str = ""
    counter: int = 0
    former: tuple[str, ...] = ()

    def after(self, said: Inventory, *, hello: bool, silent: bool) -> "Heard | None":
        """The same with `said`; None if that is older than what was heard, or cannot be.

        `silent`: nothing was heard of the node for so long that it counts as offline. Then whoever speaks is right: an
        order that was wrong for any reason holds no longer than that.
        """
        same = said.incarnation == self.incarnation
        if same and not said.incarnation:
            return self  # ordered by `sequence`
        if not silent and (self._is_former(said, hello=hello) or not self.is_plausible(said)):
            return None
        if same:
            return replace(self, counter=said.counter) if silent or said.counter > self.counter else None
        former = [each for each in (*self.former, self.incarnation) if each not in {"", said.incarnation}]
        return Heard(incarnation=said.incarnation, counter=said.counter, former=tuple(former[-REMEMBERED:]))

    def is_plausible(self, said: Inventory) -> bool:
        before = self.counter if said.incarnation == self.incarnation else 0
        return said.counter - before <= LARGEST_STEP

    def _is_former(self, said: Inventory, *, hello: bool) -> bool:
        """A start of an agent without incarnations may be new: it was installed in the place of a newer one."""
        return said.incarnation in self.former or not (said.incarnation or hello)


def is_earlier(said: Inventory, sequence: int) -> bool:
    """Whether an agent without incarnations looked before it sent `sequence`."""
    return not said.incarnation and 0 <= sequence - said.sequence < RECENT


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
class RecordHeartbeat:
    """`hello`: the agent has just started. Only that brings a decommissioned node back. `changes`: what may be recorded
    of a node that is known. `lost`: names and versions of the modules of which alone the inventory may be recorded, if
    not all of it may."""

    node: str
    hello: bool
    profile: NodeProfile
    inventory: Inventory
    changes: frozenset[Change] = frozenset(Change)
    lost: frozenset[tuple[str, int]] = frozenset()


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
class ForgetNode:
    """What it has said of itself counts no more: it is offline until it says it again."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordContact:
    """The node was heard of, by anything but a heartbeat."""

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
    RecordHeartbeat
    | RecordContact
    | RecordInventory
    | DeclareOffline
    | LabelNode
    | DrainNode
    | ActivateNode
    | DecommissionNode
    | ForgetNode
    | RecordDrift
    | EndDrift
)


def decide(state: NodeState, command: NodeCommand) -> list[NodeEvent]:
    match command:
        case RecordHeartbeat():
            return _record_heartbeat(state, command)
        case RecordContact() | RecordInventory() if state.profile is None or state.decommissioned:
            return []
        case RecordContact():
            return [] if state.online else [NodeCameBack(node=command.node)]
        case RecordInventory():
            return _record_inventory(state, command.node, command.inventory)
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
        case ForgetNode():
            is_forgotten = state.sequence == -1 and not state.online
            return [] if is_forgotten else [NodeForgotten(node=command.node)]
        case RecordDrift():
            return _record_drift(state, command)
        case EndDrift(node=node, module_name=module_name, version=version):
            if (module_name, version) not in state.drifts:
                return []
            return [NodeDriftEnded(node=node, module_name=module_name, version=version)]


def _record_heartbeat(state: NodeState, heartbeat: RecordHeartbeat) -> list[NodeEvent]:
    if state.decommissioned and not heartbeat.hello:
        return []
    events: list[NodeEvent] = []
    if state.profile is None or state.decommissioned:
        events.append(NodeJoined(node=heartbeat.node, profile=heartbeat.profile))
    else:
        if Change.CONTACT in heartbeat.changes and not state.online:
            events.append(NodeCameBack(node=heartbeat.node))
        if heartbeat.changes & {Change.PLATFORM, Change.PROFILE} and state.profile != heartbeat.profile:
            events.append(NodeProfileChanged(node=heartbeat.node, profile=heartbeat.profile))
    is_whole = Change.INVENTORY in heartbeat.changes
    inventory = (
        heartbeat.inventory
        if is_whole
        else replace(heartbeat.inventory, modules=_without_lost(state.modules, heartbeat))
    )
    return events + _record_inventory(state, heartbeat.node, inventory)


def _without_lost(modules: Sequence[InstalledModule], heartbeat: RecordHeartbeat) -> tuple[InstalledModule, ...]:
    """The modules as they were, but those that are lost as the heartbeat says."""
    kept = (each for each in modules if (each.module_name, each.version) not in heartbeat.lost)
    said = (each for each in heartbeat.inventory.modules if (each.module_name, each.version) in heartbeat.lost)
    return (*kept, *said)


def _record_inventory(state: NodeState, node: str, inventory: Inventory) -> list[NodeEvent]:
    if is_earlier(inventory, state.sequence) or inventory.modules == state.modules:
        return []
    number = inventory.counter if inventory.incarnation else inventory.sequence
    return [NodeInventoryChanged(node=node, sequence=number, modules=inventory.modules)]


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
        case NodeForgotten():
            return replace(state, online=False, sequence=-1, modules=())
        case NodeDrifted():
            key = (event.module_name, event.version)
            return replace(state, drifts={**state.drifts, key: (event.observed, event.content_sha256)})
        case NodeDriftEnded():
            key = (event.module_name, event.version)
            return replace(state, drifts={each: seen for each, seen in state.drifts.items() if each != key})


NODE = Decider(NodeState(), decide, evolve)
