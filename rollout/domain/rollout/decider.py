"""The rules of one rollout: its waves, its thresholds, the verbs, and how it ends. Only `Advance` moves it on.

Waves come one after the other. A wave is running until all its nodes have ended, then soaks, then may wait at a gate,
and has passed. Failures are judged before anything else, so nothing is released once there are too many of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from eventstore import Decider
from rollout.domain.errors import (
    NotGatedError,
    NothingToRetryError,
    NothingToRollBackError,
    RollbackOfRollbackError,
    RolloutFinalError,
    RolloutNotFoundError,
    SecondPersonError,
    WrongPhaseError,
)
from rollout.domain.rollout.events import (
    FINAL_ROLLOUT_PHASES,
    AbortRequested,
    LeftAlone,
    NodesReleased,
    NodesRetried,
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
from rollout.domain.strategy import Gate, OnFailure, Strategy
from rollout.messages import FINAL_PHASES, Phase, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutState:
    """`started` is None until the rollout exists. `wave`: the newest that was started, -1 before the first.
    `forgiven`: failures, by wave, that a person has accepted by resuming. `ending`: why it is being aborted, rolled
    back or was paused. `restoring`: every node is being given back what it had."""

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

    @property
    def strategy(self) -> Strategy:
        return Strategy() if self.started is None else self.started.strategy

    @property
    def nodes(self) -> int:
        """How many nodes every share is a share of: those that are not skipped from the start."""
        return 0 if self.started is None else sum(self.started.waves)

    @property
    def is_last_wave(self) -> bool:
        return self.started is not None and self.wave >= len(self.started.waves) - 1

    @property
    def next_wave(self) -> int | None:
        """The wave that may start now, None while one is under way or when there is none left."""
        if self.started is None or self.wave_phase not in {WavePhase.PENDING, WavePhase.PASSED}:
            return None
        return self.wave + 1 if self.wave + 1 < len(self.started.waves) else None

    @property
    def open_wave(self) -> int:
        """Nodes of the waves up to this one may be released."""
        return self.wave if self.next_wave is None else self.next_wave


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How the nodes of one wave stand. `failed` are those that failed or timed out and are not tried again by
    themselves, `lost` those that had succeeded and are offline or have drifted since."""

    total: int
    ended: int
    failed: int = 0
    lost: int = 0

    @property
    def bad(self) -> int:
        return self.failed + self.lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A node that may be released. One that has failed already costs no health."""

    node: str
    is_healthy: bool = True


class Hold(StrEnum):
    """What keeps a rollout from going on that is none of its nodes."""

    APPROVAL = "approval"
    START_AT = "start_at"
    NEEDS = "needs"
    SOAK = "soak"
    GATE = "gate"
    FROZEN = "frozen"


#: What an end says where nothing was done.
ALL_CALLED_OFF = "A person has canceled it on all nodes that are left."
#: So many nodes and rollouts are named in a sentence.
MOST_NAMED = 5
#: Those that come before anything else: nothing that has gone wrong is looked at before they are met.
_BEFORE_START = frozenset({Hold.APPROVAL, Hold.START_AT, Hold.NEEDS})


class Needs(StrEnum):
    """How the rollouts stand that have to succeed first."""

    MET = "met"
    PENDING = "pending"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """How the rollout's operations stand at `now`, by the database's clock.

    `ready`, `offline` and `retriable` are of the waves up to the open one, and of all once the nodes are given back what
    they had: nodes that may be released, in order; scheduled ones that are offline; failed ones that are worth another
    attempt, with the number of attempts so far. `healthy`: nodes that are online, not in hand and have not failed.
    `to_restore`: nodes that have what it brought, or where its attempt was the last; `left_alone`: those where a newer
    rollout came after it. `scheduled`, `cancelable`: all that have not been released, and that are in hand and were not
    asked to give up; looked up only while it is coming to its end.
    `superseded`: canceled ones that a newer rollout has taken over. `gone`: canceled ones whose node has left the fleet;
    `called_off`: those that a person has canceled; both looked up once all have ended. `unrestored`: nodes that could not
    be given back what they had. `progressed_at`: last success, or when the clock was last started. `wake_at`: when the
    next scheduled node has waited long enough.
    """

    now: datetime
    counts: Mapping[Phase, int]
    waves: Sequence[Tally] = ()
    ready: tuple[Ready, ...] = ()
    offline: tuple[str, ...] = ()
    retriable: tuple[tuple[str, int], ...] = ()
    healthy: int = 0
    to_restore: tuple[str, ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()
    scheduled: tuple[str, ...] = ()
    cancelable: tuple[str, ...] = ()
    superseded: int = 0
    gone: int = 0
    called_off: int = 0
    unrestored: int = 0
    progressed_at: datetime | None = None
    wake_at: datetime | None = None
    needs: Needs = Needs.MET
    frozen: bool = False

    @property
    def in_hand(self) -> int:
        """Nodes that were released and have not ended."""
        return self.total - self.counts.get(Phase.SCHEDULED, 0) - self.ended

    @property
    def ended(self) -> int:
        return sum(self.counts.get(phase, 0) for phase in FINAL_PHASES)

    @property
    def total(self) -> int:
        return sum(self.counts.values())


# --- Commands ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    started: RolloutStarted


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """`by_another`: another person approves it than the one who started it."""

    rollout: str
    remark: str
    by_another: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    rollout: str
    remark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    rollout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """`bad`: by wave, the failures that the person accepts."""

    rollout: str
    bad: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote:
    """`wave`: the one whose gate is meant; None for the one that is gated."""

    rollout: str
    wave: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    rollout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RollBackAll:
    """Nothing if the rollout has ended and may be rolled back by a rollout of its own: see `ROLLED_BACK_ANEW`."""

    rollout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryNodes:
    """Nothing if the rollout has ended and its nodes may be tried again by a rollout of its own."""

    rollout: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    rollout: str
    fleet: Fleet


RolloutCommand = Start | Approve | Reject | Pause | Resume | Promote | Abort | RollBackAll | RetryNodes | Advance

_P = RolloutPhase
#: A rollout that ended so is taken back by a rollout of its own.
ROLLED_BACK_ANEW = frozenset({_P.SUCCEEDED, _P.COMPLETED_WITH_FAILURES, _P.FAILED, _P.ABORTED, _P.SUPERSEDED})
#: In which phases each verb does something; in `DONE` it has nothing to do, in any other it is refused.
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
DONE: Mapping[type, frozenset[RolloutPhase]] = {
    Approve: frozenset({_P.PLANNED, _P.SCHEDULED, _P.RUNNING}),
    Reject: frozenset({_P.REJECTED}),
    Pause: frozenset({_P.PAUSED}),
    Resume: frozenset({_P.PLANNED, _P.SCHEDULED, _P.RUNNING}),
    Promote: frozenset(),
    Abort: frozenset({_P.ABORTING, _P.ABORTED}),
    RollBackAll: ROLLED_BACK_ANEW | {_P.ROLLING_BACK, _P.ROLLED_BACK, _P.ROLLBACK_FAILED},
    RetryNodes: FINAL_ROLLOUT_PHASES - {_P.ROLLBACK_FAILED},
}
_WORDS = {
    Approve: "approve",
    Reject: "reject",
    Pause: "pause",
    Resume: "resume",
    Promote: "promote",
    Abort: "abort",
    RollBackAll: "roll back",
    RetryNodes: "retry",
}


# --- Decisions --------------------------------------------------------------------------------------------------------


def decide(state: RolloutState, command: RolloutCommand) -> list[RolloutEvent]:
    if isinstance(command, Start):
        return [] if state.started else _start(command.started)
    if state.started is None:
        raise RolloutNotFoundError
    if isinstance(command, Advance):
        return [] if state.phase.is_final else _advance(state, command.rollout, command.fleet)
    _refuse(state, state.started, command)
    return [] if _is_done(state, command) else _obey(state, command)


def _start(started: RolloutStarted) -> list[RolloutEvent]:
    if started.rollback_of and not started.total:
        words = left_alone_in_words(started.left_alone)
        raise NothingToRollBackError(f"Nothing is left to roll back. {words}") if words else NothingToRollBackError
    return [started]


def left_alone_in_words(left: Sequence[LeftAlone]) -> str:
    """A sentence that names some of the nodes and the rollouts; empty if there are none."""
    if not left:
        return ""
    groups = [f"{_some(each.nodes)} by rollout {each.rollout}" for each in left[:MOST_NAMED]]
    if (more := len(left) - MOST_NAMED) > 0:
        groups.append(f"others by {more} more rollouts")
    return f"Left alone, because they were changed since or are about to be: {'; '.join(groups)}."


def _some(nodes: Sequence[str]) -> str:
    more = len(nodes) - MOST_NAMED
    return ", ".join(nodes[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


Verb = Approve | Reject | Pause | Resume | Promote | Abort | RollBackAll | RetryNodes


def _refuse(state: RolloutState, started: RolloutStarted, command: Verb) -> None:
    """Raises what no phase of the rollout would change."""
    match command:
        case Approve(by_another=False):
            raise SecondPersonError
        case RollBackAll() if started.rollback_of:
            raise RollbackOfRollbackError
        case RetryNodes() if state.phase == RolloutPhase.ROLLBACK_FAILED:
            raise WrongPhaseError(
                "A rollback is not retried. What has failed for a passing reason is repeated once the nodes are back; "
                "for the rest start a rollout of the version that they are to have."
            )
        case RetryNodes(nodes=()) if state.phase.is_final or state.phase in ALLOWED[RetryNodes]:
            raise NothingToRetryError
        case _:
            pass


def _is_done(state: RolloutState, command: Verb) -> bool:
    """Raises: `RolloutFinalError`, `WrongPhaseError`."""
    kind = type(command)
    if state.phase in DONE[kind] or (isinstance(command, Abort | Reject) and state.rejected):
        return True
    if state.phase.is_final:
        raise RolloutFinalError(f"The rollout has ended: {state.phase}.")
    if state.phase not in ALLOWED[kind]:
        allowed = ", ".join(sorted(ALLOWED[kind]))
        raise WrongPhaseError(
            f"A rollout that is {state.phase} cannot be asked to {_WORDS[kind]}; one that is {allowed} can."
        )
    return False


def _obey(state: RolloutState, command: Verb) -> list[RolloutEvent]:
    match command:
        case Approve(rollout=uid, remark=remark):
            return [RolloutApproved(rollout=uid, remark=remark)]
        case Reject(rollout=uid, remark=remark):
            return [RolloutRejected(rollout=uid, remark=remark)]
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
    is_gated = state.wave_phase == WavePhase.GATED
    if is_gated and command.wave in {None, state.wave}:
        return [WavePassed(rollout=command.rollout, wave=state.wave)]
    passed = state.wave if state.wave_phase == WavePhase.PASSED else state.wave - 1
    if passed >= 0 and (command.wave is None or command.wave <= passed):
        return []  # it was promoted before
    meant = max(state.wave, 0) if command.wave is None else command.wave
    raise NotGatedError(f"It waits at no gate after wave {meant}: wave {max(state.wave, 0)} is {state.wave_phase}.")


def _advance(state: RolloutState, uid: str, fleet: Fleet) -> list[RolloutEvent]:
    match state.phase:
        case RolloutPhase.ABORTING:
            return _finished(state, uid, fleet) if fleet.ended == fleet.total else []
        case RolloutPhase.ROLLING_BACK:
            return _restore(state, uid, fleet)
        case RolloutPhase.PAUSED:
            return _finished(state, uid, fleet) if _is_over(state, fleet) else []
        case _ if fleet.ended == fleet.total and state.wave < 0:
            return _finished(state, uid, fleet)  # before anything was done; also a rollout without any nodes
        case _ if held(state, fleet) in _BEFORE_START:
            return []
        case _ if fleet.needs == Needs.FAILED:
            message = "A module that this one needs could not be installed everywhere."
            return [AbortRequested(rollout=uid, reason=Reason.MISSING_DEPENDENCY, message=message)]
    return _advance_waves(state, uid, fleet)


def _is_over(state: RolloutState, fleet: Fleet) -> bool:
    """Whether nothing is left for which somebody might resume: what a person has paused stays so, unless a newer
    rollout has taken it over."""
    to_soak = state.wave_phase == WavePhase.RUNNING and state.strategy.soak_seconds and not _is_moot(fleet)
    is_watched = state.wave_phase == WavePhase.SOAKING or to_soak or any(each.lost for each in fleet.waves)
    by_person = state.reason == Reason.MANUAL and not fleet.superseded
    return fleet.ended == fleet.total and not is_watched and not by_person


def is_due(state: RolloutState, fleet: Fleet) -> bool:
    """Whether `start_at` has passed."""
    start_at = state.strategy.start_at
    return start_at is None or start_at <= fleet.now


def held(state: RolloutState, fleet: Fleet) -> Hold | None:
    """What keeps a rollout that nobody has paused or ended from its next step, None if at most its nodes do."""
    if state.phase == RolloutPhase.PENDING_APPROVAL:
        return Hold.APPROVAL
    if not is_due(state, fleet):
        return Hold.START_AT
    if fleet.needs == Needs.PENDING:
        return Hold.NEEDS
    if state.wave_phase == WavePhase.SOAKING and state.soak_until is not None and fleet.now < state.soak_until:
        return Hold.SOAK
    if state.wave_phase == WavePhase.GATED:
        return Hold.GATE
    return Hold.FROZEN if fleet.frozen else None


def _advance_waves(state: RolloutState, uid: str, fleet: Fleet) -> list[RolloutEvent]:
    if fleet.retriable:
        return [NodesRetried(rollout=uid, nodes=tuple(node for node, _ in fleet.retriable), automatic=True)]
    if (trip := tripped(state, fleet)) is not None:
        return _stopped(state, uid, fleet, *trip)
    if (wave := state.next_wave) is not None:
        if held(state, fleet) == Hold.FROZEN:
            return []
        return [WaveStarted(rollout=uid, wave=wave), *_released(state, uid, fleet)]
    if any(each.ended < each.total for each in fleet.waves[: state.wave + 1]):
        return _released(state, uid, fleet)
    return _closed(state, uid, fleet)


def _released(state: RolloutState, uid: str, fleet: Fleet) -> list[RolloutEvent]:
    nodes = released_now(state, fleet)
    return [NodesReleased(rollout=uid, nodes=nodes)] if nodes else []


def released_now(state: RolloutState, fleet: Fleet) -> tuple[str, ...]:
    """The first of the ready nodes: as many as `max_parallel` and `min_healthy` leave room for."""
    if fleet.frozen:
        return ()
    slots, spare = free_slots(state, fleet), spare_nodes(state, fleet)
    chosen: list[str] = []
    for each in fleet.ready:
        if len(chosen) == slots:
            break
        if each.is_healthy and spare <= 0:
            continue
        chosen.append(each.node)
        spare -= each.is_healthy
    return tuple(chosen)


def free_slots(state: RolloutState, fleet: Fleet) -> int:
    """How many nodes more `max_parallel` allows to be in hand."""
    return max(0, state.strategy.parallel(state.nodes) - fleet.in_hand)


def spare_nodes(state: RolloutState, fleet: Fleet) -> int:
    """How many healthy nodes `min_healthy` allows to be released."""
    kept = state.strategy.kept_healthy(state.nodes)
    return fleet.healthy - kept if kept else free_slots(state, fleet)


def tripped(state: RolloutState, fleet: Fleet) -> tuple[Reason, str] | None:
    """Why the rollout has to stop: too many failures in a wave or over all, or no success for too long."""
    if state.wave < 0:
        return None
    strategy = state.strategy
    bad = [max(0, tally.bad - forgiven) for tally, forgiven in zip(fleet.waves, _forgiven(state, fleet), strict=True)]
    for wave, count in enumerate(bad):
        if count > (allowed := strategy.tolerated(fleet.waves[wave].total)):
            return Reason.ERROR_THRESHOLD, _too_many(f"of wave {wave}", count, allowed, fleet.waves[wave])
    if sum(bad) > (allowed := strategy.tolerated(state.nodes)):
        return Reason.ERROR_THRESHOLD, _too_many("in all", sum(bad), allowed, None)
    deadline = progress_deadline(state, fleet)
    if deadline is not None and deadline <= fleet.now:
        return (
            Reason.PROGRESS_DEADLINE,
            f"No node has succeeded for {strategy.progress_deadline_seconds:g} s, and wave {state.wave} is not through.",
        )
    return None


def _forgiven(state: RolloutState, fleet: Fleet) -> Sequence[int]:
    return (*state.forgiven, *[0] * (len(fleet.waves) - len(state.forgiven)))[: len(fleet.waves)]


def _too_many(where: str, count: int, allowed: int, tally: Tally | None) -> str:
    nodes = "1 node" if count == 1 else f"{count} nodes"
    lost = f", {tally.lost} of them after they had succeeded" if tally is not None and tally.lost else ""
    return f"{nodes} {where} failed{lost}; max_failures accepts {allowed}."


def progress_deadline(state: RolloutState, fleet: Fleet) -> datetime | None:
    """When the lack of any success stops the rollout; None while that clock stands."""
    is_waiting = state.phase == RolloutPhase.RUNNING and state.wave >= 0
    if fleet.frozen or fleet.progressed_at is None or not (is_waiting or state.restoring):
        return None
    if all(each.ended == each.total for each in fleet.waves[: state.wave + 1]) and not state.restoring:
        return None
    return fleet.progressed_at + timedelta(seconds=state.strategy.progress_deadline_seconds)


def _stopped(state: RolloutState, uid: str, fleet: Fleet, reason: Reason, message: str) -> list[RolloutEvent]:
    """The wave has failed, and what the strategy says then. There is nothing to pause once every node has ended, unless
    some were lost: a person may still want to roll those back."""
    failed = WaveFailed(rollout=uid, wave=state.wave, reason=reason, message=message)
    if state.strategy.on_failure == OnFailure.ROLLBACK:
        return [failed, RollbackRequested(rollout=uid, reason=reason, message=message)]
    if fleet.ended == fleet.total and not any(each.lost for each in fleet.waves):
        return [failed, _end(uid, _outcome(fleet), reason, message)]
    if state.strategy.on_failure == OnFailure.ABORT:
        return [failed, AbortRequested(rollout=uid, reason=reason, message=message)]
    return [failed, RolloutPaused(rollout=uid, reason=reason, message=message)]


def _closed(state: RolloutState, uid: str, fleet: Fleet) -> list[RolloutEvent]:
    """What comes after all nodes of the wave have ended: the soak, the gate, the end."""
    seconds = state.strategy.soak_seconds
    if state.wave_phase == WavePhase.RUNNING and seconds and not _is_moot(fleet):
        until = fleet.now + timedelta(seconds=seconds)
        return [WaveSoaking(rollout=uid, wave=state.wave, until=until)]
    if held(state, fleet) == Hold.SOAK or (held(state, fleet) == Hold.GATE and fleet.ended < fleet.total):
        return []
    if state.strategy.gate == Gate.MANUAL and fleet.ended < fleet.total and state.wave_phase != WavePhase.PASSED:
        return [WaveGated(rollout=uid, wave=state.wave)]
    passed = [] if state.wave_phase == WavePhase.PASSED else [WavePassed(rollout=uid, wave=state.wave)]
    return [*passed, *(_finished(state, uid, fleet) if fleet.ended == fleet.total else [])]


def _is_moot(fleet: Fleet) -> bool:
    """Whether nothing was done in the wave that could be watched, and nothing is to come: all of it was taken over."""
    return fleet.ended == fleet.total and not fleet.counts.get(Phase.SUCCEEDED, 0)


def _restore(state: RolloutState, uid: str, fleet: Fleet) -> list[RolloutEvent]:
    if not state.restoring:
        if fleet.ended < fleet.total:
            return []
        if fleet.to_restore or fleet.left_alone:
            begun = RollbackStarted(rollout=uid, nodes=fleet.to_restore, left_alone=fleet.left_alone)
            return [] if fleet.frozen else [begun]
    if fleet.ended == fleet.total:
        return _finished(state, uid, fleet)
    if fleet.retriable:
        return [NodesRetried(rollout=uid, nodes=tuple(node for node, _ in fleet.retriable), automatic=True)]
    return _released(state, uid, fleet)


def _finished(state: RolloutState, uid: str, fleet: Fleet) -> list[RolloutEvent]:
    if state.rejected:
        return [_end(uid, RolloutPhase.REJECTED, Reason.MANUAL, state.message)]
    if state.phase == RolloutPhase.ABORTING:
        return [_end(uid, RolloutPhase.ABORTED, state.reason, state.message)]
    if state.phase == RolloutPhase.ROLLING_BACK:
        return [_rolled_back(state, uid, fleet)]
    phase = _outcome(fleet)
    if phase in {RolloutPhase.ABORTED, RolloutPhase.SUPERSEDED}:
        return [_nothing_done(uid, fleet)]
    if phase == RolloutPhase.SUCCEEDED:
        return [_end(uid, phase, None, "")]
    return [_end(uid, phase, state.reason, state.message)]


def _rolled_back(state: RolloutState, uid: str, fleet: Fleet) -> RolloutFinished:
    """An undo that was canceled is no failure, unless nothing at all was given back."""
    if fleet.unrestored:
        return _end(uid, RolloutPhase.ROLLBACK_FAILED, state.reason, state.message)
    is_own = state.started is not None and state.started.rollback_of
    if state.restoring and not fleet.counts.get(Phase.ROLLED_BACK, 0):
        if fleet.superseded or (is_own and (fleet.called_off or fleet.gone)):
            return _nothing_done(uid, fleet)
        if fleet.called_off:
            return _end(uid, RolloutPhase.ROLLBACK_FAILED, None, ALL_CALLED_OFF)
    return _end(uid, RolloutPhase.ROLLED_BACK, state.reason, state.message)


def _nothing_done(uid: str, fleet: Fleet) -> RolloutFinished:
    """Its nodes were taken over or canceled, or have left the fleet."""
    if fleet.superseded:
        return _end(uid, RolloutPhase.SUPERSEDED, Reason.NEWER_ROLLOUT, "")
    if fleet.called_off:
        return _end(uid, RolloutPhase.ABORTED, None, ALL_CALLED_OFF)
    return _end(uid, RolloutPhase.ABORTED, Reason.NODE_DECOMMISSIONED, "All of its nodes have left the fleet.")


def _outcome(fleet: Fleet) -> RolloutPhase:
    """A node that has left the fleet before its turn was over counts for nothing, and so does one that a person has
    canceled; if that is all of them, nothing was done."""
    good = fleet.counts.get(Phase.SUCCEEDED, 0) + fleet.counts.get(Phase.SKIPPED, 0)
    there = fleet.total - fleet.gone - fleet.called_off
    if fleet.total and not there:
        return RolloutPhase.ABORTED
    if good == there:
        return RolloutPhase.SUCCEEDED
    if good + fleet.superseded == there:
        return RolloutPhase.SUPERSEDED
    return RolloutPhase.COMPLETED_WITH_FAILURES if good else RolloutPhase.FAILED


def _end(uid: str, phase: RolloutPhase, reason: Reason | None, message: str) -> RolloutFinished:
    return RolloutFinished(rollout=uid, phase=phase, reason=reason, message=message)


def wake_at(state: RolloutState, fleet: Fleet) -> datetime | None:
    """When something is due that no event will announce; None if nothing is."""
    moments: list[datetime | None] = [progress_deadline(state, fleet), fleet.wake_at]
    if state.wave_phase == WavePhase.SOAKING and state.phase == RolloutPhase.RUNNING:
        moments.append(state.soak_until)
    if state.wave < 0:
        moments.append(state.strategy.start_at)
    return min((each for each in moments if each is not None and each > fleet.now), default=None)


# --- What has happened ------------------------------------------------------------------------------------------------


def evolve(state: RolloutState, event: RolloutEvent) -> RolloutState:
    match event:
        case RolloutStarted():
            return _evolve_started(event)
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
        case NodesReleased() | RolloutFollowed():
            return state


def _evolve_started(event: RolloutStarted) -> RolloutState:
    if event.rollback_of:
        return RolloutState(started=event, phase=RolloutPhase.ROLLING_BACK, reason=Reason.MANUAL, restoring=True)
    phase = RolloutPhase.PENDING_APPROVAL if event.strategy.approval else _phase_before_start(event.strategy)
    return RolloutState(started=event, phase=phase)


def _phase_before_start(strategy: Strategy) -> RolloutPhase:
    return RolloutPhase.PLANNED if strategy.start_at is None else RolloutPhase.SCHEDULED


ROLLOUT = Decider(RolloutState(), decide, evolve)
