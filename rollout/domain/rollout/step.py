"""One step of a rollout: what is recorded of it, and what becomes of its operations. Pure, so that a simulation takes
the very steps that `rollout.process.advance` takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from rollout.domain.placement.decider import (
    Cancel,
    End,
    PlacementCommand,
    RecordReport,
    RejectReport,
    Release,
    Retry,
    RollBack,
)
from rollout.domain.rollout.decider import ROLLOUT, Advance, Fleet, RolloutState, decide, progress_deadline, wake_at
from rollout.domain.rollout.events import (
    NodesReleased,
    NodesRetried,
    RollbackStarted,
    RolloutEvent,
    RolloutPhase,
    RolloutStarted,
)
from rollout.domain.strategy import Offline, OnAbort
from rollout.messages import Phase, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`wake_at`: when another step is due though nothing has been recorded in between, None if never."""

    events: Sequence[RolloutEvent]
    commands: Sequence[PlacementCommand]
    wake_at: datetime | None

    @property
    def nodes(self) -> frozenset[str]:
        """Those to which it does something."""
        return frozenset(each.node for each in self.commands if not isinstance(each, RecordReport | RejectReport))


def step(state: RolloutState, started: RolloutStarted, fleet: Fleet) -> Step:
    """The next step of the rollout in `state`, which began with `started` and has not ended."""
    uid, module_name = started.rollout, started.module_name
    events = decide(state, Advance(rollout=uid, fleet=fleet))
    commands = [
        command for event in events for command in _following(state, event, dict(fleet.retriable), uid, module_name)
    ]
    if not events:
        commands += _endings(state, fleet, uid, module_name)
    return Step(events=events, commands=commands, wake_at=wake_at(ROLLOUT.fold(events, state), fleet))


def _following(
    state: RolloutState, event: RolloutEvent, attempts: dict[str, int], uid: str, module_name: str
) -> Iterator[PlacementCommand]:
    """What an event means to the nodes that it names."""
    match event:
        case NodesReleased(nodes=nodes):
            for node in nodes:
                yield Release(rollout=uid, node=node, module_name=module_name)
        case NodesRetried(nodes=nodes, automatic=True):
            for node in nodes:
                delay = state.strategy.retries.delay_seconds(attempts[node], key=f"{uid}:{node}")
                yield Retry(rollout=uid, node=node, module_name=module_name, delay_seconds=delay)
        case RollbackStarted(nodes=nodes):
            for node in nodes:
                yield RollBack(rollout=uid, node=node, module_name=module_name, into=uid)
        case _:
            pass


def _endings(state: RolloutState, fleet: Fleet, uid: str, module_name: str) -> list[PlacementCommand]:
    """Operations that end, or are asked to, because of the rollout's phase: they need no event of its own."""
    if state.restoring:
        return [] if fleet.frozen else _given_up(state, fleet, uid, module_name)
    if state.phase in {RolloutPhase.ABORTING, RolloutPhase.ROLLING_BACK}:
        commands: list[PlacementCommand] = [
            End(rollout=uid, node=node, module_name=module_name, phase=Phase.CANCELED, reason=_reason(state))
            for node in fleet.scheduled
        ]
        if state.phase == RolloutPhase.ROLLING_BACK or state.strategy.on_abort == OnAbort.UNDO:
            commands += [Cancel(rollout=uid, node=node, module_name=module_name) for node in fleet.cancelable]
        return commands
    if state.phase == RolloutPhase.RUNNING and state.strategy.offline != Offline.WAIT:
        phase = Phase.SKIPPED if state.strategy.offline == Offline.SKIP else Phase.FAILED
        return [_unreachable(uid, node, module_name, phase) for node in fleet.offline]
    return []


def _reason(state: RolloutState) -> Reason:
    return state.reason or Reason.MANUAL


def _unreachable(uid: str, node: str, module_name: str, phase: Phase) -> End:
    message = f"{node} was offline when it was its turn."
    return End(
        rollout=uid, node=node, module_name=module_name, phase=phase, reason=Reason.NODE_UNREACHABLE, message=message
    )


def _given_up(state: RolloutState, fleet: Fleet, uid: str, module_name: str) -> list[PlacementCommand]:
    """Nodes that cannot be given back what they had: all that are left once nothing has succeeded for too long. They
    are released first: what was released and failed is repeated by the reconciler when they are back."""
    deadline = progress_deadline(state, fleet)
    if deadline is None or deadline > fleet.now:
        return []
    commands: list[PlacementCommand] = []
    for node in fleet.scheduled:
        commands.append(Release(rollout=uid, node=node, module_name=module_name))
        commands.append(
            _unreachable(uid, node, module_name, Phase.FAILED)
            if node in fleet.offline
            else _late(uid, node, module_name)
        )
    return commands


def _late(uid: str, node: str, module_name: str) -> End:
    return End(
        rollout=uid,
        node=node,
        module_name=module_name,
        phase=Phase.FAILED,
        reason=Reason.PROGRESS_DEADLINE,
        message=f"{node} did not get its turn in time.",
    )
