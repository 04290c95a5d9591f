"""Events of `node:<name>`."""

from eventstore import event
from rollout.messages import InstalledModule, NodeProfile


def actor_of(node: str) -> str:
    """Return the actor of events that the node itself reported."""
    return f"node:{node}"


def node_stream(name: str) -> str:
    return f"node:{name}"


@event("node.joined.v1")
class NodeJoined:
    """A node sent its first heartbeat, or its first one since it was decommissioned."""

    node: str
    profile: NodeProfile


@event("node.enrolled.v1")
class NodeEnrolled:
    """A node exchanged a join token for an identity. `token`: the token's id. `accepted`: no person has to accept the node.

    `public_key` (X25519) verifies its messages, `broker_password_sha256` its password at the broker: it is random, so its
    hash gives nothing away. `labels`: those of the token; they are added to the labels that operators set.
    """

    node: str
    token: str
    public_key: str
    broker_password_sha256: str
    labels: dict[str, str]
    accepted: bool


@event("node.accepted.v1")
class NodeAccepted:
    """A person accepted a pending node."""

    node: str


@event("node.rekey_requested.v1")
class NodeRekeyRequested:
    """A person asked the node to replace its key."""

    node: str


@event("node.key_added.v1")
class NodeKeyAdded:
    """The node made a new key. Both keys are valid until the node uses the new one."""

    node: str
    public_key: str
    broker_password_sha256: str


@event("node.key_retired.v1")
class NodeKeyRetired:
    """The node has used its new key, so this one is no longer valid."""

    node: str
    public_key: str


@event("node.revoked.v1")
class NodeRevoked:
    """A person revoked the node's identity. Its messages, its access to the broker and its links are refused until it
    joins again."""

    node: str


@event("node.duplicate_found.v1")
class NodeDuplicateFound:
    """Two agents with the node's key were heard at the same time. The newer one gets no commands."""

    node: str


@event("node.duplicate_ended.v1")
class NodeDuplicateEnded:
    """Only one of the two agents is heard."""

    node: str


@event("node.degraded.v1")
class NodeDegraded:
    """The node's server cannot be used, or a check of its agent fails: no operation is released to it.

    `reason` is a code such as `server_unreachable` or `doctor_failed`. A degraded node with another reason is recorded
    again."""

    node: str
    reason: str
    message: str


@event("node.recovered.v1")
class NodeRecovered:
    """The node's server can be used again, and no check of its agent fails."""

    node: str


@event("node.config_changed_outside.v1")
class NodeConfigChangedOutside:
    """Another hand than the agent's changed the `loadmodule` or `include` lines that the next start of the server reads.

    `id`: the agent's number of the change. `at`: Unix time by the node's clock. `message`: the file and the lines."""

    node: str
    id: str
    at: float
    message: str


@event("node.persistence_resolved.v1")
class NodePersistenceResolved:
    """The agent removed lines of its include file: another line loads the module too, the file of the module was deleted, or
    the server has written the lines into its main file, because MODFLEET_PERSISTENCE is `rewrite` now.

    `id` and `at`: as in `node.config_changed_outside.v1`."""

    node: str
    id: str
    at: float
    message: str


@event("node.profile_changed.v1")
class NodeProfileChanged:
    """The node reported another platform, server, role, label or other property of itself."""

    node: str
    profile: NodeProfile


@event("node.inventory_changed.v1")
class NodeInventoryChanged:
    """The node reported other modules. `modules`: all modules on the node that Modfleet installed. `sequence`: the number
    that the agent gave to this inventory. `unloaded`: name and version of modules that the same server process had loaded
    before, and has no longer loaded."""

    node: str
    sequence: int
    modules: tuple[InstalledModule, ...]
    unloaded: tuple[tuple[str, int], ...] = ()


@event("node.labelled.v1")
class NodeLabelled:
    """An operator set the node's labels. `labels`: all of them. They override the labels that the agent reports."""

    node: str
    labels: dict[str, str]


@event("node.address_set.v1")
class NodeAddressSet:
    """A person set the address, `host:port`, by which other servers know the node's server. Empty: the addresses that the
    node reports count again."""

    node: str
    address: str


@event("node.went_offline.v1")
class NodeWentOffline:
    """The node was silent for too long, and counts as offline."""

    node: str


@event("node.came_back.v1")
class NodeCameBack:
    """A node that was offline was heard again."""

    node: str


@event("node.drained.v1")
class NodeDrained:
    """An operator drained the node: no operation is released to it until it is activated."""

    node: str


@event("node.activated.v1")
class NodeActivated:
    """An operator ended the drain of the node."""

    node: str


@event("node.decommissioned.v1")
class NodeDecommissioned:
    """An operator removed the node from the fleet. It joins again with the first heartbeat of a restarted agent."""

    node: str


@event("node.forgotten.v1")
class NodeForgotten:
    """What the node reported of itself is dropped. Its next heartbeat is handled as its first one."""

    node: str


#: The desired or the observed state of a module that is not there.
ABSENT = "absent"


@event("node.drifted.v1")
class NodeDrifted:
    """A module on the node differs from its desired state.

    `desired` and `observed`: `load`, `files` or `absent`. `content_sha256`: the digest of the files on the node.
    `reason`: `unloaded_by_hand` if a person unloaded it, empty if the cause is not known."""

    node: str
    module_name: str
    version: int
    desired: str
    observed: str
    content_sha256: str
    reason: str = ""


@event("node.drift_ended.v1")
class NodeDriftEnded:
    """The module is in its desired state again, or its desired state has changed."""

    node: str
    module_name: str
    version: int


NodeEvent = (
    NodeEnrolled
    | NodeAccepted
    | NodeRekeyRequested
    | NodeKeyAdded
    | NodeKeyRetired
    | NodeRevoked
    | NodeDuplicateFound
    | NodeDuplicateEnded
    | NodeDegraded
    | NodeRecovered
    | NodeJoined
    | NodeConfigChangedOutside
    | NodePersistenceResolved
    | NodeProfileChanged
    | NodeInventoryChanged
    | NodeLabelled
    | NodeAddressSet
    | NodeWentOffline
    | NodeCameBack
    | NodeDrained
    | NodeActivated
    | NodeDecommissioned
    | NodeForgotten
    | NodeDrifted
    | NodeDriftEnded
)
#: The events that change whose messages are from the node.
NODE_IDENTITY = (NodeEnrolled, NodeAccepted, NodeKeyAdded, NodeKeyRetired, NodeRevoked)
#: The events that change a node's phase.
NODE_PHASES = (
    NodeEnrolled,
    NodeRevoked,
    NodeJoined,
    NodeWentOffline,
    NodeCameBack,
    NodeDegraded,
    NodeRecovered,
    NodeDrained,
    NodeActivated,
    NodeDecommissioned,
    NodeForgotten,
)
