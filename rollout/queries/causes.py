"""Finds the event that led to the next step of a rollout."""

from collections.abc import Collection
from typing import Any

from django.db.models import QuerySet

from eventstore import Metadata, newest_event
from rollout.models import Node, Rollout
from rollout.queries.freeze import newest_freeze

#: The actor of the steps that rules bring about, in any process.
RELAY = "system:relay"


def cause_of(uid: str, nodes: Collection[str]) -> Metadata:
    """Return the metadata of the rollout's next step, which is about these nodes. Its cause is the newest event of the
    rollout, of the rollouts that it needs, of the freeze, and of the phases of the nodes. At most five queries."""
    row = Rollout.objects.only("event_id", "correlation_id", "requested_by", "needs").get(uid=uid)
    freeze = newest_freeze()
    phases = Node.objects.filter(name__in=nodes).order_by("-phase_position")
    others: list[QuerySet[Any, Any]] = [phases.values_list("phase_event_id", flat=True)[:1]]
    if row.needs:
        others.append(Rollout.objects.filter(uid__in=row.needs).values_list("event_id", flat=True))
    found = {row.event_id, freeze and freeze.event_id, *(event_id for each in others for event_id in each)}
    return row.leads_to(RELAY).because_of(newest_event(found - {None}))
