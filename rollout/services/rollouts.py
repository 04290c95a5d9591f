"""What people ask of a rollout that was started. Each may be repeated.

What each verb does to nodes that are scheduled, queued, running and finished is in `docs/reference/strategy.md`.
"""

from dataclasses import replace

from accounts.selectors import user_called
from eventstore import (
    Condition,
    append,
    head,
    is_shown_person,
    load_state,
    retry_on_conflict,
    snapshot,
    transact,
)
from rollout.domain.errors import OperationFinalError
from rollout.domain.node.events import NodeDecommissioned
from rollout.domain.placement.decider import Cancel, Retry
from rollout.domain.placement.events import OperationScheduled
from rollout.domain.request import RolloutRequest
from rollout.domain.rollout.decider import (
    ROLLOUT,
    Abort,
    Approve,
    Pause,
    Promote,
    Reject,
    Resume,
    RetryNodes,
    RolloutCommand,
)
from rollout.domain.rollout.events import Origin, RolloutStarted, rollout_stream
from rollout.domain.strategy import Strategy
from rollout.messages import Phase
from rollout.models import Rollout
from rollout.process.advance import advance
from rollout.process.placements import placement_changes
from rollout.queries.operations import operation_row
from rollout.queries.rollouts import failed_nodes, rollout_row
from rollout.queries.snapshot import bad_nodes
from rollout.services.start import start_rollout


def approve_rollout(uid: str, *, by: int, remark: str) -> None:
    """It may start. `by` is the uid of the account that approves it.

    Raises: `SecondPersonError`, `WrongPhaseError`, `RolloutFinalError`, `RolloutNotFoundError`.
    """
    by_another = is_another_person(rollout_row(uid), by)
    _obey(uid, Approve(rollout=uid, remark=remark, by_another=by_another))


def is_another_person(row: Rollout, uid: int) -> bool:
    """Whether the account is another one than the account of the person who started the rollout, whatever both were
    called since. No, if that person's account is not known."""
    return not is_shown_person(row.actor) or user_called(row.actor) not in {None, uid}


def reject_rollout(uid: str, *, remark: str) -> None:
    """It ends, and no node was touched. Raises: as `approve_rollout`, but for the first."""
    _obey(uid, Reject(rollout=uid, remark=remark))


def pause_rollout(uid: str) -> None:
    """Nothing new is released; what was, goes on. Raises: `WrongPhaseError`, `RolloutFinalError`."""
    _obey(uid, Pause(rollout=uid))


def resume_rollout(uid: str) -> None:
    """It goes on; failures so far do not count any more. Raises: `WrongPhaseError`, `RolloutFinalError`."""
    _resume(uid)
    advance(uid)


@retry_on_conflict
def _resume(uid: str) -> None:
    with snapshot():
        loaded = load_state(rollout_stream(uid), ROLLOUT)
        rollout_row(uid)
        events = ROLLOUT.decide(loaded.state, Resume(rollout=uid, bad=bad_nodes(uid)))
    append(loaded.append(events))


def promote_rollout(uid: str, *, wave: int | None = None) -> None:
    """Open the gate after `wave`, or the one at which it waits. Raises: `NotGatedError`, `WrongPhaseError`."""
    _obey(uid, Promote(rollout=uid, wave=wave))


def abort_rollout(uid: str) -> None:
    """What has not been released is canceled; what has, goes on or is undone, as the strategy's `on_abort` says.

    Raises: `RolloutNotFoundError`, `RolloutFinalError`, `WrongPhaseError` while it is rolled back.
    """
    _obey(uid, Abort(rollout=uid))


def _obey(uid: str, command: RolloutCommand) -> None:
    transact(rollout_stream(uid), ROLLOUT, command)
    advance(uid)


def retry_rollout(uid: str, *, origin: Origin = Origin.API) -> str:
    """The rollout in which the nodes that failed are tried again: the same, or a new one if it has ended.

    Nodes that have left the fleet since are not. Raises: `RolloutNotFoundError`, `NothingToRetryError`,
    `RolloutInProgressError`, `WrongPhaseError` while it is aborted or rolled back.
    """
    anew = _retry_in_place(uid)
    if anew is not None:
        return start_rollout(replace(anew, origin=origin))
    advance(uid)
    return uid


@retry_on_conflict
def _retry_in_place(uid: str) -> RolloutRequest | None:
    """What to start instead if the rollout has ended."""
    after = head()
    loaded = load_state(rollout_stream(uid), ROLLOUT)
    nodes = tuple(failed_nodes(uid))
    # Whether it may be retried at all is asked first: a rollback's nodes have failed too.
    ROLLOUT.decide(loaded.state, RetryNodes(rollout=uid, nodes=nodes))
    started = loaded.state.started
    if started is None or loaded.state.phase.is_final:
        return None if started is None else _again(started, nodes)
    retries = placement_changes(Retry(rollout=uid, node=node, module_name=started.module_name) for node in nodes)
    retried = tuple(event.node for each in retries for event in each.events if isinstance(event, OperationScheduled))
    first = loaded.append(ROLLOUT.decide(loaded.state, RetryNodes(rollout=uid, nodes=retried)))
    following = [each.with_metadata(first.leads_to) for each in retries]
    append(first, *following, unless=[Condition(after=after, event_types=[NodeDecommissioned])])
    return None


def _again(started: RolloutStarted, nodes: tuple[str, ...]) -> RolloutRequest:
    return RolloutRequest(
        action=started.action,
        module_name=started.module_name,
        version=started.version,
        activation=started.activation,
        nodes=nodes,
        strategy=_without_conditions(started.strategy),
        retry_of=started.rollout,
        purge=started.purge,
    )


def _without_conditions(strategy: Strategy) -> Strategy:
    """The same, without what kept it from starting: that was met once."""
    return replace(strategy, approval=False, start_at=None)


def cancel_node(uid: str, name: str, *, force: bool) -> None:
    """The rollout does nothing (more) on that node; what it has in hand it gives up, and with `force` nobody waits for
    its answer.

    Raises: `RolloutNotFoundError`, `NodeNotFoundError`, `OperationFinalError`.
    """
    operation = operation_row(uid, name)
    if Phase(operation.phase).is_final and operation.phase != Phase.CANCELED:
        raise OperationFinalError(f"The rollout has ended on {name}: {operation.phase}.")
    _cancel(Cancel(rollout=uid, node=name, module_name=operation.module_name, force=force))
    advance(uid)


@retry_on_conflict
def _cancel(command: Cancel) -> None:
    append(*placement_changes([command]))
