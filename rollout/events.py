"""What is stored in `node:<name>`, `placement:<node>:<module>` and `rollout:<uid>`."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from eventstore import event
from rollout.messages import Action, Activation, InstalledModule, NodeProfile, Phase, Reason
from rollout.strategy import Strategy


def actor_of(node: str) -> str:
    """The actor of what the node itself has said."""
    return f"node:{node}"


def node_stream(name: str) -> str:
    return f"node:{name}"


def placement_stream(node: str, module_name: str) -> str:
    return f"placement:{node}:{module_name}"


def rollout_stream(uid: str) -> str:
    return f"rollout:{uid}"


# --- node:<name> ------------------------------------------------------------------------------------------------------


@event("node.joined.v1")
class NodeJoined:
    """The first beat of a node, or the first since it was decommissioned."""

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
    """It has left the fleet; the first beat of a restarted agent makes it join anew."""

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


# --- placement:<node>:<module> ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One version of a module on a node. `content_sha256` is that of the build."""

    version: int
    activation: Activation
    content_sha256: str


@event("operation.scheduled.v1")
class OperationScheduled:
    """`content_sha256` is that of the build the node is to have, empty for a removal. `behind`: an older operation
    that had started is waited for. `ordinal` is the node's place in the rollout, `wave` the wave it is in, both from 0;
    one that is skipped from the start is in no wave, -1. `rollback`: it gives back what was there before the rollout
    changed it, and `undoes` is the version which that had brought and which is to be gone, if any. `delay_seconds`: not
    to be released sooner than that from now. `yields`: any rollout of a person takes its place."""

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
    wave: int = 0
    behind: bool = False
    rollback: bool = False
    undoes: int | None = None
    delay_seconds: float = 0.0
    yields: bool = False


@event("operation.released.v1")
class OperationReleased:
    """From here on the node's desired state is what this operation brings about. `before`: the versions of the module
    that the node has: what the last success left, or where there was none, what its inventory shows. None in older logs
    where there was one."""

    rollout: str
    node: str
    module_name: str
    version: int
    action: Action
    activation: Activation
    content_sha256: str
    undoes: int | None = None
    before: tuple[Target, ...] | None = None


@event("operation.cancel_requested.v1")
class OperationCancelRequested:
    """The node is asked to give it up, and to put back what it has changed; it answers with the operation's end."""

    rollout: str
    node: str
    module_name: str


@event("operation.given_back.v1")
class OperationGivenBack:
    """The node went offline before it started: released again when it is back."""

    rollout: str
    node: str
    module_name: str


@event("operation.progressed.v1")
class OperationProgressed:
    rollout: str
    node: str
    module_name: str
    phase: Phase


@event("operation.finished.v1")
class OperationFinished:
    """`seconds` is how long the node worked on it, None if it never said; `swap_seconds` is how long its server answered
    no client while it replaced one version by another, None if it did not. `answered`: the node has said so; None in
    older logs, which do not say."""

    rollout: str
    node: str
    module_name: str
    phase: Phase
    reason: Reason | None = None
    message: str = ""
    seconds: float | None = None
    swap_seconds: float | None = None
    answered: bool | None = None


@event("operation.reported_late.v1")
class OperationReportedLate:
    """The node's answer to an operation that had ended without it. The outcome stays as it is. Each phase once for an
    attempt; `skipped` twice, if it is a success once."""

    rollout: str
    node: str
    module_name: str
    phase: Phase
    reason: Reason | None = None
    message: str = ""


@event("report.rejected.v1")
class ReportRejected:
    """A report of an operation that was never asked for, one that says what no agent says, or one that could not be
    recorded. At most 10 for a module on a node between two operations that are scheduled there."""

    rollout: str
    node: str
    module_name: str
    generation: int
    attempt: int
    phase: Phase
    why: str


@event("placement.forgotten.v1")
class PlacementForgotten:
    """The node has left the fleet: nothing is wanted of the module there, and what was there is not known any more."""

    node: str
    module_name: str


PlacementEvent = (
    OperationScheduled
    | OperationReleased
    | OperationCancelRequested
    | OperationGivenBack
    | OperationProgressed
    | OperationFinished
    | OperationReportedLate
    | ReportRejected
    | PlacementForgotten
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


class WavePhase(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SOAKING = "soaking"
    GATED = "gated"
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELED = "canceled"


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
    """From where a rollout was asked for: the console, the command line, another client of `/v2/rollouts`, the vendor's
    routes; or the reconciler started it, because a node differs from what it is to have."""

    CONSOLE = "console"
    CLI = "cli"
    API = "api"
    VENDOR = "vendor"
    RECONCILER = "reconciler"

    @classmethod
    def _missing_(cls, value: object) -> "Origin | None":
        """What older versions have recorded."""
        return {"local": cls.VENDOR, "dependency": cls.API}.get(str(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftAlone:
    """Nodes that a rollback leaves as they are, because `rollout` has changed them since or is about to."""

    rollout: str
    nodes: tuple[str, ...]


@event("rollout.started.v1")
class RolloutStarted:
    """`total` counts its nodes, `waves` those of each wave; the others are skipped from the start.
    `named`: its nodes were chosen, so that it says nothing about nodes that join later.
    `needs`: rollouts that must have succeeded before the first wave, because their modules are needed by this one.
    `rollback_of`: it takes back what that one, which had ended, did, but on the nodes that are `left_alone`.
    `purge`: when every node has succeeded, the module object and the artifact are deleted too."""

    rollout: str
    action: Action
    module_name: str
    version: int
    activation: Activation
    total: int
    waves: tuple[int, ...]
    named: bool
    strategy: Strategy = field(default_factory=Strategy)
    origin: Origin = Origin.API
    needs: tuple[str, ...] = ()
    retry_of: str = ""
    rollback_of: str = ""
    left_alone: tuple[LeftAlone, ...] = ()
    purge: bool = False


@event("rollout.approved.v1")
class RolloutApproved:
    rollout: str
    remark: str


@event("rollout.rejected.v1")
class RolloutRejected:
    rollout: str
    remark: str


@event("rollout.wave_started.v1")
class WaveStarted:
    rollout: str
    wave: int


@event("rollout.wave_soaking.v1")
class WaveSoaking:
    """All its nodes have ended; their health is watched until then."""

    rollout: str
    wave: int
    until: datetime


@event("rollout.wave_gated.v1")
class WaveGated:
    """A person has to promote before the next wave starts."""

    rollout: str
    wave: int


@event("rollout.wave_passed.v1")
class WavePassed:
    """Nothing keeps the next wave from starting any more."""

    rollout: str
    wave: int


@event("rollout.wave_failed.v1")
class WaveFailed:
    """The rollout is stopped by its `max_failures` or its `progress_deadline_seconds`: nothing is released after it
    unless a person resumes or retries. What follows is the strategy's `on_failure`."""

    rollout: str
    wave: int
    reason: Reason
    message: str


@event("rollout.released.v1")
class NodesReleased:
    """Its version in the stream is what keeps two processes from releasing more than `max_parallel`."""

    rollout: str
    nodes: tuple[str, ...]


@event("rollout.paused.v1")
class RolloutPaused:
    rollout: str
    reason: Reason
    message: str = ""


@event("rollout.resumed.v1")
class RolloutResumed:
    """`forgiven`: nodes that had failed by then, by wave; they do not count against `max_failures` any more."""

    rollout: str
    forgiven: tuple[int, ...] = ()


@event("rollout.abort_requested.v1")
class AbortRequested:
    rollout: str
    reason: Reason = Reason.MANUAL
    message: str = ""


@event("rollout.rollback_requested.v1")
class RollbackRequested:
    """Nothing new is released; what is in hand is given up; then every node gets back what it had before."""

    rollout: str
    reason: Reason = Reason.MANUAL
    message: str = ""


@event("rollout.rollback_started.v1")
class RollbackStarted:
    """`nodes`: those that get back what they had."""

    rollout: str
    nodes: tuple[str, ...]
    left_alone: tuple[LeftAlone, ...] = ()


@event("rollout.nodes_retried.v1")
class NodesRetried:
    """`automatic`: by the strategy's `retries`."""

    rollout: str
    nodes: tuple[str, ...]
    automatic: bool = False


@event("rollout.followed.v1")
class RolloutFollowed:
    """It had ended, and `follower` was started: a rollout that tries its failed nodes again, or takes it back."""

    rollout: str
    follower: str
    is_rollback: bool


@event("rollout.finished.v1")
class RolloutFinished:
    rollout: str
    phase: RolloutPhase
    reason: Reason | None = None
    message: str = ""


RolloutEvent = (
    RolloutStarted
    | RolloutApproved
    | RolloutRejected
    | WaveStarted
    | WaveSoaking
    | WaveGated
    | WavePassed
    | WaveFailed
    | NodesReleased
    | RolloutPaused
    | RolloutResumed
    | AbortRequested
    | RollbackRequested
    | RollbackStarted
    | NodesRetried
    | RolloutFinished
    | RolloutFollowed
)


# --- fleet ------------------------------------------------------------------------------------------------------------

FLEET_STREAM = "fleet"


@event("fleet.frozen.v1")
class FleetFrozen:
    """Nothing is released anywhere until it is thawed."""

    reason: str


@event("fleet.thawed.v1")
class FleetThawed:
    pass


FleetEvent = FleetFrozen | FleetThawed
