"""A rollout stops after too many failures, in one wave or in all, or after no success for too long."""

from collections.abc import Sequence

from rollout.domain.rollout.events import AbortRequested, RollbackRequested, RolloutEvent, RolloutPaused, WaveFailed
from rollout.domain.rollout.outcome import finished, outcome
from rollout.domain.rollout.progress_deadline import progress_deadline
from rollout.domain.rollout.snapshot import Snapshot, WaveCounts
from rollout.domain.rollout.state import RolloutState
from rollout.domain.strategy import OnFailure
from rollout.domain.words import counted
from rollout.messages import Reason


def failure(state: RolloutState, snapshot: Snapshot) -> tuple[Reason, str] | None:
    """Return why the rollout must stop, as a reason and a message; None if it may continue."""
    if state.wave < 0:
        return None
    strategy = state.strategy
    forgiven = _forgiven(state, snapshot)
    bad = [max(0, counts.bad - accepted) for counts, accepted in zip(snapshot.waves, forgiven, strict=True)]
    for wave, count in enumerate(bad):
        if count > (allowed := strategy.tolerated(snapshot.waves[wave].total)):
            return Reason.ERROR_THRESHOLD, _too_many(f"in wave {wave}", count, allowed, snapshot.waves[wave])
    if sum(bad) > (allowed := strategy.tolerated(state.nodes)):
        return Reason.ERROR_THRESHOLD, _too_many("in total", sum(bad), allowed, None)
    deadline = progress_deadline(state, snapshot)
    if deadline is not None and deadline <= snapshot.now:
        return (
            Reason.PROGRESS_DEADLINE,
            f"No node has succeeded for {strategy.progress_deadline_seconds:g} s, and wave {state.wave} is not complete.",
        )
    return None


def _forgiven(state: RolloutState, snapshot: Snapshot) -> Sequence[int]:
    """Return the failures that a person accepted, for each wave."""
    return (*state.forgiven, *[0] * (len(snapshot.waves) - len(state.forgiven)))[: len(snapshot.waves)]


def _too_many(where: str, count: int, allowed: int, counts: WaveCounts | None) -> str:
    lost = f", {counts.lost} of them after a success" if counts is not None and counts.lost else ""
    return f"{counted(count, 'node')} failed {where}{lost}; the limit is {allowed}."


def stop(state: RolloutState, snapshot: Snapshot, reason: Reason, message: str) -> list[RolloutEvent]:
    """Return the failure of the wave, and what the strategy's `on_failure` says.

    A one-way change is not rolled back: it is paused. After all nodes have ended there is nothing to pause. Only if some nodes were lost, a person may still want to roll
    back.
    """
    uid = state.uid
    failed = WaveFailed(rollout=uid, wave=state.wave, reason=reason, message=message)
    if state.strategy.on_failure == OnFailure.ROLLBACK and state.one_way is None:
        return [failed, RollbackRequested(rollout=uid, reason=reason, message=message)]
    if snapshot.has_ended and not any(each.lost for each in snapshot.waves):
        return [failed, finished(state, outcome(snapshot), reason, message)]
    if state.strategy.on_failure == OnFailure.ABORT:
        return [failed, AbortRequested(rollout=uid, reason=reason, message=message)]
    return [failed, RolloutPaused(rollout=uid, reason=reason, message=message)]
