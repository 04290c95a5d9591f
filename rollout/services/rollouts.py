"""Use cases of a rollout that was started. Each may be repeated.

`docs/reference/strategy.md` says what each does to nodes that are scheduled, queued, running and finished.
"""

from dataclasses import replace

from accounts.selectors import user_called
from eventstore import Condition, append, head, is_shown_person, load_state, retry_on_conflict, snapshot, transact
from rollout.domain.errors import OperationFinalError
from rollout.domain.node.events import NodeDecommissioned
from rollout.domain.placement.commands import Cancel, Retry
from rollout.domain.placement.events import OperationScheduled
from rollout.domain.request import RolloutRequest
from rollout.domain.rollout.commands import Abort, Approve, Pause, Promote, Reject, Resume, RetryNodes, RolloutCommand
from rollout.domain.rollout.decider import ROLLOUT
from rollout.domain.rollout.events import Origin, RolloutStarted, rollout_stream
from rollout.messages import Phase
from rollout.models import Rollout
from rollout.process.advance import advance
from rollout.process.placements import placement_changes
from rollout.queries.operations import operation_row
from rollout.queries.rollouts import failed_nodes, rollout_row
from rollout.queries.snapshot import bad_nodes
from rollout.services.start import start_rollout, without_start_conditions


def approve_rollout(uid: str, *, by: int, remark: str) -> None:
    """Let the rollout start. `by`: uid of the user who approves it.

    Raises: `SecondPersonError`, `WrongPhaseError`, `RolloutFinalError`, `RolloutNotFoundError`.
    """
    by_another = is_another_person(rollout_row(uid), by)
    _apply(uid, Approve(rollout=uid, remark=remark, by_another=by_another))


def is_another_person(row: Rollout, uid: int) -> bool:
    """Return True if the user `uid` is not the one who started the rollout, even if they were renamed since. False if the
    starter is not known."""
    return not is_shown_person(row.actor) or user_called(row.actor) not in {None, uid}


def reject_rollout(uid: str, *, remark: str) -> None:
    """End the rollout before it touches a node. Raises: as `approve_rollout`, without the first."""
    _apply(uid, Reject(rollout=uid, remark=remark))


def pause_rollout(uid: str) -> None:
    """Release no more operations; operations in progress continue. Raises: `WrongPhaseError`, `RolloutFinalError`."""
    _apply(uid, Pause(rollout=uid))


def resume_rollout(uid: str) -> None:
    """Continue the rollout; failures until now no longer count. Raises: `WrongPhaseError`, `RolloutFinalError`."""
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
    """Open the gate after `wave`, or the gate at which the rollout waits. Raises: `NotGatedError`, `WrongPhaseError`."""
    _apply(uid, Promote(rollout=uid, wave=wave))


def abort_rollout(uid: str) -> None:
    """Cancel the operations that are not released; the others continue or are undone, by the strategy's `on_abort`.

    Raises: `RolloutNotFoundError`, `RolloutFinalError`, `WrongPhaseError` while it is rolled back.
    """
    _apply(uid, Abort(rollout=uid))


def _apply(uid: str, command: RolloutCommand) -> None:
    transact(rollout_stream(uid), ROLLOUT, command)
    advance(uid)


def retry_rollout(uid: str, *, origin: Origin = Origin.API) -> str:
    """Retry the failed nodes. Return the rollout that does it: the same, or a new one if it has ended.

    Decommissioned nodes are not retried. Raises: `RolloutNotFoundError`, `NothingToRetryError`,
    `RolloutInProgressError`, `WrongPhaseError` while it is aborted or rolled back.
    """
    request = _retry_in_place(uid)
    if request is not None:
        return start_rollout(replace(request, origin=origin))
    advance(uid)
    return uid


@retry_on_conflict
def _retry_in_place(uid: str) -> RolloutRequest | None:
    """Retry in the same rollout. Return what to start instead if it has ended."""
    after = head()
    loaded = load_state(rollout_stream(uid), ROLLOUT)
    nodes = tuple(failed_nodes(uid))
    # Decided first: a rollback must not be retried, though its nodes may have failed too.
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
        strategy=without_start_conditions(started.strategy),
        retry_of=started.rollout,
        purge=started.purge,
        even_if_used=started.even_if_used,
        adopt=started.adopt,
        ways=started.ways,
        may_interrupt=started.may_interrupt,
        may_discard_data=started.may_discard_data,
        failback=started.failback,
    )


def cancel_node(uid: str, name: str, *, force: bool) -> None:
    """Cancel the rollout on one node. The node is asked to cancel an operation in progress; with `force` the rollout does
    not wait for its answer.

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
