"""Waves come one after the other: a wave runs until all its nodes have ended, soaks, may wait at a gate, and has passed."""

from datetime import timedelta

from rollout.domain.rollout.blockers import Blocker, blocked_by
from rollout.domain.rollout.events import (
    NodesRetried,
    RolloutEvent,
    WaveGated,
    WavePassed,
    WavePhase,
    WaveSoaking,
    WaveStarted,
)
from rollout.domain.rollout.failures import failure, stop
from rollout.domain.rollout.outcome import finish
from rollout.domain.rollout.release_limits import release
from rollout.domain.rollout.snapshot import Snapshot
from rollout.domain.rollout.state import RolloutState
from rollout.domain.strategy import Gate
from rollout.messages import Phase


def advance_waves(state: RolloutState, snapshot: Snapshot) -> list[RolloutEvent]:
    if snapshot.retriable:
        nodes = tuple(node for node, _ in snapshot.retriable)
        return [NodesRetried(rollout=state.uid, nodes=nodes, automatic=True)]
    if (found := failure(state, snapshot)) is not None:
        return stop(state, snapshot, *found)
    if (wave := state.next_wave) is not None:
        if blocked_by(state, snapshot) in {Blocker.FROZEN, Blocker.ONE_WAY}:
            return []
        return [WaveStarted(rollout=state.uid, wave=wave), *release(state, snapshot)]
    if any(each.ended < each.total for each in snapshot.waves[: state.wave + 1]):
        return [] if state.waits_for_promotion else release(state, snapshot)
    return _close_wave(state, snapshot)


def _close_wave(state: RolloutState, snapshot: Snapshot) -> list[RolloutEvent]:
    """Return what follows after all nodes of the wave have ended: the soak, the gate, the end."""
    seconds = state.strategy.soak_seconds
    until = snapshot.now + timedelta(seconds=seconds)
    if state.wave_phase == WavePhase.RUNNING and seconds and not is_nothing_to_watch(snapshot):
        return [WaveSoaking(rollout=state.uid, wave=state.wave, until=until)]
    if seconds and state.wave_phase == WavePhase.SOAKING and state.soak_until and state.soak_until > until:
        return [WaveSoaking(rollout=state.uid, wave=state.wave, until=until)]  # the clock was set back: it begins again
    if state.wave_phase == WavePhase.SOAKING and state.soak_until is not None and snapshot.restarted_at is not None:
        until = snapshot.restarted_at + timedelta(seconds=seconds)
        if until > state.soak_until:  # a restart during the soak: it begins again
            return [WaveSoaking(rollout=state.uid, wave=state.wave, until=until)]
    blocker = blocked_by(state, snapshot)
    if blocker == Blocker.SOAK or (blocker == Blocker.GATE and not snapshot.has_ended):
        return []
    if state.strategy.gate == Gate.MANUAL and not snapshot.has_ended and state.wave_phase != WavePhase.PASSED:
        return [WaveGated(rollout=state.uid, wave=state.wave)]
    passed = [] if state.wave_phase == WavePhase.PASSED else [WavePassed(rollout=state.uid, wave=state.wave)]
    return [*passed, *(finish(state, snapshot) if snapshot.has_ended else [])]


def is_nothing_to_watch(snapshot: Snapshot) -> bool:
    """Return True if every node has ended and none succeeded: a soak would watch nothing."""
    return snapshot.has_ended and not snapshot.counts.get(Phase.SUCCEEDED, 0)
