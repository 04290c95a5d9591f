"""Counts for metrics. Each takes one query, whose answer does not grow with the number of nodes."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, DurationField, ExpressionWrapper, F, Min, OuterRef, Q, Subquery, Sum

from rollout.domain.node.health import LOOP_SECONDS
from rollout.domain.node.state import LARGEST_SKEW, NodePhase
from rollout.domain.rollout.events import RolloutPhase, WavePhase
from rollout.models import (
    DroppedMessages,
    Liveness,
    Node,
    NodeFacts,
    NodeModule,
    Operation,
    Placement,
    Rollout,
    ShardMember,
)
from rollout.queries.nodes import count_by_phase, node_rows

#: Upper bounds of the histogram of durations of rollouts, seconds.
ROLLOUT_SECONDS = (10, 30, 60, 300, 900, 1800, 3600, 10_800, 43_200, 86_400, 604_800)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutCount:
    """Rollouts in one phase. Of the finished ones: `seconds` that they took together, and how many took no longer than
    each of `ROLLOUT_SECONDS`."""

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


def waits_for_person() -> dict[str, datetime]:
    """Return since when the oldest rollout waits for a person, by cause: `approval`, `paused`, `one_way` or `gate`."""
    phases = (RolloutPhase.PENDING_APPROVAL, RolloutPhase.PAUSED, RolloutPhase.RUNNING)
    oldest: dict[str, datetime] = {}
    rows = Rollout.objects.filter(phase__in=phases)
    fields = ("phase", "created_at", "stops", "waves", "one_way", "progressed_at")
    for phase, created_at, stops, waves, one_way, progressed_at in rows.values_list(*fields):
        gated = next((each for each in waves if each["phase"] == WavePhase.GATED), None)
        if phase == RolloutPhase.PENDING_APPROVAL:
            cause, since = "approval", created_at
        elif phase == RolloutPhase.PAUSED:
            cause, since = "paused", datetime.fromisoformat(stops[-1]["at"])
        elif one_way and not one_way["promoted"]:
            cause, since = "one_way", progressed_at
        elif gated is not None:  # a gate follows the wave's last node, or its soak
            cause, since = "gate", datetime.fromisoformat(gated.get("soak_until") or gated["finished_at"])
        else:
            continue
        oldest[cause] = min(since, oldest.get(cause, since))
    return oldest


def unfinished_operations_by_phase() -> dict[tuple[str, str], int]:
    """Return the number of unfinished operations by phase and reason."""
    rows = Operation.objects.filter(finished_at__isnull=True).order_by().values_list("phase", "reason")
    return {(phase, reason): count for phase, reason, count in rows.annotate(Count("key"))}


def nodes_by_phase() -> dict[str, int]:
    """Return how many nodes are in each phase, decommissioned nodes too."""
    return count_by_phase(Node.objects.all())


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementCount:
    """`count`: nodes on which the module is in the state. `drifted`: how many of them have drifted, the first at
    `drifted_at`."""

    module_name: str
    state: str
    count: int
    drifted: int
    drifted_at: datetime | None


def placements_by_state() -> list[PlacementCount]:
    """Return the counts for the nodes of the fleet, and for modules that were ever scheduled: a node may report any number
    of others."""
    scheduled = Placement.objects.values("module_name")
    rows = NodeModule.objects.filter(
        node__in=node_rows().order_by().values("name"), module_name__in=scheduled
    ).order_by()
    counted = rows.values("module_name", "state").annotate(
        count=Count("key"), drifted=Count("drifted_at"), drifted_at=Min("drifted_at")
    )
    return [PlacementCount(**row) for row in counted.order_by("module_name", "state")]


def node_names() -> list[str]:
    """Return the names of the nodes of the fleet."""
    return list(node_rows().order_by().values_list("name", flat=True))


def skewed_nodes() -> int:
    """Return how many nodes of the fleet have a wrong clock."""
    skewed = Q(clock_skew_seconds__gt=LARGEST_SKEW) | Q(clock_skew_seconds__lt=-LARGEST_SKEW)
    return Liveness.objects.filter(skewed, node__in=node_rows().order_by().values("name")).count()


def degraded_nodes() -> dict[str, int]:
    """Return how many nodes of the fleet are degraded, by reason."""
    rows = Node.objects.filter(phase=NodePhase.DEGRADED).order_by().values_list("degraded_reason")
    return dict(rows.annotate(Count("name")))


def duplicate_nodes() -> int:
    """Return for how many nodes of the fleet two agents are heard."""
    return node_rows().filter(duplicate=True).count()


@dataclass(frozen=True, slots=True, kw_only=True)
class FactCounts:
    """Nodes of the fleet with these facts. `restarting`: the server restarts in a loop. `include_missing`: its configuration
    does not include the agent's file. `conflicting`: two lines of its configuration load the same module."""

    restarting: int
    include_missing: int
    conflicting: int


def fact_counts(now: datetime) -> FactCounts:
    of_fleet = NodeFacts.objects.filter(node__in=node_rows().order_by().values("name"))
    since = now - timedelta(seconds=LOOP_SECONDS)
    return FactCounts(
        **of_fleet.aggregate(
            restarting=Count("node", filter=Q(third_restart_at__gt=since)),
            include_missing=Count("node", filter=Q(include_seen=False)),
            conflicting=Count("node", filter=Q(has_conflict=True)),
        )
    )


def nodes_in_maintenance() -> list[tuple[str, str, str]]:
    """Return node, shard and action of each node of the fleet whose agent makes its server unavailable now."""
    shard = ShardMember.objects.filter(node=OuterRef("node")).values("shard")
    rows = NodeFacts.objects.exclude(maintenance="").filter(node__in=node_rows().order_by().values("name"))
    found = rows.annotate(shard=Subquery(shard)).order_by("node").values_list("node", "shard", "maintenance")
    return [(node, shard or node, action) for node, shard, action in found]


def dropped_messages() -> list[tuple[str, str, int]]:
    """Return the queue, the reason and the number of messages that the control workers dropped."""
    return list(DroppedMessages.objects.order_by("key").values_list("queue", "reason", "count"))
