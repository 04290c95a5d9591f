"""Moves rollouts on: releases, cancels and ends what is due. Nothing else decides that.

May be called any number of times, in any number of processes at once.
"""

import logging
from collections.abc import Iterable

from artifacts_app.services import artifact_deletion
from eventstore.context import acting_as
from eventstore.store import Append, append
from eventstore.transact import load_state, retry_on_conflict
from modules_app.services import module_purged, module_uid
from rollout import selectors
from rollout.decider.placement import End, Release
from rollout.decider.rollout import ROLLOUT, Advance
from rollout.events import NodesReleased, RolloutFinished, RolloutPhase, RolloutStarted, rollout_stream
from rollout.messages import Phase, Reason
from rollout.placements import placement_changes

logger = logging.getLogger(__name__)


def advance(uid: str) -> None:
    """Release, cancel and end what is due. May run any number of times, in any number of processes at once."""
    with acting_as("system"):
        while _advance_once(uid):
            pass


def advance_all(uids: Iterable[str]) -> None:
    """One that cannot move on keeps no other from it: the relay tries again."""
    for uid in uids:
        try:
            advance(uid)
        except Exception:
            logger.exception("rollout %s cannot move on", uid)


@retry_on_conflict
def _advance_once(uid: str) -> bool:
    loaded = load_state(rollout_stream(uid), ROLLOUT)
    started = loaded.state.started
    if started is None or loaded.state.phase.is_final:
        return False
    aborting = loaded.state.phase == RolloutPhase.ABORTING
    fleet = selectors.fleet_of(uid, limit=0 if aborting else started.strategy.max_parallel)
    events = ROLLOUT.decide(loaded.state, Advance(rollout=uid, fleet=fleet))
    appends = [loaded.append(events)]
    if aborting:
        appends += placement_changes(_cancellations(uid, started.module_name))
    for event in events:
        match event:
            case NodesReleased():
                appends += placement_changes(
                    Release(rollout=uid, node=node, module_name=started.module_name) for node in event.nodes
                )
            case RolloutFinished(phase=RolloutPhase.SUCCEEDED) if started.purge:
                appends += _purge(started)
    return bool(append(*appends))


def _cancellations(uid: str, module_name: str) -> list[End]:
    return [
        End(rollout=uid, node=node, module_name=module_name, phase=Phase.CANCELED, reason=Reason.MANUAL)
        for node in selectors.scheduled_nodes(uid)
    ]


def _purge(started: RolloutStarted) -> list[Append]:
    """Deletion of the module object and the artifact, whichever are still there; not while a node was skipped and has
    them: one that is draining."""
    name, version = started.module_name, started.version
    if selectors.users_of(name, version):
        return []
    return [artifact_deletion(name, version), module_purged(module_uid(name, version))]
