"""What is stored in `node:<name>`, `placement:<node>:<module>` and `rollout:<uid>`."""

from dataclasses import dataclass, field
from enum import StrEnum

from eventstore.registry import event_type
from rollout.messages import Action, Activation, InstalledModule, NodeProfile, Phase, Reason


def node_stream(name: str) -> str:
    return f"node:{name}"


def placement_stream(node: str, module_name: str) -> str:
    return f"placement:{node}:{module_name}"


def rollout_stream(uid: str) -> str:
    return f"rollout:{uid}"


# --- node:<name> ------------------------------------------------------------------------------------------------------


@event_type("node.joined.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeJoined:
    """The first beat of a node, or the first since it was decommissioned."""

    node: str
    profile: NodeProfile


@event_type("node.profile_changed.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProfileChanged:
    node: str
    profile: NodeProfile


@event_type("node.inventory_changed.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInventoryChanged:
    """All that Modfleet installed on the node, as its agent saw it at its `sequence`."""

    node: str
    sequence: int
    modules: tuple[InstalledModule, ...]


@event_type("node.labelled.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLabelled:
    """All labels that an operator gave; they stand above those that the agent reports."""

    node: str
    labels: dict[str, str]


@event_type("node.went_offline.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeWentOffline:
    node: str


@event_type("node.came_back.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCameBack:
    node: str


@event_type("node.drained.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDrained:
    """It gets nothing new until it is activated."""

    node: str


@event_type("node.activated.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeActivated:
    node: str


@event_type("node.decommissioned.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDecommissioned:
    """It has left the fleet; the first beat of a restarted agent makes it join anew."""

    node: str


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
)


# --- placement:<node>:<module> ----------------------------------------------------------------------------------------


@event_type("operation.scheduled.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class OperationScheduled:
    """`content_sha256` is that of the build the node is to have, empty for a removal. `behind`: an older operation
    that had started is waited for. `ordinal` is the node's place in the rollout, from 0."""

    rollout: str
    node: str
    module_name: str
    version: int
    action: Action
    activation: Activation
    content_sha256: str
    generation: int
    attempt: int
    ordinal: int
    behind: bool = False


@event_type("operation.released.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class OperationReleased:
    """From here on the node's desired state is what this operation brings about."""

    rollout: str
    node: str
    module_name: str
    version: int
    action: Action
    activation: Activation
    content_sha256: str


@event_type("operation.given_back.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class OperationGivenBack:
    """The node went offline before it started: released again when it is back."""

    rollout: str
    node: str
    module_name: str


@event_type("operation.progressed.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class OperationProgressed:
    rollout: str
    node: str
    module_name: str
    phase: Phase


@event_type("operation.finished.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class OperationFinished:
    """`seconds` is how long the node worked on it, None if it never said."""

    rollout: str
    node: str
    module_name: str
    phase: Phase
    reason: Reason | None = None
    message: str = ""
    seconds: float | None = None


@event_type("operation.reported_late.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class OperationReportedLate:
    """The node's answer to an operation that had ended without it. The outcome stays as it is."""

    rollout: str
    node: str
    module_name: str
    phase: Phase
    reason: Reason | None = None
    message: str = ""


@event_type("report.rejected.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRejected:
    """A report of an operation that was never asked for."""

    rollout: str
    node: str
    module_name: str
    generation: int
    attempt: int
    phase: Phase
    why: str


PlacementEvent = (
    OperationScheduled
    | OperationReleased
    | OperationGivenBack
    | OperationProgressed
    | OperationFinished
    | OperationReportedLate
    | ReportRejected
)


# --- rollout:<uid> ----------------------------------------------------------------------------------------------------


class RolloutPhase(StrEnum):
    PLANNED = "planned"
    PENDING_APPROVAL = "pending_approval"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    ABORTING = "aborting"
    ROLLING_BACK = "rolling_back"
    SUCCEEDED = "succeeded"
    COMPLETED_WITH_FAILURES = "completed_with_failures"
    FAILED = "failed"
    ABORTED = "aborted"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_FAILED = "rollback_failed"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"

    @property
    def is_final(self) -> bool:
        return self in FINAL_ROLLOUT_PHASES


FINAL_ROLLOUT_PHASES = frozenset(
    {
        RolloutPhase.SUCCEEDED,
        RolloutPhase.COMPLETED_WITH_FAILURES,
        RolloutPhase.FAILED,
        RolloutPhase.ABORTED,
        RolloutPhase.ROLLED_BACK,
        RolloutPhase.ROLLBACK_FAILED,
        RolloutPhase.SUPERSEDED,
        RolloutPhase.REJECTED,
    }
)


class Origin(StrEnum):
    """What asked for a rollout: `POST /v2/rollouts`, a call of the seed's local routes, or the vendor's /v2/modules."""

    API = "api"
    LOCAL = "local"
    VENDOR = "vendor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """`max_parallel`: how many nodes may have it in hand at once. `node_deadline_seconds`: longest for one node."""

    max_parallel: int = 10
    node_deadline_seconds: float = 300.0


@event_type("rollout.started.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStarted:
    """`named`: its nodes were chosen by name, so that it says nothing about nodes that join later.
    `purge`: when every node has succeeded, the module object and the artifact are deleted too."""

    rollout: str
    action: Action
    module_name: str
    version: int
    activation: Activation
    total: int
    named: bool
    strategy: Strategy = field(default_factory=Strategy)
    origin: Origin = Origin.API
    retry_of: str = ""
    purge: bool = False


@event_type("rollout.released.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class NodesReleased:
    """Its version in the stream is what keeps two processes from releasing more than `max_parallel`."""

    rollout: str
    nodes: tuple[str, ...]


@event_type("rollout.abort_requested.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class AbortRequested:
    rollout: str


@event_type("rollout.nodes_retried.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class NodesRetried:
    rollout: str
    nodes: tuple[str, ...]


@event_type("rollout.finished.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutFinished:
    rollout: str
    phase: RolloutPhase
    reason: Reason | None = None


RolloutEvent = RolloutStarted | NodesReleased | AbortRequested | NodesRetried | RolloutFinished
