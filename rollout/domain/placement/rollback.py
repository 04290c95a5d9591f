"""Rollback of one node: it restores what the node had before the rollout, unless a newer rollout changed the node since.

What the node had is what the last success left, or the inventory if nothing had succeeded.
"""

from dataclasses import replace

from rollout.domain.placement.commands import RollBack
from rollout.domain.placement.ending import superseded
from rollout.domain.placement.events import OperationScheduled, PlacementEvent, Target
from rollout.domain.placement.state import Operation, PlacementState
from rollout.messages import Action, Activation

#: The most successes that can be rolled back one after the other, the newest first.
MOST_BROUGHT = 3


def to_undo(state: PlacementState, rollout: str) -> Operation | None:
    """Return the operation that a rollback of `rollout` undoes here, None if there is none.

    That is the rollout's last operation if nothing newer was released. Otherwise it is the operation whose result the
    node still has: the newer ones have changed nothing, and will not.
    """
    if _blocks_rollback(state.live):
        return None
    newest = state.changed
    if newest is None or newest.rollout != rollout:
        if newest is not None and newest.may_still_change:
            return None
        newest = state.brought[-1] if state.brought else None
    is_own = newest is not None and newest.rollout == rollout and not newest.rollback
    return newest if is_own else None


def newer_rollout(state: PlacementState, rollout: str, generation: int) -> str:
    """Return the newer rollout because of which a rollback of `rollout` leaves the node unchanged; empty if none.

    The newer rollout has changed the node, or is about to. `generation` is that of the operation of `rollout`.
    """
    live = state.live
    if live is not None and _blocks_rollback(live) and live.rollout != rollout:
        return live.rollout
    newest = state.changed
    if newest is None or not newest.may_still_change:
        newest = state.brought[-1] if state.brought else newest
    if newest is None or newest.rollout == rollout or newest.generation <= generation:
        return ""
    return newest.rollout if newest.succeeded or newest.may_still_change else ""


def _blocks_rollback(live: Operation | None) -> bool:
    """Return True unless the live operation is one that the reconciler has only scheduled."""
    return live is not None and not (live.yields and live.before is None)


def roll_back(state: PlacementState, command: RollBack) -> list[PlacementEvent]:
    undone, live = to_undo(state, command.rollout), state.live
    if undone is None or undone.before is None:
        return []
    target, undoes = restored(undone, undone.before)
    return [
        *([] if live is None else [superseded(live, command, command.into)]),
        OperationScheduled(
            rollout=command.into,
            node=command.node,
            module_name=command.module_name,
            version=undone.version if target is None else target.version,
            action=Action.REMOVE if target is None else Action.INSTALL,
            activation=undone.activation if target is None else target.activation,
            content_sha256="" if target is None else target.content_sha256,
            generation=state.generation + 1,
            attempt=1,
            ordinal=undone.ordinal,
            wave=undone.wave,
            rollback=True,
            undoes=undoes,
            way=undone.way,
        ),
    ]


def restored(operation: Operation, before: tuple[Target, ...]) -> tuple[Target | None, int | None]:
    """Return what to install so that the node is as before `operation`, and the version to remove in addition.

    Without a target, the version of `operation` is removed and nothing is installed.
    """
    own = next((each for each in before if each.version == operation.version), None)
    loaded = next((each for each in before if each.activation == Activation.LOAD), None)
    replaced = operation.action == Action.INSTALL and operation.activation == Activation.LOAD
    if replaced and loaded is not None and loaded is not own:
        return loaded, operation.version if own is None else None
    return own, operation.version if own is None or own.activation == Activation.FILES else None


def successes_after(state: PlacementState, succeeded: Operation) -> tuple[Operation, ...]:
    """Return `PlacementState.brought` after this success.

    An operation that changed nothing is not added: the node still has the result of the earlier one.
    """
    others = state.brought
    if succeeded.rollback:  # the node has the result of an earlier operation again, or of none that is known
        while others and others[-1].result != succeeded.result:
            others = others[:-1]
        return others
    if succeeded.changes_nothing:
        return others
    others = tuple(each for each in others if each.generation != succeeded.generation)
    return (*others, replace(succeeded, was=()))[-MOST_BROUGHT:]
