"""Scheduling, release and retry of an operation: at most one operation is live, and a newer one may wait behind it.

The generation grows with each new operation, so that a node can refuse an older one. A retry keeps the generation and
raises the attempt.
"""

from typing import Protocol, TypeVar

from rollout.domain.errors import RolloutInProgressError
from rollout.domain.placement.commands import GiveBack, Release, Retry, Schedule, Wait
from rollout.domain.placement.ending import superseded
from rollout.domain.placement.events import (
    OperationFinished,
    OperationGivenBack,
    OperationReleased,
    OperationScheduled,
    OperationWaiting,
    PlacementEvent,
)
from rollout.domain.placement.state import PlacementState
from rollout.messages import Phase

#: The most generations that the control plane may have lost with a restored backup, for one module of one node.
LARGEST_LEAD = 1000
#: The largest generation that is accepted from a node's journal: no node has carried out so many operations of one module.
LARGEST_GENERATION = 1_000_000


class _Yielding(Protocol):
    @property
    def yields(self) -> bool: ...


SomeOperation = TypeVar("SomeOperation", bound=_Yielding)


def blocking(command_yields: bool, live: SomeOperation | None, waiting: SomeOperation | None) -> SomeOperation | None:
    """Return the operation that blocks a new one: the live one, or the one behind it if the live one yields.

    A new operation that yields is blocked by any live one.
    """
    if command_yields or live is None or not live.yields:
        return live
    return None if waiting is None or waiting.yields else waiting


def schedule(state: PlacementState, command: Schedule) -> list[PlacementEvent]:
    live = state.live
    if any(known is not None and known.rollout == command.rollout for known in (live, state.waiting, state.ended)):
        return []
    if not command.supersede and (other := blocking(command.yields, live, state.waiting)) is not None:
        raise RolloutInProgressError(other.rollout, command.node)
    known = min(command.known_generation, state.generation + LARGEST_LEAD)
    generation = max(state.generation, known) + 1
    events: list[PlacementEvent] = [
        superseded(older, command, command.rollout)
        for older in (state.waiting, live)
        if older is not None and older.phase == Phase.SCHEDULED
    ]
    events.append(
        OperationScheduled(
            **{**command.values(), "generation": generation},
            node=command.node,
            module_name=command.module_name,
            behind=live is not None and live.phase != Phase.SCHEDULED,
        )
    )
    if command.skip is not None:
        reason, message = command.skip
        events.append(
            OperationFinished(
                rollout=command.rollout,
                node=command.node,
                module_name=command.module_name,
                phase=Phase.SKIPPED,
                reason=reason,
                message=message,
            )
        )
    return events


def release(state: PlacementState, command: Release) -> list[PlacementEvent]:
    live = state.live
    if live is None or live.rollout != command.rollout or live.phase != Phase.SCHEDULED:
        return []
    known = live.before if live.before is not None else state.had
    return [
        OperationReleased(
            rollout=live.rollout,
            node=command.node,
            module_name=command.module_name,
            version=live.version,
            action=live.action,
            activation=live.activation,
            content_sha256=live.content_sha256,
            undoes=live.undoes,
            before=command.inventory if known is None else known,
            expects=command.expects if live.changes_server else None,
        )
    ]


def wait(state: PlacementState, command: Wait) -> list[PlacementEvent]:
    live = state.live
    if live is None or live.rollout != command.rollout or live.phase != Phase.SCHEDULED:
        return []
    return [
        OperationWaiting(
            rollout=command.rollout,
            node=command.node,
            module_name=command.module_name,
            reason=command.reason,
            message=command.message,
        )
    ]


def give_back(state: PlacementState, command: GiveBack) -> list[PlacementEvent]:
    live = state.live
    if live is None or live.phase != Phase.QUEUED:
        return []
    given_back = OperationGivenBack(rollout=live.rollout, node=command.node, module_name=command.module_name)
    if state.waiting is None:
        return [given_back]
    return [given_back, superseded(live, command, state.waiting.rollout)]


def retry(state: PlacementState, command: Retry) -> list[PlacementEvent]:
    ended, live = state.ended, state.live
    if ended is None or ended.rollout != command.rollout or ended.phase not in {Phase.FAILED, Phase.TIMED_OUT}:
        return []
    if live is not None and live.rollout == command.rollout:
        return []
    if live is not None and live.yields:
        return []  # the reconciler works on this node already; the other nodes can still be retried
    if live is not None:
        raise RolloutInProgressError(live.rollout, command.node)
    return [
        OperationScheduled(
            **{**ended.values(), "attempt": ended.attempt + 1},
            node=command.node,
            module_name=command.module_name,
            delay_seconds=command.delay_seconds,
        )
    ]
