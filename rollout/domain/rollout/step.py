"""One step of a rollout: its events, and the commands to its placements. Pure, so that the simulation takes the same steps
as `rollout.process.advance`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rollout.domain.placement.commands import (
    Cancel,
    End,
    PlacementCommand,
    RecordReport,
    RejectReport,
    Release,
    Retry,
    RollBack,
    Wait,
)
from rollout.domain.rollout.commands import Advance
from rollout.domain.rollout.decider import ROLLOUT, decide
from rollout.domain.rollout.events import (
    NodesReleased,
    NodesRetried,
    RollbackStarted,
    RolloutEvent,
    RolloutPhase,
    RolloutStarted,
    WavePhase,
)
from rollout.domain.rollout.progress_deadline import extension_at, progress_deadline
from rollout.domain.rollout.snapshot import Snapshot
from rollout.domain.rollout.state import RolloutState
from rollout.domain.strategy import Offline, OnAbort
from rollout.messages import Phase, Reason

#: How often the health of servers is looked at during a soak.
SOAK_LOOK = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`wake_at`: when another step is due even without a new event, None if never."""

    events: Sequence[RolloutEvent]
    commands: Sequence[PlacementCommand]
    wake_at: datetime | None

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes that the step changes."""
        return frozenset(each.node for each in self.commands if not isinstance(each, RecordReport | RejectReport))


def step(state: RolloutState, started: RolloutStarted, snapshot: Snapshot) -> Step:
    """Return the next step of the rollout in `state`, which began with `started` and has not ended."""
    uid, module_name = started.rollout, started.module_name
    events = decide(state, Advance(rollout=uid, snapshot=snapshot))
    commands = [
        command for event in events for command in _commands(state, event, dict(snapshot.retriable), uid, module_name)
    ]
    if not events:
        commands += _endings(state, snapshot, uid, module_name)
    return Step(events=events, commands=commands, wake_at=wake_at(ROLLOUT.fold(events, state), snapshot))


def wake_at(state: RolloutState, snapshot: Snapshot) -> datetime | None:
    """Return when the rollout's next deadline, soak end, start or retry is due; None if there is none."""
    moments: list[datetime | None] = [
        progress_deadline(state, snapshot),
        extension_at(state, snapshot),
        snapshot.wake_at,
    ]
    if state.wave_phase == WavePhase.SOAKING and state.phase == RolloutPhase.RUNNING:
        # Facts of servers are no events, so a rollout that soaks looks for itself.
        moments.append(min(state.soak_until or snapshot.now, snapshot.now + SOAK_LOOK))
    if state.wave < 0:
        moments.append(state.strategy.start_at)
    return min((each for each in moments if each is not None and each > snapshot.now), default=None)


def _commands(
    state: RolloutState, event: RolloutEvent, attempts: dict[str, int], uid: str, module_name: str
) -> Iterator[PlacementCommand]:
    """Yield the commands to the nodes that the event names."""
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


def _endings(state: RolloutState, snapshot: Snapshot, uid: str, module_name: str) -> list[PlacementCommand]:
    """Return the commands that end or cancel operations because of the rollout's phase. They need no rollout event."""
    if state.restoring:
        if snapshot.frozen:
            return []
        return [*_waits(snapshot, uid, module_name), *_unrestorable(state, snapshot, uid, module_name)]
    if state.phase in {RolloutPhase.ABORTING, RolloutPhase.ROLLING_BACK}:
        reason = state.reason or Reason.MANUAL
        commands: list[PlacementCommand] = [
            End(rollout=uid, node=node, module_name=module_name, phase=Phase.CANCELED, reason=reason)
            for node in snapshot.scheduled
        ]
        if state.phase == RolloutPhase.ROLLING_BACK or state.strategy.on_abort == OnAbort.UNDO:
            commands += [Cancel(rollout=uid, node=node, module_name=module_name) for node in snapshot.cancelable]
        return commands
    if state.phase != RolloutPhase.RUNNING:
        return []
    commands = _waits(snapshot, uid, module_name)
    if state.strategy.offline != Offline.WAIT:
        phase = Phase.SKIPPED if state.strategy.offline == Offline.SKIP else Phase.FAILED
        commands += [_unreachable(uid, node, module_name, phase) for node in snapshot.offline]
    return commands


def _waits(snapshot: Snapshot, uid: str, module_name: str) -> list[PlacementCommand]:
    """Return the commands that record what nodes wait for, and that skip the nodes that no wait makes ready."""
    waits: list[PlacementCommand] = [
        Wait(rollout=uid, node=each.node, module_name=module_name, reason=each.reason, message=each.message)
        for each in snapshot.waits
    ]
    return waits + [
        End(
            rollout=uid,
            node=each.node,
            module_name=module_name,
            # A person has to decide, as when the agent finds it.
            phase=Phase.FAILED if each.reason == Reason.IN_USE else Phase.SKIPPED,
            reason=each.reason,
            message=each.message,
        )
        for each in snapshot.unfit
    ]


def _unreachable(uid: str, node: str, module_name: str, phase: Phase) -> End:
    message = f"{node} was offline when it was its turn."
    return End(
        rollout=uid, node=node, module_name=module_name, phase=phase, reason=Reason.NODE_UNREACHABLE, message=message
    )


def _unrestorable(state: RolloutState, snapshot: Snapshot, uid: str, module_name: str) -> list[PlacementCommand]:
    """Fail all nodes that are still scheduled when nothing has succeeded until the progress deadline.

    They are released first: the reconciler repeats operations that were released and failed.
    """
    deadline = progress_deadline(state, snapshot)
    if deadline is None or deadline > snapshot.now:
        return []
    commands: list[PlacementCommand] = []
    for node in snapshot.scheduled:
        commands.append(Release(rollout=uid, node=node, module_name=module_name))
        commands.append(
            _unreachable(uid, node, module_name, Phase.FAILED)
            if node in snapshot.offline
            else _overdue(uid, node, module_name)
        )
    return commands


def _overdue(uid: str, node: str, module_name: str) -> End:
    return End(
        rollout=uid,
        node=node,
        module_name=module_name,
        phase=Phase.FAILED,
        reason=Reason.PROGRESS_DEADLINE,
        message=f"{node} did not get its turn in time.",
    )
