"""Commands of one placement: what rollouts, nodes, timeouts and people ask for. `decider.decide` answers the events."""

from dataclasses import dataclass

from rollout.domain.placement.events import Intent, Target
from rollout.messages import Phase, Reason, Replication, Report

#: Why nothing can be done on a node: a reason for machines, a sentence for people.
Skip = tuple[Reason, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(Intent):
    """Schedule an operation, behind an older one that has started. Do nothing if the rollout has one here already.

    `known_generation`: the newest generation in the node's journal. It can be above ours after a backup was restored, and
    raises ours by at most `LARGEST_LEAD`. `supersede`: cancel an older operation that has not started, and wait for one
    that has. `skip`: nothing can be done on the node, so the operation ends at once as skipped.

    Raises: `RolloutInProgressError` without `supersede`, if another rollout's operation has not ended.
    """

    node: str
    module_name: str
    known_generation: int = 0
    supersede: bool = False
    skip: Skip | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Hand the rollout's scheduled operation to the node. Do nothing if the operation is not scheduled.

    `inventory`: the versions of the module in the node's last inventory. `expects`: the place of its server in its shard.
    """

    rollout: str
    node: str
    module_name: str
    inventory: tuple[Target, ...] = ()
    expects: Replication | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Record what the rollout's scheduled operation waits for. Do nothing if it is not scheduled."""

    rollout: str
    node: str
    module_name: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveBack:
    """Schedule a released operation again, because the node went offline before it started. Do nothing if it started.

    If a newer operation waits behind it, cancel it instead.
    """

    node: str
    module_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordReport:
    """Apply a node's report. A report that fits no operation is recorded as rejected, a repeated one is ignored."""

    report: Report


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectReport:
    """Record that a report could not be applied. `why` is a message for people.

    Do nothing after `MOST_REJECTED` of them, or if no operation was ever scheduled here.
    """

    report: Report
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """End the rollout's operation without a report of its node.

    `canceled` and `skipped` apply only while the operation is scheduled or after its node left the fleet; `timed_out`
    applies only after the release; other phases apply until the operation has ended. `attempt`: end only this attempt,
    because the operation may have been retried in between.
    """

    rollout: str
    node: str
    module_name: str
    phase: Phase
    reason: Reason
    message: str = ""
    attempt: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Cancel the rollout's operation. If it was released, ask the node to stop and to undo its changes.

    `force`: end a released operation at once, without the node's report.
    """

    rollout: str
    node: str
    module_name: str
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Schedule another attempt of the rollout's failed operation, `delay_seconds` from now at the earliest.

    Do nothing if the operation has not failed, or if an operation of the reconciler is in progress here.

    Raises: `RolloutInProgressError` if an operation of another rollout has not ended.
    """

    rollout: str
    node: str
    module_name: str
    delay_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RollBack:
    """Schedule an operation of the rollout `into` that restores what the node had before `rollout` changed it.

    Do nothing if a newer rollout has changed the node since, or may still change it.
    """

    rollout: str
    node: str
    module_name: str
    into: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """Drop the desired state, because the node leaves the fleet or joins it again as a new node."""

    node: str
    module_name: str


PlacementCommand = (
    Schedule | Release | Wait | GiveBack | RecordReport | RejectReport | End | Cancel | Retry | RollBack | Forget
)
