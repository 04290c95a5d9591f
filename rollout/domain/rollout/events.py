"""Events of `rollout:<uid>`."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from eventstore import event
from rollout.domain.strategy import Strategy
from rollout.messages import Action, Activation, Reason


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
