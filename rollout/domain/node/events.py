"""Events of `node:<name>`."""

from eventstore import event
from rollout.messages import InstalledModule, NodeProfile


def actor_of(node: str) -> str:
    """The actor of what the node itself has said."""
    return f"node:{node}"


def node_stream(name: str) -> str:
    return f"node:{name}"


@event("node.joined.v1")
class NodeJoined:
    """The first heartbeat of a node, or the first since it was decommissioned."""

    node: str
    profile: NodeProfile


@event("node.profile_changed.v1")
class NodeProfileChanged:
    node: str
    profile: NodeProfile


@event("node.inventory_changed.v1")
class NodeInventoryChanged:
    """All that Modfleet installed on the node, as its agent saw it when it counted `sequence`."""

    node: str
    sequence: int
    modules: tuple[InstalledModule, ...]


@event("node.labelled.v1")
class NodeLabelled:
    """All labels that an operator gave; they stand above those that the agent reports."""

    node: str
    labels: dict[str, str]


@event("node.went_offline.v1")
class NodeWentOffline:
    node: str


@event("node.came_back.v1")
class NodeCameBack:
    node: str


@event("node.drained.v1")
class NodeDrained:
    """It gets nothing new until it is activated."""

    node: str


@event("node.activated.v1")
class NodeActivated:
    node: str


@event("node.decommissioned.v1")
class NodeDecommissioned:
    """It has left the fleet; the first heartbeat of a restarted agent makes it join anew."""

    node: str


@event("node.forgotten.v1")
class NodeForgotten:
    """What the node has said of itself counts no more; its next heartbeat is taken as if it were the first."""

    node: str


@event("node.drifted.v1")
class NodeDrifted:
    """The module differs from what the last operation left: `observed` is `load`, `files` or `absent`, with the digest
    of what is on the disk."""

    node: str
    module_name: str
    version: int
    desired: str
    observed: str
    content_sha256: str


@event("node.drift_ended.v1")
class NodeDriftEnded:
    """The module is as it is to be again, or something else is wanted by now."""

    node: str
    module_name: str
    version: int


NodeEvent = (
    NodeJoined
    | NodeProfileChanged
    | NodeInventoryChanged
    | NodeLabelled
    | NodeWentOffline
    | NodeCameBack
    | NodeDrained
    | NodeActivated
    | NodeDecommissioned
    | NodeForgotten
    | NodeDrifted
    | NodeDriftEnded
)
#: Those by which a node comes to its phase.
NODE_PHASES = (
    NodeJoined,
    NodeWentOffline,
    NodeCameBack,
    NodeDrained,
    NodeActivated,
    NodeDecommissioned,
    NodeForgotten,
)
