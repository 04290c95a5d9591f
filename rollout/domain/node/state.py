"""The state of one node, and how each event changes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from rollout.domain.node.events import (
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
from rollout.messages import InstalledModule, NodeProfile

#: The recorded changes of a server's configuration that are remembered: more than a heartbeat has.
REMEMBERED_CHANGES = 32

#: A node's clock is reported as wrong if it differs from the database's by more than this, seconds.
LARGEST_SKEW = 30.0


class NodePhase(StrEnum):
    """`pending`: the node is enrolled, but not yet part of the fleet: it was not accepted, or not heard.

    `degraded`: its agent is heard, but its server cannot be used.
    """

    PENDING = "pending"
    ONLINE = "online"
    DEGRADED = "degraded"
    OFFLINE = "offline"
    DRAINING = "draining"
    DECOMMISSIONED = "decommissioned"


class Identity(StrEnum):
    """How the control plane knows that a message is from the node.

    `unsigned`: not at all; the node joined before messages were signed. `pending`: it has a key that a person must accept.
    """

    UNSIGNED = "unsigned"
    PENDING = "pending"
    SIGNED = "signed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeKey:
    """A public key of a node, and the hash of the broker password that belongs to it."""

    public_key: str
    broker_password_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """`profile` is None until the node joins. `sequence`: the number of the newest recorded inventory, -1 before the first.

    `identity` is None until the node joins or is enrolled. `keys`: the key in use, then one that was added and not used yet.
    `keys_added`: how many were added since the last request for one.
    `needs_person`: the node was revoked, and no person has accepted it since.

    `labels` and `address`: those that an operator set. `drifts`: drifts that have not ended, by module and version: what was
    observed, and the digest of the files. `configuration_changes`: the ids of the newest recorded ones.
    """

    identity: Identity | None = None
    needs_person: bool = False
    keys: tuple[NodeKey, ...] = ()
    rekey_requested: bool = False
    keys_added: int = 0
    is_duplicate: bool = False
    profile: NodeProfile | None = None
    online: bool = False
    degradation: Degradation | None = None
    draining: bool = False
    decommissioned: bool = False
    sequence: int = -1
    modules: tuple[InstalledModule, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    drifts: Mapping[tuple[str, int], tuple[str, str]] = field(default_factory=dict)
    configuration_changes: tuple[str, ...] = ()

    @property
    def phase(self) -> NodePhase:
        if self.decommissioned:
            return NodePhase.DECOMMISSIONED
        if self.profile is None:
            return NodePhase.PENDING
        if not self.online:
            return NodePhase.OFFLINE
        if self.draining:
            return NodePhase.DRAINING
        return NodePhase.ONLINE if self.degradation is None else NodePhase.DEGRADED


def evolve(state: NodeState, event: NodeEvent) -> NodeState:
    match event:
        case NodeEnrolled():
            return _enrolled(state, event)
        case NodeAccepted():
            return replace(state, identity=Identity.SIGNED, needs_person=False)
        case NodeRekeyRequested():
            return replace(state, rekey_requested=True, keys_added=0)
        case NodeKeyAdded():
            added = NodeKey(public_key=event.public_key, broker_password_sha256=event.broker_password_sha256)
            in_use = tuple(each for each in state.keys[:1] if each.public_key != event.public_key)
            return replace(state, keys=(*in_use, added), keys_added=state.keys_added + 1)
        case NodeKeyRetired():
            left = tuple(each for each in state.keys if each.public_key != event.public_key)
            return replace(state, keys=left, rekey_requested=False)
        case NodeRevoked():
            return replace(
                state, identity=Identity.REVOKED, needs_person=True, keys=(), rekey_requested=False, online=False
            )
        case NodeDuplicateFound():
            return replace(state, is_duplicate=True)
        case NodeDuplicateEnded():
            return replace(state, is_duplicate=False)
        case NodeJoined():
            return replace(
                state,
                identity=state.identity or Identity.UNSIGNED,
                profile=event.profile,
                online=True,
                degradation=None,
                draining=False,
                decommissioned=False,
                labels={} if state.decommissioned else state.labels,
                address="" if state.decommissioned else state.address,
                drifts={},
            )
        case NodeDegraded():
            return replace(state, degradation=Degradation(reason=event.reason, message=event.message))
        case NodeRecovered():
            return replace(state, degradation=None)
        case NodeConfigChangedOutside() | NodePersistenceResolved():
            newest = (*state.configuration_changes, event.id)[-REMEMBERED_CHANGES:]
            return replace(state, configuration_changes=newest)
        case NodeProfileChanged():
            return replace(state, profile=event.profile)
        case NodeInventoryChanged():
            return replace(state, sequence=event.sequence, modules=event.modules)
        case NodeLabelled():
            return replace(state, labels=event.labels)
        case NodeAddressSet():
            return replace(state, address=event.address)
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
            return replace(state, online=False, degradation=None, sequence=-1, modules=())
        case NodeDrifted():
            key = (event.module_name, event.version)
            return replace(state, drifts={**state.drifts, key: (event.observed, event.content_sha256)})
        case NodeDriftEnded():
            key = (event.module_name, event.version)
            return replace(state, drifts={each: drift for each, drift in state.drifts.items() if each != key})


def _enrolled(state: NodeState, event: NodeEnrolled) -> NodeState:
    """A decommissioned node begins again; every other node keeps what is known about it."""
    before = NodeState(sequence=state.sequence, modules=state.modules) if state.decommissioned else state
    return replace(
        before,
        identity=Identity.SIGNED if event.accepted else Identity.PENDING,
        needs_person=state.needs_person and not event.accepted,
        keys=(NodeKey(public_key=event.public_key, broker_password_sha256=event.broker_password_sha256),),
        rekey_requested=False,
        is_duplicate=False,
        labels={**before.labels, **event.labels},
    )
