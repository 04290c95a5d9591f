"""The progress deadline: how long a rollout may run without a success."""

from datetime import datetime, timedelta

from rollout.domain.rollout.events import RolloutPhase
from rollout.domain.rollout.snapshot import Snapshot
from rollout.domain.rollout.state import RolloutState


def progress_deadline(state: RolloutState, snapshot: Snapshot) -> datetime | None:
    """Return when the rollout stops if no node succeeds until then. None while the deadline does not run: the rollout
    waits for something else, its wave has ended, the fleet is frozen, or no node is in progress and one waits for its
    server, which has a deadline of its own."""
    is_running = state.phase == RolloutPhase.RUNNING and state.wave >= 0
    if snapshot.frozen or snapshot.progressed_at is None or not (is_running or state.restoring):
        return None
    if snapshot.is_waiting and not snapshot.in_progress:
        return None
    if all(each.ended == each.total for each in snapshot.waves[: state.wave + 1]) and not state.restoring:
        return None
    return snapshot.progressed_at + timedelta(seconds=state.strategy.progress_deadline_seconds)
