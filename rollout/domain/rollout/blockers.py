"""What blocks a rollout as a whole: approval, `start_at`, dependencies, soak, gate, a one-way change, freeze."""

from enum import StrEnum

from rollout.domain.rollout.events import RolloutPhase, WavePhase
from rollout.domain.rollout.snapshot import Needs, Snapshot
from rollout.domain.rollout.state import RolloutState


class Blocker(StrEnum):
    APPROVAL = "approval"
    START_AT = "start_at"
    NEEDS = "needs"
    SOAK = "soak"
    GATE = "gate"
    ONE_WAY = "one_way"
    FROZEN = "frozen"


#: Blockers before the start: failures are judged only after these.
BEFORE_START = frozenset({Blocker.APPROVAL, Blocker.START_AT, Blocker.NEEDS})


def blocked_by(state: RolloutState, snapshot: Snapshot) -> Blocker | None:
    """Return what blocks the next step of a rollout that is neither paused nor ending. None if at most its nodes do."""
    if state.phase == RolloutPhase.PENDING_APPROVAL:
        return Blocker.APPROVAL
    if not is_start_due(state, snapshot):
        return Blocker.START_AT
    if snapshot.needs == Needs.PENDING:
        return Blocker.NEEDS
    if state.wave_phase == WavePhase.SOAKING and state.soak_until is not None and snapshot.now < state.soak_until:
        return Blocker.SOAK
    if state.wave_phase == WavePhase.GATED:
        return Blocker.GATE
    if state.waits_for_promotion and not snapshot.has_ended:
        return Blocker.ONE_WAY
    return Blocker.FROZEN if snapshot.frozen else None


def is_start_due(state: RolloutState, snapshot: Snapshot) -> bool:
    """Return True unless the strategy's `start_at` is in the future."""
    start_at = state.strategy.start_at
    return start_at is None or start_at <= snapshot.now
