"""Commands of people: in which phases each is allowed, and its events. Pause, resume, promote, abort, roll back, retry."""

from collections.abc import Mapping

from rollout.domain.errors import (
    NotGatedError,
    NothingToRetryError,
    NothingToRollBackError,
    RollbackOfAdoptionError,
    RollbackOfRollbackError,
    RolloutFinalError,
    WrongPhaseError,
)
from rollout.domain.rollout.approval import decide_approval, refuse_own_approval
from rollout.domain.rollout.commands import (
    Abort,
    Approve,
    OperatorCommand,
    Pause,
    Promote,
    Reject,
    Resume,
    RetryNodes,
    RollBackAll,
)
from rollout.domain.rollout.events import (
    FINAL_ROLLOUT_PHASES,
    AbortRequested,
    NodesRetried,
    OneWayPromoted,
    RollbackRequested,
    RolloutEvent,
    RolloutPaused,
    RolloutPhase,
    RolloutResumed,
    RolloutStarted,
    WavePassed,
    WavePhase,
)
from rollout.domain.rollout.one_way import refuse_if_one_way
from rollout.domain.rollout.rollback import ROLLED_BACK_BY_A_NEW_ROLLOUT
from rollout.domain.rollout.state import RolloutState
from rollout.messages import Reason

_P = RolloutPhase
#: The phases in which each command has an effect.
ALLOWED: Mapping[type, frozenset[RolloutPhase]] = {
    Approve: frozenset({_P.PENDING_APPROVAL}),
    Reject: frozenset({_P.PENDING_APPROVAL}),
    Pause: frozenset({_P.PLANNED, _P.SCHEDULED, _P.RUNNING}),
    Resume: frozenset({_P.PAUSED}),
    Promote: frozenset({_P.RUNNING, _P.PAUSED}),
    Abort: frozenset({_P.PLANNED, _P.PENDING_APPROVAL, _P.SCHEDULED, _P.RUNNING, _P.PAUSED}),
    RollBackAll: frozenset({_P.RUNNING, _P.PAUSED}),
    RetryNodes: frozenset({_P.PLANNED, _P.SCHEDULED, _P.RUNNING, _P.PAUSED}),
}
#: The phases in which each command has nothing to do. In all other phases it is refused.
NOTHING_TO_DO_IN: Mapping[type, frozenset[RolloutPhase]] = {
    Approve: frozenset({_P.PLANNED, _P.SCHEDULED, _P.RUNNING}),
    Reject: frozenset({_P.REJECTED}),
    Pause: frozenset({_P.PAUSED}),
    Resume: frozenset({_P.PLANNED, _P.SCHEDULED, _P.RUNNING}),
    Promote: frozenset(),
    Abort: frozenset({_P.ABORTING, _P.ABORTED}),
    RollBackAll: ROLLED_BACK_BY_A_NEW_ROLLOUT | {_P.ROLLING_BACK, _P.ROLLED_BACK, _P.ROLLBACK_FAILED},
    RetryNodes: FINAL_ROLLOUT_PHASES - {_P.ROLLBACK_FAILED},
}
_VERBS = {
    Approve: "approve",
    Reject: "reject",
    Pause: "pause",
    Resume: "resume",
    Promote: "promote",
    Abort: "abort",
    RollBackAll: "roll back",
    RetryNodes: "retry",
}


def decide_for_operator(state: RolloutState, started: RolloutStarted, command: OperatorCommand) -> list[RolloutEvent]:
    _refuse_always(state, started, command)
    return [] if _is_done(state, command) else _events(state, command)


def _refuse_always(state: RolloutState, started: RolloutStarted, command: OperatorCommand) -> None:
    """Raise if no phase of this rollout would allow the command."""
    match command:
        case Approve():
            refuse_own_approval(command)
        case RollBackAll() if started.rollback_of:
            raise RollbackOfRollbackError
        case RollBackAll() if started.failback_of:
            raise NothingToRollBackError("A failback changes no module, so it has nothing to restore.")
        case RetryNodes() if started.failback_of and state.phase.is_final:
            raise NothingToRetryError(
                f"A failback is not retried. Fail back again after rollout {started.failback_of}."
            )
        case RollBackAll() if started.adopt:
            raise RollbackOfAdoptionError
        case RollBackAll():
            refuse_if_one_way(state)
        case RetryNodes() if state.phase == RolloutPhase.ROLLBACK_FAILED:
            raise WrongPhaseError(
                "A rollback is not retried. Operations that failed for a temporary reason are repeated when the nodes are "
                "back. For the other nodes, start a rollout of the version that they should have."
            )
        case RetryNodes(nodes=()) if state.phase.is_final or state.phase in ALLOWED[RetryNodes]:
            raise NothingToRetryError
        case _:
            pass


def _is_done(state: RolloutState, command: OperatorCommand) -> bool:
    """Raises: `RolloutFinalError`, `WrongPhaseError`."""
    kind = type(command)
    if state.phase in NOTHING_TO_DO_IN[kind] or (isinstance(command, Abort | Reject) and state.rejected):
        return True
    if state.phase.is_final:
        raise RolloutFinalError(f"The rollout has ended: {state.phase}.")
    if state.phase not in ALLOWED[kind]:
        allowed = ", ".join(sorted(ALLOWED[kind]))
        raise WrongPhaseError(
            f"You cannot {_VERBS[kind]} a rollout that is {state.phase}. It must be in one of the phases {allowed}."
        )
    return False


def _events(state: RolloutState, command: OperatorCommand) -> list[RolloutEvent]:
    match command:
        case Approve() | Reject():
            return decide_approval(command)
        case Pause(rollout=uid):
            return [RolloutPaused(rollout=uid, reason=Reason.MANUAL)]
        case Resume(rollout=uid, bad=bad):
            return [RolloutResumed(rollout=uid, forgiven=bad)]
        case Promote():
            return _promote(state, command)
        case Abort(rollout=uid):
            return [AbortRequested(rollout=uid)]
        case RollBackAll(rollout=uid):
            return [RollbackRequested(rollout=uid)]
        case RetryNodes(rollout=uid, nodes=nodes):
            return [NodesRetried(rollout=uid, nodes=nodes)]


def _promote(state: RolloutState, command: Promote) -> list[RolloutEvent]:
    if command.wave in {None, state.wave}:
        uid = command.rollout
        events: list[RolloutEvent] = [OneWayPromoted(rollout=uid)] if state.waits_for_promotion else []
        if state.wave_phase == WavePhase.GATED:
            events.append(WavePassed(rollout=uid, wave=state.wave))
        if events:
            return events
        if state.one_way_promoted and command.wave is None:
            return []
    passed = state.wave if state.wave_phase == WavePhase.PASSED else state.wave - 1
    if passed >= 0 and (command.wave is None or command.wave <= passed):
        return []  # it was promoted before
    meant = max(state.wave, 0) if command.wave is None else command.wave
    raise NotGatedError(
        f"The rollout does not wait at a gate after wave {meant}: wave {max(state.wave, 0)} is {state.wave_phase}."
    )
