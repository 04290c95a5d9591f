"""Advances rollouts: takes every step that is due. Nothing else decides what a rollout does next.

May be called any number of times, in any number of processes at once.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from artifacts_app.services import artifact_deletion
from eventstore import Append, Condition, append, database_now, head, load_state, retry_on_conflict, snapshot
from modules_app.services import module_purged, module_uid
from rollout.domain.conditions import LEAVING, PLANNING, USING
from rollout.domain.fleet.events import FLEET_STREAM
from rollout.domain.placement.commands import PlacementCommand, Release
from rollout.domain.placement.events import OperationReleased
from rollout.domain.rollout.decider import ROLLOUT
from rollout.domain.rollout.events import (
    RolloutEvent,
    RolloutFinished,
    RolloutFollowed,
    RolloutPhase,
    RolloutStarted,
    rollout_stream,
)
from rollout.domain.rollout.step import step
from rollout.domain.words import some_of
from rollout.process.failback import failback_after
from rollout.process.placements import placement_changes
from rollout.queries.causes import cause_of
from rollout.queries.modules import users_of
from rollout.queries.snapshot import snapshot_of

logger = logging.getLogger(__name__)


def advance(uid: str) -> datetime | None:
    """Take every step that is due. Return when the next one is due even if nothing happens, None if none is."""
    advanced, wake_at = True, None
    while advanced:
        advanced, wake_at = _advance_once(uid)
    return wake_at


def advance_all(uids: Iterable[str]) -> dict[str, datetime | None]:
    """Return what `advance` returns, by rollout.

    A rollout whose step fails is missing and does not stop the others: the relay tries again.
    """
    moments = {}
    for uid in uids:
        try:
            moments[uid] = advance(uid)
        except Exception:
            logger.exception("rollout %s cannot be advanced", uid, extra={"rollout": uid})
    return moments


@retry_on_conflict
def _advance_once(uid: str) -> tuple[bool, datetime | None]:
    """Return True if a step was recorded, and when the next one is due."""
    with snapshot():
        after = head()
        loaded = load_state(rollout_stream(uid), ROLLOUT)
        started = loaded.state.started
        if started is None or loaded.state.phase.is_final:
            return False, None
        taken = step(loaded.state, started, snapshot_of(uid, loaded.state, now=database_now()))
        if not (taken.events or taken.commands):
            return False, taken.wake_at
        is_purging = _is_purging(started, taken.events)
        events, purges = _purged(started, taken.events) if is_purging else (taken.events, [])
        events, failback = _failed_back(started, events)
        cause = cause_of(uid, taken.nodes)
        changes = placement_changes(taken.commands)
    own = loaded.append(events, cause)
    because = own.leads_to if events else cause
    following = [each.with_metadata(because) for each in [*changes, *purges, *failback[:1]]]
    following += [each.with_metadata(following[-1].leads_to) for each in failback[1:]]
    # The rollout's own stream too: operations may be ended without an event of the rollout.
    as_read = Condition(
        after=after,
        streams=[FLEET_STREAM, rollout_stream(uid)],
        event_types=[
            *LEAVING,
            *(USING if is_purging else ()),
            *(PLANNING if failback else ()),
            *_others_released(taken.commands),
        ],
    )
    # First the rollout, then its nodes: a projection folds the events in their order.
    return bool(append(own, *following, unless=[as_read])), taken.wake_at


def _others_released(commands: Sequence[PlacementCommand]) -> tuple[type, ...]:
    """Return what no other rollout may have done since, if this step releases nodes: no two copies of a shard are in
    progress at a time."""
    return (OperationReleased,) if any(isinstance(each, Release) for each in commands) else ()


def _has_succeeded(events: Sequence[RolloutEvent]) -> bool:
    return any(isinstance(each, RolloutFinished) and each.phase == RolloutPhase.SUCCEEDED for each in events)


def _is_purging(started: RolloutStarted, events: Sequence[RolloutEvent]) -> bool:
    return started.purge and _has_succeeded(events)


def _failed_back(
    started: RolloutStarted, events: Sequence[RolloutEvent]
) -> tuple[Sequence[RolloutEvent], Sequence[Append]]:
    """Return the events, and what starts the rollout that gives former masters their role back, if this one asks for it."""
    if not (started.failback and _has_succeeded(events)):
        return events, []
    uid, appends = failback_after(started, started.origin)
    if not appends:
        return events, []
    return [
        *events,
        RolloutFollowed(rollout=started.rollout, follower=uid, is_rollback=False, is_failback=True),
    ], appends


def _purged(started: RolloutStarted, events: Sequence[RolloutEvent]) -> tuple[Sequence[RolloutEvent], Sequence[Append]]:
    """Return the events, and what deletes the module object and the artifact, if they still exist. Both stay while a
    skipped node has the module."""
    name, version = started.module_name, started.version
    if users := users_of(name, version):
        return [_kept_for(users, each) for each in events], []
    return events, [artifact_deletion(name, version), module_purged(module_uid(name, version))]


def _kept_for(users: Sequence[str], event: RolloutEvent) -> RolloutEvent:
    """Return the event. The end of the rollout says for which skipped nodes module object and artifact stay."""
    if not isinstance(event, RolloutFinished):
        return event
    message = (
        f"The module object and the artifact stay: they are in use on {some_of(users)}. Delete the module again later."
    )
    return replace(event, message=message)
