"""What people ask of a rollout that was started, and of all of them at once. Everything here may be repeated.

What each verb does to nodes that are scheduled, queued, running and finished is in `docs/reference/strategy.md`.
"""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from accounts.selectors import account_called
from eventstore import (
    Append,
    Condition,
    Loaded,
    append,
    head,
    is_shown_person,
    load_state,
    retry_on_conflict,
    snapshot,
    transact,
)
from rollout import selectors
from rollout.advance import advance, advance_all
from rollout.decider.fleet import FLEET, Freeze, Thaw
from rollout.decider.placement import Cancel, Retry, RollBack
from rollout.decider.rollout import (
    ROLLED_BACK_ANEW,
    ROLLOUT,
    Abort,
    Approve,
    Pause,
    Promote,
    Reject,
    Resume,
    RetryNodes,
    RollBackAll,
    RolloutCommand,
    RolloutState,
    Start,
)
from rollout.errors import OperationFinalError
from rollout.events import (
    FLEET_STREAM,
    NodeDecommissioned,
    OperationScheduled,
    Origin,
    RolloutPhase,
    RolloutStarted,
    rollout_stream,
)
from rollout.messages import Action, Phase
from rollout.models import Rollout
from rollout.placements import placement_changes
from rollout.planning.dependencies import refuse_if_needed
from rollout.planning.observed import Observed
from rollout.planning.planner import followed
from rollout.premises import PLANNING
from rollout.requests import RolloutRequest
from rollout.services import start_rollout
from rollout.standing import bad_nodes, restoration_of
from rollout.strategy import Strategy

#: What a rollback's own uid is made from, so that a rollout has one at most.
ROLLBACKS = uuid.UUID("6f4f0a0e-6a0f-4f0b-8f1d-0d6c5e3f7a21")


def approve_rollout(uid: str, *, by: int, remark: str) -> None:
    """It may start. `by` is the uid of the account that approves it.

    Raises: `SecondPersonError`, `WrongPhaseError`, `RolloutFinalError`, `RolloutNotFoundError`.
    """
    by_another = is_another_person(selectors.rollout_row(uid), by)
    _obey(uid, Approve(rollout=uid, remark=remark, by_another=by_another))


def is_another_person(row: Rollout, uid: int) -> bool:
    """Whether the account is another one than the account of the person who started the rollout, whatever both were
    called since. No, if that person's account is not known."""
    return not is_shown_person(row.actor) or account_called(row.actor) not in {None, uid}


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
        selectors.rollout_row(uid)
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


def roll_back_rollout(uid: str, *, origin: Origin = Origin.API) -> str:
    """The rollout in which every node gets back what it had before: the same, or a new one if it has ended. At most one
    that has given anything back.

    Raises: `NothingToRollBackError`, `RollbackOfRollbackError`, `ModuleNeededError`, `WrongPhaseError`, `RolloutNotFoundError`.
    """
    state = transact(rollout_stream(uid), ROLLOUT, RollBackAll(rollout=uid))
    if state.started is not None and state.phase in ROLLED_BACK_ANEW:
        return _start_rollback(state.started, origin)
    advance(uid)
    return uid


@retry_on_conflict
def _start_rollback(ended: RolloutStarted, origin: Origin) -> str:
    with snapshot():
        after = head()
        uid, loaded = _rollback_of(ended.rollout)
        if loaded.state.started is not None:
            return uid
        restoration = restoration_of(ended.rollout)
        changes = placement_changes(
            RollBack(rollout=ended.rollout, node=node, module_name=ended.module_name, into=uid)
            for node in restoration.nodes
        )
        _refuse_if_needed(changes)
    started = RolloutStarted(
        rollout=uid,
        action=Action.REMOVE if ended.action == Action.INSTALL else Action.INSTALL,
        module_name=ended.module_name,
        version=ended.version,
        activation=ended.activation,
        total=len(changes),
        waves=_sizes(changes),
        named=True,
        strategy=_fitting(ended.strategy, len(changes)),
        origin=origin,
        rollback_of=ended.rollout,
        left_alone=restoration.left_alone,
    )
    as_read = Condition(after=after, event_types=PLANNING)
    first = loaded.append(ROLLOUT.decide(RolloutState(), Start(started=started)))
    following = [*changes, followed(ended.rollout, by=uid, is_rollback=True)]
    append(first, *(each.with_metadata(first.leads_to) for each in following), unless=[as_read])
    return uid


def _rollback_of(uid: str) -> tuple[str, Loaded[RolloutState]]:
    """The uid of the rollout's rollback, and its state. One that gave nothing back is followed by another one."""
    for number in count():
        own = uuid.uuid5(ROLLBACKS, f"{uid}:{number}" if number else uid).hex
        loaded = load_state(rollout_stream(own), ROLLOUT)
        if loaded.state.phase not in {RolloutPhase.ABORTED, RolloutPhase.SUPERSEDED}:
            break
    return own, loaded


def _refuse_if_needed(changes: Sequence[Append]) -> None:
    """Raises: `ModuleNeededError` if another module would lose one that it needs."""
    removals = [
        event
        for each in changes
        for event in each.events
        if isinstance(event, OperationScheduled) and event.action == Action.REMOVE
    ]
    if not removals:
        return
    names = [each.node for each in removals]
    nodes = selectors.nodes().filter(name__in=names)
    refuse_if_needed(removals[0].module_name, removals[0].version, list(nodes), Observed(names, yields=False))


def _fitting(strategy: Strategy, nodes: int) -> Strategy:
    """The same, without what kept it from starting; `min_healthy` was said about more nodes, and leaves one of these to
    work on."""
    kept = min(strategy.kept_healthy(nodes), nodes - 1)
    return replace(_without_conditions(strategy), min_healthy=kept)


def _sizes(changes: Sequence[Append]) -> tuple[int, ...]:
    """Of the waves, as they were: it skips them, but each node is shown in its own."""
    waves = [event.wave for each in changes for event in each.events if isinstance(event, OperationScheduled)]
    return tuple(waves.count(wave) for wave in range(max(waves, default=-1) + 1))


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
    nodes = tuple(selectors.failed_nodes(uid))
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
    operation = selectors.operation(uid, name)
    if Phase(operation.phase).is_final and operation.phase != Phase.CANCELED:
        raise OperationFinalError(f"The rollout has ended on {name}: {operation.phase}.")
    _cancel(Cancel(rollout=uid, node=name, module_name=operation.module_name, force=force))
    advance(uid)


@retry_on_conflict
def _cancel(command: Cancel) -> None:
    append(*placement_changes([command]))


def freeze_fleet(reason: str) -> None:
    """Nothing is released anywhere until it is thawed. What was released goes on."""
    transact(FLEET_STREAM, FLEET, Freeze(reason=reason))


def thaw_fleet() -> None:
    transact(FLEET_STREAM, FLEET, Thaw())
    advance_all(selectors.unfinished_rollouts())
