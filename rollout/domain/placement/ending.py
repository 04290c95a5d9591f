"""The end of an operation without a report of its node: canceled, superseded, skipped, or past its deadline."""

from rollout.domain.placement.commands import Cancel, End, GiveBack, RollBack, Schedule
from rollout.domain.placement.events import OperationCancelRequested, OperationFinished, PlacementEvent
from rollout.domain.placement.state import Operation, PlacementState
from rollout.messages import Phase, Reason


def end(state: PlacementState, command: End) -> list[PlacementEvent]:
    for operation in (state.waiting, state.live):
        if operation is None or operation.rollout != command.rollout:
            continue
        if command.attempt not in {None, operation.attempt}:
            return []
        is_scheduled = operation.phase == Phase.SCHEDULED
        is_free = is_scheduled or command.reason == Reason.NODE_DECOMMISSIONED
        if (command.phase in {Phase.CANCELED, Phase.SKIPPED} and not is_free) or (
            command.phase == Phase.TIMED_OUT and is_scheduled
        ):
            return []
        return [_finished(operation, command, command.phase, command.reason, command.message)]
    return []


def cancel(state: PlacementState, command: Cancel) -> list[PlacementEvent]:
    for operation in (state.waiting, state.live):
        if operation is None or operation.rollout != command.rollout:
            continue
        if operation.phase == Phase.SCHEDULED:
            return [_finished(operation, command, Phase.CANCELED, Reason.MANUAL)]
        if command.force:
            message = f"The rollout did not wait for {command.node}; the operation's last phase was {operation.phase}."
            return [_finished(operation, command, Phase.CANCELED, Reason.MANUAL, message)]
        if operation.phase == Phase.CANCELING:
            return []
        return [OperationCancelRequested(rollout=command.rollout, node=command.node, module_name=command.module_name)]
    return []


def superseded(operation: Operation, command: Schedule | GiveBack | RollBack, newer: str) -> OperationFinished:
    """Return the end of an operation that the rollout `newer` supersedes."""
    return _finished(operation, command, Phase.CANCELED, Reason.NEWER_ROLLOUT, f"Superseded by rollout {newer}.")


def _finished(
    operation: Operation,
    command: Schedule | GiveBack | End | Cancel | RollBack,
    phase: Phase,
    reason: Reason,
    message: str = "",
) -> OperationFinished:
    return OperationFinished(
        rollout=operation.rollout,
        node=command.node,
        module_name=command.module_name,
        phase=phase,
        reason=reason,
        message=message,
        answered=False,
    )
