"""The rules of one rollout: what is released next, and how it ends. Only `Advance` moves it on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from eventstore.decider import Decider
from rollout.errors import RolloutFinalError, RolloutNotFoundError
from rollout.events import (
    AbortRequested,
    NodesReleased,
    NodesRetried,
    RolloutEvent,
    RolloutFinished,
    RolloutPhase,
    RolloutStarted,
)
from rollout.messages import FINAL_PHASES, Phase, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutState:
    """`started` is None until the rollout exists."""

    started: RolloutStarted | None = None
    phase: RolloutPhase = RolloutPhase.RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """How the rollout's operations stand. `ready` are nodes that may be released now, in order;
    `superseded` is how many of the canceled ones a newer rollout has taken over."""

    counts: Mapping[Phase, int]
    ready: tuple[str, ...] = ()
    superseded: int = 0

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    started: RolloutStarted


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    rollout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryNodes:
    rollout: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    rollout: str
    fleet: Fleet


RolloutCommand = Start | Abort | RetryNodes | Advance


def decide(state: RolloutState, command: RolloutCommand) -> list[RolloutEvent]:
    match command:
        case Start(started=started):
            return [] if state.started else [started]
        case _ if state.started is None:
            raise RolloutNotFoundError
        case Abort(rollout=uid):
            if state.phase in {RolloutPhase.ABORTING, RolloutPhase.ABORTED}:
                return []
            if state.phase.is_final:
                raise RolloutFinalError(f"The rollout has ended: {state.phase}.")
            return [AbortRequested(rollout=uid)]
        case RetryNodes(rollout=uid, nodes=nodes):
            if state.phase.is_final:
                raise RolloutFinalError(f"The rollout has ended: {state.phase}.")
            if state.phase == RolloutPhase.ABORTING:
                raise RolloutFinalError("The rollout is being aborted. Retry it once it has ended.")
            return [NodesRetried(rollout=uid, nodes=nodes)] if nodes else []
        case Advance(rollout=uid, fleet=fleet):
            return [] if state.phase.is_final else _advance(state.started, state.phase, uid, fleet)


def _advance(started: RolloutStarted, phase: RolloutPhase, uid: str, fleet: Fleet) -> list[RolloutEvent]:
    if fleet.ended == fleet.total:
        outcome, reason = _outcome(phase, fleet)
        return [RolloutFinished(rollout=uid, phase=outcome, reason=reason)]
    if phase == RolloutPhase.ABORTING:
        return []
    free = started.strategy.max_parallel - fleet.in_hand
    nodes = fleet.ready[: max(free, 0)]
    return [NodesReleased(rollout=uid, nodes=nodes)] if nodes else []


def _outcome(phase: RolloutPhase, fleet: Fleet) -> tuple[RolloutPhase, Reason | None]:
    if phase == RolloutPhase.ABORTING:
        return RolloutPhase.ABORTED, Reason.MANUAL
    good = fleet.counts.get(Phase.SUCCEEDED, 0) + fleet.counts.get(Phase.SKIPPED, 0)
    if good == fleet.total:
        return RolloutPhase.SUCCEEDED, None
    if good + fleet.superseded == fleet.total:
        return RolloutPhase.SUPERSEDED, Reason.NEWER_ROLLOUT
    return (RolloutPhase.COMPLETED_WITH_FAILURES if good else RolloutPhase.FAILED), None


def evolve(state: RolloutState, event: RolloutEvent) -> RolloutState:
    match event:
        case RolloutStarted():
            return RolloutState(started=event)
        case AbortRequested():
            return replace(state, phase=RolloutPhase.ABORTING)
        case RolloutFinished():
            return replace(state, phase=event.phase)
        case NodesReleased() | NodesRetried():
            return state


ROLLOUT = Decider(RolloutState(), decide, evolve)
