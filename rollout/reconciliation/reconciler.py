"""Brings nodes to their desired state: nodes that join late, nodes that come back, and drift.

May run any number of times, in any number of processes at once: nothing is done on a placement that has changed since
it was read, and a placement has at most one live operation.
"""

import logging
import time
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db.models import Max

from accounts.events import CLUSTER_STREAM
from api.errors import ApiError
from eventstore import (
    Condition,
    acting_as,
    append,
    database_now,
    head,
    load_states,
    retry_on_conflict,
    snapshot,
    stale_projections,
)
from rollout.domain.errors import RolloutInProgressError
from rollout.domain.fleet.events import FLEET_STREAM
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import NodeDrifted, NodeDriftEnded, node_stream
from rollout.domain.placement.events import placement_stream
from rollout.domain.request import RolloutRequest
from rollout.domain.rollout.events import Origin
from rollout.domain.strategy import OnFailure, Strategy
from rollout.models import Liveness
from rollout.reconciliation.differences import differences_of_fleet
from rollout.reconciliation.drift import RECONCILER, drift_changes, drift_streams
from rollout.reconciliation.due_operations import due_operations
from rollout.reconciliation.needed_operation import Intent
from rollout.services.start import start_unless

logger = logging.getLogger(__name__)

#: Least time between two polls, seconds.
POLL_SECONDS = 0.5
#: One wave that goes on after any number of failures, so that it never waits for a person.
STRATEGY = Strategy(canary=0, max_parallel=10, max_failures="100%", on_failure=OnFailure.ABORT)


class Reconciler:
    """Reconciles when something may have changed: the log has grown, an agent has started, or a wait is over. Never while
    a projection waits for its rebuild: its rows would name operations that are not due."""

    def __init__(self) -> None:
        self._is_fresh = False
        self._not_before = 0.0
        self._seen: tuple[int, datetime | None] | None = None
        self._due: datetime | None = None

    def poll(self) -> None:
        """Reconcile if something may have changed, at most every `POLL_SECONDS`."""
        if time.monotonic() < self._not_before:
            return
        self._not_before = time.monotonic() + POLL_SECONDS
        self._is_fresh = self._is_fresh or not stale_projections()
        if not self._is_fresh:
            return
        seen = (head(), Liveness.objects.aggregate(newest=Max("hello_at"))["newest"])
        is_due = self._due is not None and self._due <= database_now()
        if seen != self._seen or is_due:
            self._due = reconcile()
            self._seen = seen


def reconcile() -> datetime | None:
    """Record drift, and start what is due. Return when the next operation is due even if nothing happens, if one waits."""
    with acting_as(RECONCILER):
        return _reconcile()


@retry_on_conflict
def _reconcile() -> datetime | None:
    """After a conflict, what was recorded and started stays: the next attempt finds it done."""
    with snapshot():
        after = head()
        differences = differences_of_fleet()
        changes = drift_changes(differences)
        due, wake_at = due_operations(differences)
    unchanged = Condition(after=after, streams=drift_streams(differences), event_types=(NodeDrifted, NodeDriftEnded))
    append(*changes, unless=[unchanged])
    for intent, nodes in due.items():
        _start(intent, nodes, after)
    return wake_at


def _start(intent: Intent, nodes: Sequence[str], after: int) -> None:
    """Start a rollout that supersedes nothing: nodes with another rollout in progress are left for later.

    Nothing starts if anything was done there, or the fleet was frozen, after the position `after`: a person's rollout
    may have begun and ended since. Raises: `ConcurrencyError`.
    """
    request = RolloutRequest(
        action=intent.action,
        module_name=intent.module_name,
        version=intent.version,
        activation=intent.activation,
        nodes=tuple(nodes),
        strategy=STRATEGY,
        origin=Origin.RECONCILER,
        undoes=intent.undoes,
        yields=True,
    )
    places = [placement_stream(node, intent.module_name) for node in nodes]
    try:
        with acting_as(RECONCILER, because_of=_newest_event_of(nodes)):
            start_unless(request, Condition(after=after, streams=[*places, FLEET_STREAM, CLUSTER_STREAM]))
    except ApiError as error:  # a refusal for one node must not keep the others waiting
        half = len(nodes) // 2
        for some in (nodes[:half], nodes[half:]) if half else ():
            _start(intent, some, after)
        if not half and not isinstance(error, RolloutInProgressError):
            logger.warning("not reconciled: %s %s on %s: %s", intent.module_name, intent.version, nodes[0], error)


def _newest_event_of(nodes: Sequence[str]) -> UUID | None:
    """Return the event that made the reconciler act: one of the nodes has joined, is back or differs."""
    states = load_states([node_stream(name) for name in nodes], NODE)
    return max(states.values(), key=lambda each: each.position).event_id
