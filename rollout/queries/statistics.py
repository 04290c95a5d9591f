"""How many there are: counts for a dashboard, each in one query whose answer does not grow with the fleet."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, DurationField, ExpressionWrapper, F, Min, Q, Sum

from rollout.domain.node.decider import LARGEST_SKEW
from rollout.models import DroppedMessages, Liveness, Node, NodeModule, Operation, Placement, Rollout
from rollout.queries.nodes import node_rows

#: Upper ends of the classes that rollouts are counted in by how long they took, seconds.
ROLLOUT_SECONDS = (10, 30, 60, 300, 900, 1800, 3600, 10_800, 43_200, 86_400, 604_800)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutCount:
    """Rollouts in one phase. Of those that have ended: how long they took in all, and how many took no longer than each
    of `ROLLOUT_SECONDS`."""

    phase: str
    count: int
    ended: int
    seconds: float
    within: tuple[int, ...]


def rollouts_by_phase() -> Iterator[RolloutCount]:
    took = ExpressionWrapper(F("finished_at") - F("created_at"), output_field=DurationField())
    within: dict[str, Any] = {
        f"within_{seconds}": Count("uid", filter=Q(took__lte=timedelta(seconds=seconds))) for seconds in ROLLOUT_SECONDS
    }
    rows = Rollout.objects.order_by().annotate(took=took).values("phase")
    counted: Any = rows.annotate(count=Count("uid"), ended=Count("finished_at"), total=Sum("took"), **within)
    for row in counted:
        yield RolloutCount(
            phase=row["phase"],
            count=row["count"],
            ended=row["ended"],
            seconds=row["total"].total_seconds() if row["total"] else 0.0,
            within=tuple(row[name] for name in within),
        )


def unfinished_operations_by_phase() -> dict[tuple[str, str], int]:
    """By phase and reason."""
    rows = Operation.objects.filter(finished_at__isnull=True).order_by().values_list("phase", "reason")
    return {(phase, reason): count for phase, reason, count in rows.annotate(Count("key"))}


def nodes_by_phase() -> dict[str, int]:
    return dict(Node.objects.order_by().values_list("phase").annotate(Count("name")))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementCount:
    """Nodes on which a module is in a state, how many of them differ from what was brought about, and since when the
    first of those does."""

    module_name: str
    state: str
    count: int
    drifted: int
    drifted_at: datetime | None


def placements_by_state() -> list[PlacementCount]:
    """Of the nodes that have not left the fleet, and of modules that were asked for on any: a node may say that it has
    any number of others."""
    asked_for = Placement.objects.values("module_name")
    rows = NodeModule.objects.filter(
        node__in=node_rows().order_by().values("name"), module_name__in=asked_for
    ).order_by()
    counted = rows.values("module_name", "state").annotate(
        count=Count("key"), drifted=Count("drifted_at"), drifted_at=Min("drifted_at")
    )
    return [PlacementCount(**row) for row in counted.order_by("module_name", "state")]


def node_names() -> list[str]:
    """Of the nodes that have not left the fleet."""
    return list(node_rows().order_by().values_list("name", flat=True))


def skewed_nodes() -> int:
    """How many nodes of the fleet have a clock that is wrong."""
    skewed = Q(clock_skew_seconds__gt=LARGEST_SKEW) | Q(clock_skew_seconds__lt=-LARGEST_SKEW)
    return Liveness.objects.filter(skewed, node__in=node_rows().order_by().values("name")).count()


def dropped_messages() -> list[tuple[str, str, int]]:
    """Queue, reason, and how many messages the control workers have dropped for it."""
    return list(DroppedMessages.objects.order_by("key").values_list("queue", "reason", "count"))
