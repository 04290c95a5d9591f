"""A rollout as JSON: the answer to `GET /v2/rollouts/{uid}`."""

from typing import Any

import msgspec

import decoding
from api.fields import rfc3339
from rollout.domain.rollout.events import WavePhase
from rollout.domain.strategy import Strategy
from rollout.domain.words import counted
from rollout.messages import activation_in_one_word
from rollout.models import Rollout
from rollout.projections.actions import ACTION_FIELDS, STOP_FIELDS
from rollout.projections.counters import COUNTERS, state_of
from rollout.projections.rollout_rows import left_alone_summary


def document(rollout: Rollout) -> dict[str, Any]:
    """Return the rollout as JSON."""
    ended = rollout.finished_at
    return {
        "uid": rollout.uid,
        "title": rollout.title,
        "action": rollout.action,
        "module_name": rollout.module_name,
        "version": rollout.version,
        "activation": activation_in_one_word(rollout.activation, rollout.ways),
        "may_interrupt": rollout.may_interrupt,
        "may_discard_data": rollout.may_discard_data,
        "failback": rollout.failback,
        "one_way": _one_way_in_order(rollout.one_way),
        "even_if_used": rollout.even_if_used,
        "adopt": rollout.adopt,
        "phase": rollout.phase,
        "reason": rollout.reason or None,
        "message": _message(rollout),
        "origin": rollout.origin,
        "actor": rollout.actor,
        "needs": rollout.needs,
        "retry_of": rollout.retry_of or None,
        "rollback_of": rollout.rollback_of or None,
        "failback_of": rollout.failback_of or None,
        "retried_by": rollout.retried_by,
        "rolled_back_by": rollout.rolled_back_by or None,
        "failed_back_by": rollout.failed_back_by or None,
        "left_alone": _left_in_order(rollout.left_alone or left_alone_summary(())),
        "strategy": msgspec.to_builtins(decoding.convert(rollout.strategy, Strategy)),
        "created_at": rfc3339(rollout.created_at),
        "finished_at": rfc3339(ended) if ended else None,
        "seconds": round((ended - rollout.created_at).total_seconds(), 3) if ended else None,
        "stops": [{name: stop[name] for name in STOP_FIELDS} for stop in rollout.stops],
        "actions": [{name: action[name] for name in ACTION_FIELDS} for action in rollout.actions],
        "progress": progress(rollout),
        "waves": [{"wave": number, **_in_order(wave)} for number, wave in enumerate(rollout.waves)],
        "slowest_nodes": [{"node": node, "seconds": seconds} for node, seconds in rollout.slowest],
    }


def _in_order(wave: dict[str, Any]) -> dict[str, Any]:
    """Order the keys. PostgreSQL changes their order, and the same row must give the same text."""
    names = ("phase", "total", *COUNTERS, "failed_before", "started_at", "soak_until", "finished_at")
    return {name: wave[name] for name in names if name in wave}


def _left_in_order(left: dict[str, Any]) -> dict[str, Any]:
    by = [{name: each[name] for name in ("rollout", "count", "nodes")} for each in left["by"]]
    return {"count": left["count"], "by": by, "text": left["text"]}


def _one_way_in_order(found: dict[str, Any] | None) -> dict[str, Any] | None:
    names = ("node", "result", "message", "former_version", "tried", "kept_file", "promoted")
    return found and {name: found[name] for name in names}


def progress(rollout: Rollout) -> dict[str, object]:
    """Return the counters, which add up to `total`, with `failed_before`, `percent` and `eta_seconds`."""
    counters = {name: getattr(rollout, name) for name in COUNTERS}
    final = rollout.total - rollout.scheduled - rollout.queued - rollout.running
    percent = 100 * final // rollout.total if rollout.total else 100
    return {
        "total": rollout.total,
        **counters,
        "failed_before": rollout.failed_before,
        "percent": percent,
        "eta_seconds": _eta_seconds(rollout),
    }


def _eta_seconds(rollout: Rollout) -> float | None:
    """Estimate the seconds to the end. For each unfinished wave: the remaining work divided by the slots, at least the time
    of a slow node, plus the soak. Gates and pauses are not included. None before the first duration is known."""
    if rollout.finished_at is not None:
        return 0
    if not rollout.durations:
        return None
    ordered = sorted(rollout.durations)
    mean, slow = sum(ordered) / len(ordered), ordered[9 * len(ordered) // 10]
    state = state_of(rollout)
    parallel = state.strategy.parallel(state.nodes)
    seconds = 0.0
    for wave in rollout.waves:
        if left := wave["scheduled"] + wave["queued"] + wave["running"]:
            seconds += max(left / parallel * mean, slow)
        if wave["phase"] in {WavePhase.PENDING, WavePhase.RUNNING} and not state.restoring:
            seconds += state.strategy.soak_seconds
    return round(seconds, 1)


def outcome_of(rollout: Rollout) -> str:
    """Return how many nodes have succeeded, and how the others ended, as a phrase."""
    others = [
        f"{count} {name.replace('_', ' ')}"
        for name in ("skipped", "failed", "timed_out", "canceled", "rolled_back", "failed_before")
        if (count := getattr(rollout, name))
    ]
    if left := rollout.left_alone.get("count"):
        others.append(f"{left} left unchanged")
    return ", ".join([f"{rollout.succeeded} of {counted(rollout.total, 'node')} succeeded", *others])


def _message(rollout: Rollout) -> str:
    return f"{rollout.message} {outcome_of(rollout)}." if rollout.message else outcome_of(rollout)
