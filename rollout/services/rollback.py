"""Rolls rollouts back."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from eventstore import Append, Condition, Loaded, append, head, load_state, retry_on_conflict, snapshot, transact
from rollout.domain.conditions import PLANNING
from rollout.domain.placement.commands import RollBack
from rollout.domain.placement.events import OperationScheduled
from rollout.domain.rollout.commands import RollBackAll, Start
from rollout.domain.rollout.decider import ROLLOUT
from rollout.domain.rollout.events import Origin, RolloutPhase, RolloutStarted, rollout_stream
from rollout.domain.rollout.rollback import ROLLED_BACK_BY_A_NEW_ROLLOUT
from rollout.domain.rollout.state import RolloutState
from rollout.domain.strategy import Strategy
from rollout.messages import Action
from rollout.planning.dependents import refuse_if_needed
from rollout.planning.observed import Observed
from rollout.process.advance import advance
from rollout.process.placements import placement_changes
from rollout.queries.nodes import node_rows
from rollout.queries.restoration import restoration_of
from rollout.services.start import followed, without_start_conditions

#: Namespace of the uids of rollbacks: a rollout's uid makes its rollback's, so that it has at most one.
ROLLBACKS = uuid.UUID("6f4f0a0e-6a0f-4f0b-8f1d-0d6c5e3f7a21")


def roll_back_rollout(uid: str, *, origin: Origin = Origin.API) -> str:
    """Restore on every node what it had before. Return the rollout that does it: the same, or a new one if it has ended.
    At most one rollback of a rollout restores anything.

    Raises: `NothingToRollBackError`, `RollbackOfRollbackError`, `RollbackOfAdoptionError`, `OneWayError`,
    `ModuleNeededError`, `WrongPhaseError`, `RolloutNotFoundError`.
    """
    advance(uid)  # a node may have shown that there is no way back
    state = transact(rollout_stream(uid), ROLLOUT, RollBackAll(rollout=uid))
    if state.started is not None and state.phase in ROLLED_BACK_BY_A_NEW_ROLLOUT:
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
        left_alone=restoration.unchanged,
        may_interrupt=ended.may_interrupt,
        may_discard_data=ended.may_discard_data,
    )
    as_read = Condition(after=after, event_types=PLANNING)
    first = loaded.append(ROLLOUT.decide(RolloutState(), Start(started=started)))
    following = [*changes, followed(ended.rollout, by=uid, is_rollback=True)]
    append(first, *(each.with_metadata(first.leads_to) for each in following), unless=[as_read])
    return uid


def _rollback_of(uid: str) -> tuple[str, Loaded[RolloutState]]:
    """Return the uid and the state of the rollout's rollback. After a rollback that restored nothing there is another."""
    for number in count():
        own = uuid.uuid5(ROLLBACKS, f"{uid}:{number}" if number else uid).hex
        loaded = load_state(rollout_stream(own), ROLLOUT)
        if loaded.state.phase not in {RolloutPhase.ABORTED, RolloutPhase.SUPERSEDED}:
            break
    return own, loaded


def _refuse_if_needed(changes: Sequence[Append]) -> None:
    """Raise `ModuleNeededError` if another module would lose one that it needs."""
    removals = [
        event
        for each in changes
        for event in each.events
        if isinstance(event, OperationScheduled) and event.action == Action.REMOVE
    ]
    if not removals:
        return
    names = [each.node for each in removals]
    nodes = node_rows().filter(name__in=names)
    refuse_if_needed(removals[0].module_name, removals[0].version, list(nodes), Observed(names, yields=False))


def _fitting(strategy: Strategy, nodes: int) -> Strategy:
    """Return the strategy for so many nodes, without start conditions. `min_healthy` was chosen for more nodes: it leaves
    at least one of these to change."""
    kept = min(strategy.kept_healthy(nodes), nodes - 1)
    return replace(without_start_conditions(strategy), min_healthy=kept)


def _sizes(changes: Sequence[Append]) -> tuple[int, ...]:
    """Return the sizes of the waves as they were: a rollback has no waves, but each node is shown in its own."""
    waves = [event.wave for each in changes for event in each.events if isinstance(event, OperationScheduled)]
    return tuple(waves.count(wave) for wave in range(max(waves, default=-1) + 1))
