"""The rules of one node: which events each command leads to. A heartbeat that changes nothing leads to none."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from eventstore import Decider
from rollout.domain.errors import (
    NodeExistsError,
    NodeIdentityError,
    NodeKeyError,
    NodeNotFoundError,
    NodePendingError,
    NodePhaseError,
    NodeRekeyError,
)
from rollout.domain.node.commands import (
    AcceptNode,
    ActivateNode,
    AddKey,
    DeclareOffline,
    DecommissionNode,
    DrainNode,
    EndDrift,
    EnrollNode,
    ForgetNode,
    LabelNode,
    NodeCommand,
    RecordContact,
    RecordDrift,
    RecordDuplicate,
    RecordHeartbeat,
    RecordInventory,
    RequestRekey,
    RetireOtherKeys,
    RevokeNode,
    SetAddress,
)
from rollout.domain.node.events import (
    ABSENT,
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
    NodeEvent,
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
from rollout.domain.node.health import Degradation
from rollout.domain.node.inventory_order import is_earlier
from rollout.domain.node.pace import Change
from rollout.domain.node.state import Identity, NodeKey, NodeState, evolve
from rollout.messages import ChangeKind, ConfigurationChange, InstalledModule, Inventory
from rollout.signing import key_id

#: A node may add so many keys for one request: one, and more if it loses them, or if two agents share its identity.
MOST_KEYS_FOR_REQUEST = 10
#: Open drifts of a node. Of more, only those are recorded that a person has rolled out: a node may report any module.
MOST_DRIFTS = 64


def decide(state: NodeState, command: NodeCommand) -> list[NodeEvent]:
    match command:
        case EnrollNode():
            return _enroll(state, command)
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
        case _ if state.identity is None:
            raise NodeNotFoundError
        case DecommissionNode():
            return [] if state.decommissioned else [NodeDecommissioned(node=command.node)]
        case AcceptNode() | RequestRekey() | AddKey() | RetireOtherKeys() | RevokeNode() | RecordDuplicate():
            return _change_identity(state, command)
        case _ if state.decommissioned:
            raise NodePhaseError(f"{command.node} was decommissioned; it joins again when its agent is restarted.")
        case LabelNode():
            return [] if command.labels == state.labels else [NodeLabelled(node=command.node, labels=command.labels)]
        case SetAddress(node=node, address=address):
            return [] if address == state.address else [NodeAddressSet(node=node, address=address)]
        case _ if state.profile is None:
            raise NodePendingError(f"{command.node} is pending: it is not part of the fleet yet.")
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


def _enroll(state: NodeState, command: EnrollNode) -> list[NodeEvent]:
    key = NodeKey(public_key=command.public_key, broker_password_sha256=command.broker_password_sha256)
    is_accepted = command.accepted and state.identity == Identity.PENDING
    if key in state.keys and not (state.decommissioned or is_accepted):
        return []
    is_own = any(each.public_key == command.public_key for each in state.keys)
    # A token that accepts its nodes may replace an agent whose messages are not signed yet, while it runs.
    speaks = state.identity == Identity.SIGNED or (state.identity == Identity.UNSIGNED and not command.accepted)
    if speaks and not (is_own or command.is_silent or state.decommissioned):
        raise NodeExistsError(
            f"Another agent speaks for {command.node}. Stop it and wait until the node is offline, or revoke the node."
        )
    if state.identity == Identity.SIGNED and not (command.accepted or state.decommissioned):
        # Otherwise the node could not come back before a person acts.
        raise NodeExistsError(
            f"{command.node} has a valid key, which this token may not replace. Create a token for this node with "
            f"`modfleet nodes add {command.node}`, or revoke the node."
        )
    return [
        NodeEnrolled(
            node=command.node,
            token=command.token,
            public_key=command.public_key,
            broker_password_sha256=command.broker_password_sha256,
            labels=command.labels,
            accepted=command.accepted,
        )
    ]


def _change_identity(
    state: NodeState, command: AcceptNode | RequestRekey | AddKey | RetireOtherKeys | RevokeNode | RecordDuplicate
) -> list[NodeEvent]:
    match command:
        case RevokeNode():
            return [] if state.identity == Identity.REVOKED else [NodeRevoked(node=command.node)]
        case AcceptNode() if state.identity in {Identity.PENDING, Identity.SIGNED}:
            if all(key_id(each.public_key) != command.key for each in state.keys):
                raise NodeKeyError
            return [NodeAccepted(node=command.node)] if state.identity == Identity.PENDING else []
        case RecordDuplicate(node=node, is_duplicate=is_duplicate):
            if is_duplicate == state.is_duplicate:
                return []
            return [NodeDuplicateFound(node=node) if is_duplicate else NodeDuplicateEnded(node=node)]
        case RetireOtherKeys() if state.identity != Identity.SIGNED:
            return []  # the identity was revoked since the message was verified
        case _ if state.identity != Identity.SIGNED:
            raise NodeIdentityError(f"The identity of {command.node} is {state.identity}: the node must join first.")
        case RequestRekey():
            return [] if _may_add_key(state) else [NodeRekeyRequested(node=command.node)]
        case AddKey():
            return _add_key(state, command)
        case RetireOtherKeys(public_key=public_key):
            others = [each.public_key for each in state.keys if each.public_key != public_key]
            is_known = len(others) < len(state.keys)
            return [NodeKeyRetired(node=command.node, public_key=each) for each in others] if is_known else []
    return []


def _add_key(state: NodeState, command: AddKey) -> list[NodeEvent]:
    key = NodeKey(public_key=command.public_key, broker_password_sha256=command.broker_password_sha256)
    if key in state.keys:
        return []
    if not _may_add_key(state):
        raise NodeRekeyError
    return [
        NodeKeyAdded(node=command.node, public_key=key.public_key, broker_password_sha256=key.broker_password_sha256)
    ]


def _may_add_key(state: NodeState) -> bool:
    return state.rekey_requested and state.keys_added < MOST_KEYS_FOR_REQUEST


def _record_heartbeat(state: NodeState, heartbeat: RecordHeartbeat) -> list[NodeEvent]:
    if state.identity not in {Identity.SIGNED, Identity.UNSIGNED}:
        return []
    if state.decommissioned and not heartbeat.hello:
        return []
    events: list[NodeEvent] = []
    joins = state.profile is None or state.decommissioned
    if joins:
        events.append(NodeJoined(node=heartbeat.node, profile=heartbeat.profile))
    else:
        if Change.CONTACT in heartbeat.changes and not state.online:
            events.append(NodeCameBack(node=heartbeat.node))
        if heartbeat.changes & {Change.PLATFORM, Change.PROFILE} and state.profile != heartbeat.profile:
            events.append(NodeProfileChanged(node=heartbeat.node, profile=heartbeat.profile))
    if Change.HEALTH in heartbeat.changes:
        events += _record_health(None if joins else state.degradation, heartbeat)
    if Change.CONFIGURATION in heartbeat.changes:
        events += _record_configuration_changes(state, heartbeat)
    is_whole = Change.INVENTORY in heartbeat.changes
    inventory = (
        heartbeat.inventory
        if is_whole
        else replace(heartbeat.inventory, modules=_with_losses(state.modules, heartbeat))
    )
    unloaded = _loaded(state.modules) - _loaded(inventory.modules) - heartbeat.listed if heartbeat.same_process else ()
    return events + _record_inventory(state, heartbeat.node, inventory, unloaded)


def _record_health(known: Degradation | None, heartbeat: RecordHeartbeat) -> list[NodeEvent]:
    found = heartbeat.degradation
    if found == known:
        return []
    if found is None:
        return [NodeRecovered(node=heartbeat.node)]
    return [NodeDegraded(node=heartbeat.node, reason=found.reason, message=found.message)]


def _record_configuration_changes(state: NodeState, heartbeat: RecordHeartbeat) -> list[NodeEvent]:
    return [
        _configuration_change(heartbeat.node, each)
        for each in heartbeat.configuration_changes
        if each.id not in state.configuration_changes
    ]


def _configuration_change(node: str, change: ConfigurationChange) -> NodeEvent:
    match change.kind:
        case ChangeKind.OUTSIDE:
            return NodeConfigChangedOutside(node=node, id=change.id, at=change.at, message=change.message)
        case ChangeKind.RESOLVED:
            return NodePersistenceResolved(node=node, id=change.id, at=change.at, message=change.message)


def _with_losses(modules: Sequence[InstalledModule], heartbeat: RecordHeartbeat) -> tuple[InstalledModule, ...]:
    """Return the recorded modules, with those in `lost` as the heartbeat contains them."""
    kept = (each for each in modules if (each.module_name, each.version) not in heartbeat.lost)
    reported = (each for each in heartbeat.inventory.modules if (each.module_name, each.version) in heartbeat.lost)
    return (*kept, *reported)


def _record_inventory(
    state: NodeState, node: str, inventory: Inventory, unloaded: Iterable[tuple[str, int]] = ()
) -> list[NodeEvent]:
    if is_earlier(inventory, state.sequence) or inventory.modules == state.modules:
        return []
    number = inventory.counter if inventory.incarnation else inventory.sequence
    return [
        NodeInventoryChanged(node=node, sequence=number, modules=inventory.modules, unloaded=tuple(sorted(unloaded)))
    ]


def _loaded(modules: Iterable[InstalledModule]) -> set[tuple[str, int]]:
    return {(each.module_name, each.version) for each in modules if each.loaded}


def _record_drift(state: NodeState, command: RecordDrift) -> list[NodeEvent]:
    module = (command.module_name, command.version)
    if state.drifts.get(module) == (command.observed, command.content_sha256):
        return []
    if command.desired == ABSENT and module not in state.drifts and len(state.drifts) >= MOST_DRIFTS:
        return []
    return [
        NodeDrifted(
            node=command.node,
            module_name=command.module_name,
            version=command.version,
            desired=command.desired,
            observed=command.observed,
            content_sha256=command.content_sha256,
            reason=command.reason,
        )
    ]


NODE = Decider(NodeState(), decide, evolve)
