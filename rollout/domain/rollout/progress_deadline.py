"""The progress deadline: how long a rollout may run without a success."""

from datetime import datetime, timedelta

from rollout.domain.rollout.events import ProgressDeadlineExtended, RolloutPhase
from rollout.domain.rollout.snapshot import Snapshot
from rollout.domain.rollout.state import RolloutState
from rollout.domain.rollout.turns import BUSY
from rollout.domain.words import some_of


def progress_deadline(state: RolloutState, snapshot: Snapshot) -> datetime | None:
    """Return when the rollout stops if no node succeeds until then. None while the deadline does not run: the rollout
    waits for something else, its wave has ended, the fleet is frozen, or no node is in progress and one waits for its
    server, which has a deadline of its own, for operations of others, or for a person to promote a one-way change."""
    is_waiting = snapshot.is_waiting or snapshot.behind or state.waits_for_promotion
    if is_waiting and not snapshot.in_progress:
        return None
    return _deadline(state, snapshot, state.strategy.progress_deadline_seconds)


def extension(state: RolloutState, snapshot: Snapshot) -> list[ProgressDeadlineExtended]:
    """Return the event that starts the deadline again, if the rollout only waits for operations of others and half of the
    time is over. So half of it is left when the wait ends."""
    at = extension_at(state, snapshot)
    if at is None or at > snapshot.now:
        return []
    return [ProgressDeadlineExtended(rollout=state.uid, message=_operations_of_others(snapshot)[0])]


def extension_at(state: RolloutState, snapshot: Snapshot) -> datetime | None:
    """Return when half of the time is over, None if the rollout does not only wait for operations of others."""
    if snapshot.in_progress or snapshot.ready or not _operations_of_others(snapshot):
        return None
    return _deadline(state, snapshot, state.strategy.progress_deadline_seconds / 2)


def _operations_of_others(snapshot: Snapshot) -> list[str]:
    """Return them in words: each completes "It waits for"."""
    texts = [each.text for each in snapshot.blocked if each.block in BUSY]
    if snapshot.behind:
        noun = "operation" if len(snapshot.behind) == 1 else "operations"
        texts.append(f"the older {noun} on {some_of(snapshot.behind)}")
    return texts


def _deadline(state: RolloutState, snapshot: Snapshot, seconds: float) -> datetime | None:
    is_running = state.phase == RolloutPhase.RUNNING and state.wave >= 0
    if snapshot.frozen or snapshot.progressed_at is None or not (is_running or state.restoring):
        return None
    if all(each.ended == each.total for each in snapshot.waves[: state.wave + 1]) and not state.restoring:
        return None
    return snapshot.progressed_at + timedelta(seconds=seconds)
