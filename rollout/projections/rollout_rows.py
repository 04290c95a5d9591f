"""The row of a rollout: folds the rollout's own events into it and into its waves."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from api.fields import rfc3339
from eventstore import RecordedEvent
from rollout.domain.rollout.decider import ROLLOUT
from rollout.domain.rollout.events import (
    AbortRequested,
    LeftUnchanged,
    NodesRetried,
    OneWayFound,
    OneWayPromoted,
    ProgressDeadlineExtended,
    RollbackRequested,
    RollbackStarted,
    RolloutEvent,
    RolloutFinished,
    RolloutFollowed,
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
from rollout.domain.rollout.rollback import left_unchanged_sentence
from rollout.domain.rollout.state import RolloutState
from rollout.messages import WayBack, WayBackResult
from rollout.models import Rollout
from rollout.projections.actions import stop_of
from rollout.projections.counters import COUNTERS, state_of

#: How many of the newest stops, actions and retries the document of a rollout has, and how many nodes and rollouts of
#: `left_alone`. The report has all.
MOST_KEPT = 10
#: The newest durations that the estimate uses, and the slowest nodes that are named.
DURATIONS = 100
SLOWEST = 5


def close_wave_if_ended(wave: dict[str, Any], now: datetime) -> None:
    """Set the wave's `finished_at` if it was started and its last node has ended."""
    unfinished = wave["scheduled"] + wave["queued"] + wave["running"]
    if wave["started_at"] and not wave["finished_at"] and not unfinished:
        wave["finished_at"] = rfc3339(now)


def new_rollout(event: RolloutStarted, recorded: RecordedEvent) -> Rollout:
    return Rollout(
        uid=event.rollout,
        action=event.action,
        module_name=event.module_name,
        version=event.version,
        activation=event.activation,
        origin=event.origin,
        actor=recorded.shown_actor,
        retry_of=event.retry_of,
        rollback_of=event.rollback_of,
        left_alone=left_alone_summary(event.left_alone),
        needs=list(event.needs),
        named=event.named,
        even_if_used=event.even_if_used,
        adopt=event.adopt,
        ways=event.ways,
        may_interrupt=event.may_interrupt,
        may_discard_data=event.may_discard_data,
        failback=event.failback,
        failback_of=event.failback_of,
        strategy=msgspec.to_builtins(event.strategy),
        created_at=recorded.recorded_at,
        total=event.total,
        started_position=recorded.position,
        position=recorded.position,
        waves=[new_wave(total) for total in event.waves],
    )


def left_alone_summary(groups: Sequence[LeftUnchanged]) -> dict[str, Any]:
    first = [
        {"rollout": each.rollout, "count": len(each.nodes), "nodes": list(each.nodes[:MOST_KEPT])}
        for each in groups[:MOST_KEPT]
    ]
    return {"count": sum(len(each.nodes) for each in groups), "by": first, "text": left_unchanged_sentence(groups)}


def new_wave(total: int) -> dict[str, Any]:
    counters = dict.fromkeys(COUNTERS, 0)
    counters["failed_before"] = 0
    return {"phase": WavePhase.PENDING, "total": total, **counters, "started_at": None, "finished_at": None}


_CLOCK_STARTS = (WaveStarted, WavePassed, OneWayPromoted, ProgressDeadlineExtended, RolloutResumed, RollbackStarted)


def apply_to_rollout(rollout: Rollout, recorded: RecordedEvent) -> None:
    event, now = recorded.event, recorded.recorded_at
    before = RolloutState() if isinstance(event, RolloutStarted) else state_of(rollout)
    state = ROLLOUT.evolve(before, event)
    rollout.state = msgspec.json.encode(state).decode()
    rollout.phase, rollout.reason, rollout.message = state.phase, state.reason or "", state.message
    if (stop := stop_of(recorded, before)) is not None:
        rollout.stops = [*rollout.stops[1 - MOST_KEPT :], stop]
    if isinstance(event, _CLOCK_STARTS) or (isinstance(event, RolloutStarted) and event.rollback_of):
        rollout.progressed_at = now
    match event:
        case NodesRetried(nodes=nodes, automatic=automatic):
            rollout.retries += len(nodes) if automatic else 0
            rollout.unrestored -= len(nodes) if state.restoring else 0
            rollout.progressed_at = rollout.progressed_at if automatic else now
        case RollbackStarted(left_alone=left_alone):
            rollout.left_alone = left_alone_summary(left_alone)
        case RolloutFollowed(follower=follower, is_rollback=True):
            rollout.rolled_back_by = follower
        case RolloutFollowed(follower=follower, is_failback=True):
            rollout.failed_back_by = follower
        case RolloutFollowed(follower=follower):
            rollout.retried_by = [*rollout.retried_by[1 - MOST_KEPT :], follower]
        case OneWayFound(node=node, way_back=way_back):
            rollout.one_way = {"node": node, **msgspec.to_builtins(way_back), "promoted": False}
        case OneWayPromoted():
            rollout.one_way = {**(rollout.one_way or {}), "promoted": True}
        case RolloutFinished():
            rollout.finished_at = now
    _apply_to_waves(rollout.waves, state, event, now)


def _apply_to_waves(waves: list[dict[str, Any]], state: RolloutState, event: RolloutEvent, now: datetime) -> None:
    match event:
        case RolloutStarted(rollback_of=former) if former:
            for each in waves:  # all start at once; a wave without a node to restore has passed
                each |= {"phase": WavePhase.RUNNING, "started_at": rfc3339(now)}
                if not each["total"]:
                    each |= {"phase": WavePhase.PASSED, "finished_at": rfc3339(now)}
        case WaveStarted(wave=wave):
            waves[wave] |= {"phase": WavePhase.RUNNING, "started_at": rfc3339(now)}
            close_wave_if_ended(waves[wave], now)
        case WaveSoaking(wave=wave, until=until):
            waves[wave] |= {"phase": WavePhase.SOAKING, "soak_until": rfc3339(until)}
        case WaveGated(wave=wave):
            waves[wave]["phase"] = WavePhase.GATED
        case WavePassed(wave=wave):
            waves[wave]["phase"] = WavePhase.PASSED
        case WaveFailed(wave=wave):
            waves[wave]["phase"] = WavePhase.FAILED
        case RolloutResumed() if state.wave >= 0:
            waves[state.wave]["phase"] = state.wave_phase
        case RolloutFinished(phase=RolloutPhase.ROLLED_BACK) if state.started is not None and state.started.rollback_of:
            for each in waves:
                each["phase"] = WavePhase.PASSED
        case AbortRequested() | RolloutRejected() | RollbackRequested() | RolloutFinished():
            for each in waves:
                if state.phase == RolloutPhase.SUCCEEDED and each["phase"] == WavePhase.FAILED:
                    each["phase"] = WavePhase.PASSED  # the missing answer came late
                if each["phase"] not in {WavePhase.PASSED, WavePhase.FAILED}:
                    each["phase"] = WavePhase.CANCELED
        case _:
            pass


def note_way_back(rollout: Rollout, node: str, way_back: WayBack) -> None:
    """Note what the node has shown: if its former version can read what the new one writes."""
    noted = rollout.way_back or {"open": False, "not_open": None}
    known = noted["not_open"]
    if way_back.result is WayBackResult.OPEN:
        noted = {**noted, "open": True}
    elif known is None or (known["result"] == WayBackResult.UNKNOWN and way_back.result is WayBackResult.CLOSED):
        noted = {**noted, "not_open": {"node": node, **msgspec.to_builtins(way_back)}}
    rollout.way_back = noted


def add_duration(rollout: Rollout, node: str, seconds: float) -> None:
    rollout.durations = [*rollout.durations[1 - DURATIONS :], seconds]
    slowest = sorted([*rollout.slowest, [node, seconds]], key=lambda each: -each[1])
    rollout.slowest = slowest[:SLOWEST]
