"""The rules of one node: which events each command leads to. A heartbeat that changes nothing leads to none."""

from collections.abc import Sequence
from dataclasses import replace

from eventstore import Decider
from rollout.domain.errors import NodeNotFoundError, NodePhaseError
from rollout.domain.node.commands import (
    ActivateNode,
    DeclareOffline,
    DecommissionNode,
    DrainNode,
    EndDrift,
    ForgetNode,
    LabelNode,
    NodeCommand,
    RecordContact,
    RecordDrift,
    RecordHeartbeat,
    RecordInventory,
)
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
from rollout.domain.node.inventory_order import is_earlier
from rollout.domain.node.pace import Change
from rollout.domain.node.state import NodeState, evolve
from rollout.messages import InstalledModule, Inventory


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
        else replace(heartbeat.inventory, modules=_with_losses(state.modules, heartbeat))
    )
    return events + _record_inventory(state, heartbeat.node, inventory)


def _with_losses(modules: Sequence[InstalledModule], heartbeat: RecordHeartbeat) -> tuple[InstalledModule, ...]:
    """Return the recorded modules, with those in `lost` as the heartbeat contains them."""
    kept = (each for each in modules if (each.module_name, each.version) not in heartbeat.lost)
    reported = (each for each in heartbeat.inventory.modules if (each.module_name, each.version) in heartbeat.lost)
    return (*kept, *reported)


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


NODE = Decider(NodeState(), decide, evolve)
