"""Nodes of a rollout whose servers were harmed while a wave soaked, by the newest facts of their agents."""

from datetime import UTC, datetime
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet, Subquery

from rollout.domain.node.harm import JUDGED, harm_since, is_restarted_since
from rollout.messages import Phase
from rollout.models import Liveness, NodeFacts, Operation, Rollout

#: Matches operations whose node has said how its server is since they ended. What it said before shows nothing that they did:
#: a server may have been restarted or repaired since.
HEARD_SINCE = Exists(Liveness.objects.filter(node=OuterRef("node"), facts_at__gt=OuterRef("finished_at")))


def harmed_nodes(row: Rollout) -> dict[str, str]:
    """Return how each harmed node was harmed, as a sentence. No query for a rollout that has not soaked; else at most two."""
    waves = [number for number, wave in enumerate(row.waves) if "soak_until" in wave]
    if not waves:
        return {}
    facts = _facts(NodeFacts.objects.filter(suspect=True))
    if not facts:
        return {}
    rows = Operation.objects.filter(
        HEARD_SINCE, rollout=row.uid, node__in=list(facts), phase=Phase.SUCCEEDED, wave__in=waves, health__isnull=False
    )
    found: dict[str, str] = {
        node: harm_since(health or {}, *facts[node])
        for node, health in rows.order_by("ordinal").values_list("node", "health")
    }
    return {node: harm for node, harm in found.items() if harm}


def newest_restart(uid: str, wave: int) -> datetime | None:
    """Return when a server of the wave was last restarted, of the nodes that have succeeded. One query.

    A restart that was over when the operation ended does not count, also if its agent has reported it later.
    """
    ended = Operation.objects.filter(rollout=uid, wave=wave, phase=Phase.SUCCEEDED)
    rows = NodeFacts.objects.filter(node__in=ended.values("node")).exclude(restarts=[])
    process = Subquery(ended.filter(node=OuterRef("node")).values("health__run_id")[:1])
    found = rows.annotate(process=process).values_list("restarts", "run_id", "process")
    newest = max((restarts[-1] for restarts, run_id, ended_with in found if run_id != ended_with), default=None)
    return None if newest is None else datetime.fromtimestamp(newest, UTC)


def since_success(row: Operation) -> str:
    """Return what has happened to the server since the operation succeeded, as a sentence; empty if nothing is known to."""
    if row.phase != Phase.SUCCEEDED or row.health is None:
        return ""
    heard = Liveness.objects.filter(node=row.node, facts_at__gt=row.finished_at).values("node")
    facts = _facts(NodeFacts.objects.filter(node__in=heard)).get(row.node)
    if facts is None:
        return ""
    server, restarts = facts
    restarted = "Its server has been restarted since." if is_restarted_since(row.health, server) else ""
    return harm_since(row.health, server, restarts) or restarted


def _facts(rows: QuerySet[NodeFacts]) -> dict[str, tuple[dict[str, Any], list[float]]]:
    """Return the facts that are judged, and when the server was restarted, by node."""
    fields = [f"server__{name}" for name in JUDGED]
    return {
        node: (dict(zip(JUDGED, values, strict=True)), restarts)
        for node, restarts, *values in rows.values_list("node", "restarts", *fields)
    }
