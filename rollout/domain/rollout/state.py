"""The state of one rollout, and how each event changes it. `projections.rollouts` stores the state as JSON.

The field names and their order are stored too: do not change them.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from rollout.domain.rollout.events import (
    AbortRequested,
    NodesReleased,
    NodesRetried,
    OneWayFound,
    OneWayPromoted,
    ProgressDeadlineExtended,
    RollbackRequested,
    RollbackStarted,
    RolloutApproved,
    RolloutEvent,
    RolloutFinished,
    RolloutFollowed,
    RolloutPaused,
    RolloutPhase,
    RolloutRejected,
    RolloutResumed,
    RolloutStarted,
    WaveFailed,
    WaveGated,
    WavePassed,
    WavePhase,
    WaveSoaking,
    WaveStarted,
)
from rollout.domain.strategy import Strategy
from rollout.messages import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutState:
    """`started` is None until the rollout exists. `wave`: the newest wave that has started, -1 before the first.

    `forgiven`: failed nodes that a person accepted by resuming, by wave. `reason` and `message`: why the rollout was
    paused, is aborted or rolled back, or has ended. `rejected`: a person refused to approve it. `restoring`: its nodes
    are being restored. `one_way`: the first node whose former version cannot read what the new one writes, or where that is not
    known; `one_way_promoted`: a person has accepted that.
    """

    started: RolloutStarted | None = None
    phase: RolloutPhase = RolloutPhase.PLANNED
    wave: int = -1
    wave_phase: WavePhase = WavePhase.PENDING
    soak_until: datetime | None = None
    forgiven: tuple[int, ...] = ()
    reason: Reason | None = None
    message: str = ""
    rejected: bool = False
    restoring: bool = False
    one_way: OneWayFound | None = None
    one_way_promoted: bool = False

    @property
    def uid(self) -> str:
        return "" if self.started is None else self.started.rollout

    @property
    def waits_for_promotion(self) -> bool:
        """True while a one-way change waits until a person accepts that there is no rollback."""
        return self.one_way is not None and not self.one_way_promoted

    @property
    def strategy(self) -> Strategy:
        return Strategy() if self.started is None else self.started.strategy

    @property
    def nodes(self) -> int:
        """The number of nodes that percentages of the strategy refer to: all that are not skipped from the start."""
        return 0 if self.started is None else sum(self.started.waves)

    @property
    def next_wave(self) -> int | None:
        """The wave that may start now. None while another wave is in progress, and after the last wave."""
        if self.started is None or self.wave_phase not in {WavePhase.PENDING, WavePhase.PASSED}:
            return None
        return self.wave + 1 if self.wave + 1 < len(self.started.waves) else None

    @property
    def open_wave(self) -> int:
        """The last wave whose nodes may be released."""
        return self.wave if self.next_wave is None else self.next_wave


def evolve(state: RolloutState, event: RolloutEvent) -> RolloutState:
    match event:
        case RolloutStarted():
            return _started(event)
        case RolloutApproved():
            return replace(state, phase=_phase_before_start(state.strategy))
        case RolloutRejected():
            return replace(state, phase=RolloutPhase.ABORTING, rejected=True, message=event.remark)
        case WaveStarted():
            return replace(
                state, phase=RolloutPhase.RUNNING, wave=event.wave, wave_phase=WavePhase.RUNNING, soak_until=None
            )
        case WaveSoaking():
            return replace(state, wave_phase=WavePhase.SOAKING, soak_until=event.until)
        case WaveGated():
            return replace(state, wave_phase=WavePhase.GATED)
        case OneWayFound():
            return replace(state, one_way=event)
        case OneWayPromoted():
            return replace(state, one_way_promoted=True)
        case WavePassed():
            return replace(state, wave_phase=WavePhase.PASSED)
        case WaveFailed():
            return state
        case RolloutPaused():
            return replace(state, phase=RolloutPhase.PAUSED, reason=event.reason, message=event.message)
        case RolloutResumed():
            phase = RolloutPhase.RUNNING if state.wave >= 0 else _phase_before_start(state.strategy)
            return replace(state, phase=phase, reason=None, message="", forgiven=event.forgiven)
        case AbortRequested():
            return replace(state, phase=RolloutPhase.ABORTING, reason=event.reason, message=event.message)
        case RollbackRequested():
            return replace(state, phase=RolloutPhase.ROLLING_BACK, reason=event.reason, message=event.message)
        case RollbackStarted():
            return replace(state, restoring=True)
        case RolloutFinished():
            return replace(state, phase=event.phase, reason=event.reason, message=event.message)
        case NodesRetried():
            return state if event.automatic else replace(state, forgiven=())
        case NodesReleased() | ProgressDeadlineExtended() | RolloutFollowed():
            return state


def _started(event: RolloutStarted) -> RolloutState:
    if event.rollback_of:
        return RolloutState(started=event, phase=RolloutPhase.ROLLING_BACK, reason=Reason.MANUAL, restoring=True)
    phase = RolloutPhase.PENDING_APPROVAL if event.strategy.approval else _phase_before_start(event.strategy)
    return RolloutState(started=event, phase=phase)


def _phase_before_start(strategy: Strategy) -> RolloutPhase:
    return RolloutPhase.PLANNED if strategy.start_at is None else RolloutPhase.SCHEDULED
