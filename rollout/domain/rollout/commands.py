"""Commands of one rollout. Each may be repeated: a command that has nothing left to do leads to no event.

Except for `Start`, each raises `RolloutNotFoundError` if the rollout does not exist. Commands of people raise
`RolloutFinalError` if the rollout has ended, and `WrongPhaseError` if its phase does not allow them: see
`operator_commands`.
"""

from dataclasses import dataclass

from rollout.domain.rollout.events import RolloutStarted
from rollout.domain.rollout.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Start the rollout. Raises: `NothingToRollBackError` for a rollback without nodes."""

    started: RolloutStarted


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """Allow the rollout to start. `by_another`: the person is not the one who started it.

    Raises: `SecondPersonError` without `by_another`.
    """

    rollout: str
    remark: str
    by_another: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """End the rollout before its start. `remark` is its message."""

    rollout: str
    remark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Release no more nodes. Operations in progress continue."""

    rollout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """Continue a paused rollout. `bad`: how many failed nodes the person accepts, by wave."""

    rollout: str
    bad: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote:
    """Open the gate after `wave`, or the gate at which the rollout waits if `wave` is None, and accept a one-way change.

    Raises: `NotGatedError` if the rollout does not wait at that gate.
    """

    rollout: str
    wave: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """Cancel all nodes that are not released. The strategy's `on_abort` decides about those in progress."""

    rollout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RollBackAll:
    """Restore all nodes. Do nothing if the rollout has ended in one of `ROLLED_BACK_BY_A_NEW_ROLLOUT`.

    Raises: `RollbackOfRollbackError` for a rollback, `RollbackOfAdoptionError` for an adoption, `OneWayError`.
    """

    rollout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryNodes:
    """Retry these failed nodes. Do nothing if the rollout has ended: a new rollout retries its nodes.

    Raises: `NothingToRetryError` without nodes.
    """

    rollout: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """Take the rollout's next step, if one is due."""

    rollout: str
    snapshot: Snapshot


#: Commands that people give to a rollout.
OperatorCommand = Approve | Reject | Pause | Resume | Promote | Abort | RollBackAll | RetryNodes
RolloutCommand = Start | OperatorCommand | Advance
