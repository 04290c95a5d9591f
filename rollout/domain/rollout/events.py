"""Events of `rollout:<uid>`."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from eventstore import event
from rollout.domain.strategy import Strategy
from rollout.messages import Action, Activation, Reason, WayBack, Ways


def rollout_stream(uid: str) -> str:
    return f"rollout:{uid}"


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
    """What started a rollout: the console, the command line, another client of `/v2/rollouts`, a client of the vendor's
    routes, or the reconciler, because a node differs from its desired state."""

    CONSOLE = "console"
    CLI = "cli"
    API = "api"
    VENDOR = "vendor"
    RECONCILER = "reconciler"

    @classmethod
    def _missing_(cls, value: object) -> "Origin | None":
        """Values that older versions have recorded."""
        return {"local": cls.VENDOR, "dependency": cls.API}.get(str(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftUnchanged:
    """Nodes that a rollback leaves unchanged, because the newer `rollout` has changed them since or is about to."""

    rollout: str
    nodes: tuple[str, ...]


@event("rollout.started.v1")
class RolloutStarted:
    """A rollout was started.

    `total`: the number of its nodes. `waves`: the number of nodes in each wave; all others are skipped from the start.
    `named`: the nodes were chosen, so the rollout does not apply to nodes that join later. `needs`: rollouts that must
    succeed before the first wave, because this rollout needs their modules. `retry_of`: the finished rollout whose failed
    nodes this one retries. `rollback_of`: the finished rollout that this one rolls back, except on the nodes in
    `left_alone`. `purge`: after all nodes have succeeded, the module object and the artifact are deleted too.
    `even_if_used`: the module is removed even if its commands were called in the last 10 minutes. `adopt`: servers that have
    loaded the same file from another path keep it, and their lines are taken over. `ways`, `may_interrupt`, `may_discard_data`:
    how servers come to load the version, and which of them may be restarted for it. `failback`: masters that gave their role away
    get it back after a success, by a rollout of its own; `failback_of`: the finished rollout after which this one does that."""

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
    left_alone: tuple[LeftUnchanged, ...] = ()
    purge: bool = False
    even_if_used: bool = False
    adopt: bool = False
    ways: Ways = Ways.LOAD
    may_interrupt: bool = False
    may_discard_data: bool = False
    failback: bool = False
    failback_of: str = ""


@event("rollout.approved.v1")
class RolloutApproved:
    """A second person approved the rollout."""

    rollout: str
    remark: str


@event("rollout.rejected.v1")
class RolloutRejected:
    """A person refused to approve the rollout. It ends, and no node is touched."""

    rollout: str
    remark: str


@event("rollout.wave_started.v1")
class WaveStarted:
    """The nodes of the wave may be released. `wave` counts from 0."""

    rollout: str
    wave: int


@event("rollout.wave_soaking.v1")
class WaveSoaking:
    """All nodes of the wave have ended. Their health is watched until `until`."""

    rollout: str
    wave: int
    until: datetime


@event("rollout.wave_gated.v1")
class WaveGated:
    """A person must promote the rollout before the next wave starts."""

    rollout: str
    wave: int


@event("rollout.one_way.v1")
class OneWayFound:
    """The former version cannot read what the new one has written on `node`, or that is not known: `way_back` says which.

    If other nodes are left, nothing more is released until a person promotes the rollout. It cannot be rolled back."""

    rollout: str
    node: str
    way_back: WayBack


@event("rollout.one_way_promoted.v1")
class OneWayPromoted:
    """A person has accepted that there is no rollback: the other nodes may be released."""

    rollout: str


@event("rollout.wave_passed.v1")
class WavePassed:
    """The wave is complete, and the next wave may start."""

    rollout: str
    wave: int


@event("rollout.wave_failed.v1")
class WaveFailed:
    """The strategy's `max_failures` or `progress_deadline_seconds` stopped the rollout.

    Nothing more is released unless a person resumes or retries it. The strategy's `on_failure` decides what follows."""

    rollout: str
    wave: int
    reason: Reason
    message: str


@event("rollout.released.v1")
class NodesReleased:
    """Nodes were released. The event's version in the stream prevents two processes from releasing more than
    `max_parallel` nodes."""

    rollout: str
    nodes: tuple[str, ...]


@event("rollout.deadline_extended.v1")
class ProgressDeadlineExtended:
    """The rollout only waits for operations of other rollouts, or for late ones, so its progress deadline starts again.

    `message` completes "It waits for". Recorded twice in each `progress_deadline_seconds` of the wait."""

    rollout: str
    message: str


@event("rollout.paused.v1")
class RolloutPaused:
    """The rollout is paused by a person, then `reason` is `manual`, or by the strategy's `on_failure`."""

    rollout: str
    reason: Reason
    message: str = ""


@event("rollout.resumed.v1")
class RolloutResumed:
    """A person resumed the rollout. `forgiven`: how many nodes had failed, by wave; these failures no longer count towards
    `max_failures`."""

    rollout: str
    forgiven: tuple[int, ...] = ()


@event("rollout.abort_requested.v1")
class AbortRequested:
    """Nothing more is released: scheduled nodes are canceled. The strategy's `on_abort` decides about the others.

    `reason` is `manual` if a person asked for it."""

    rollout: str
    reason: Reason = Reason.MANUAL
    message: str = ""


@event("rollout.rollback_requested.v1")
class RollbackRequested:
    """Nothing more is released, and operations in progress are canceled. Then all changed nodes are restored.

    `reason` is `manual` if a person asked for it."""

    rollout: str
    reason: Reason = Reason.MANUAL
    message: str = ""


@event("rollout.rollback_started.v1")
class RollbackStarted:
    """No operation is in progress any more. `nodes` are restored; `left_alone`: nodes that stay unchanged."""

    rollout: str
    nodes: tuple[str, ...]
    left_alone: tuple[LeftUnchanged, ...] = ()


@event("rollout.nodes_retried.v1")
class NodesRetried:
    """Failed nodes get another attempt. `automatic`: the strategy's `retries` asked for it, not a person."""

    rollout: str
    nodes: tuple[str, ...]
    automatic: bool = False


@event("rollout.followed.v1")
class RolloutFollowed:
    """The rollout had ended, and the rollout `follower` was started to retry its failed nodes, to roll it back, or to fail back."""

    rollout: str
    follower: str
    is_rollback: bool
    is_failback: bool = False


@event("rollout.finished.v1")
class RolloutFinished:
    """The rollout ended. `phase` is final."""

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
    | OneWayFound
    | OneWayPromoted
    | WavePassed
    | WaveFailed
    | NodesReleased
    | ProgressDeadlineExtended
    | RolloutPaused
    | RolloutResumed
    | AbortRequested
    | RollbackRequested
    | RollbackStarted
    | NodesRetried
    | RolloutFinished
    | RolloutFollowed
)
