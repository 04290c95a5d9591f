"""The next step of a rollout: wait, start a wave, release nodes, stop, restore, or end.

Failures are judged before anything is released.
"""

from rollout.domain.rollout.blockers import BEFORE_START, blocked_by
from rollout.domain.rollout.events import AbortRequested, RolloutEvent, RolloutPhase, WavePhase
from rollout.domain.rollout.one_way import one_way_found
from rollout.domain.rollout.outcome import finish
from rollout.domain.rollout.progress_deadline import extension
from rollout.domain.rollout.rollback import restore
from rollout.domain.rollout.snapshot import Needs, Snapshot
from rollout.domain.rollout.state import RolloutState
from rollout.domain.rollout.waves import advance_waves, is_nothing_to_watch
from rollout.messages import Reason


def advance(state: RolloutState, snapshot: Snapshot) -> list[RolloutEvent]:
    return _advance(state, snapshot) or [*extension(state, snapshot)]


def _advance(state: RolloutState, snapshot: Snapshot) -> list[RolloutEvent]:
    if found := one_way_found(state, snapshot):
        return [*found]
    match state.phase:
        case RolloutPhase.ABORTING:
            return finish(state, snapshot) if snapshot.has_ended else []
        case RolloutPhase.ROLLING_BACK:
            return restore(state, snapshot)
        case RolloutPhase.PAUSED:
            return finish(state, snapshot) if _is_over(state, snapshot) else []
        case _ if snapshot.has_ended and state.wave < 0:
            return finish(state, snapshot)  # before anything was done; also a rollout without any nodes
        case _ if blocked_by(state, snapshot) in BEFORE_START:
            return []
        case _ if snapshot.needs == Needs.FAILED:
            message = "A module that this one needs could not be installed on all nodes."
            return [AbortRequested(rollout=state.uid, reason=Reason.MISSING_DEPENDENCY, message=message)]
    return advance_waves(state, snapshot)


def _is_over(state: RolloutState, snapshot: Snapshot) -> bool:
    """Return True if a paused rollout has nothing left to do. One that a person paused stays paused, unless a newer
    rollout has superseded it."""
    soaks = state.strategy.soak_seconds and not is_nothing_to_watch(snapshot)
    is_watched = (
        state.wave_phase == WavePhase.SOAKING
        or (state.wave_phase == WavePhase.RUNNING and soaks)
        or any(each.lost for each in snapshot.waves)
    )
    by_person = state.reason == Reason.MANUAL and not snapshot.superseded
    return snapshot.has_ended and not is_watched and not by_person
