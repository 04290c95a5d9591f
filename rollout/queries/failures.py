"""Failed attempts of a rollout in groups, by reason and by the line of the server's log that tells why."""

from collections.abc import Collection, Mapping
from typing import Any

from django.db.models import Count, Min, OuterRef, Subquery, Value
from django.db.models.functions import Coalesce

from rollout.domain.words import counted, with_cause
from rollout.models import Operation, ServerLog
from rollout.projections.attempts import BAD

#: The most groups that are returned, the largest first.
MOST_GROUPS = 10


def failures_of(uid: str, *, node: str | None = None) -> list[dict[str, Any]]:
    """Return the groups of failed attempts, also of those that were retried or undone: at most three queries.

    `count`: how many nodes. `node`: the first of them, from which `message` and `server_log` are. `line` and `server_log` are
    empty if the node has sent no lines, and once they are deleted.
    """
    rows = Operation.attempts.filter(rollout=uid, phase__in=BAD)
    if node is not None:
        rows = rows.filter(node=node)
    same_attempt = {name: OuterRef(name) for name in ("rollout", "node", "generation", "attempt")}
    telling = Subquery(ServerLog.objects.filter(**same_attempt).values("telling")[:1])
    groups = list(
        rows.annotate(telling=Coalesce(telling, Value("")))
        .values("reason", "telling")
        .annotate(count=Count("node", distinct=True), first=Min("ordinal"))
        .order_by("-count", "first", "reason", "telling")[:MOST_GROUPS]
    )
    if not groups:
        return []
    first = rows.filter(ordinal__in={each["first"] for each in groups}).order_by("-generation", "-attempt")
    examples = {(each.ordinal, each.reason): each for each in first}
    logs = _logs_by_line(uid, {each.node for each in examples.values()})
    return [_group(each, examples[each["first"], each["reason"]], logs) for each in groups]


def _group(group: Mapping[str, Any], example: Operation, logs: Mapping[tuple[str, str], list[str]]) -> dict[str, Any]:
    reason, line = group["reason"] or example.phase, group["telling"]
    return {
        "reason": group["reason"] or None,
        "line": line,
        "count": group["count"],
        "node": example.node,
        "message": example.message,
        "server_log": logs.get((example.node, line), []),
        "text": with_cause(counted(group["count"], "node"), reason, line),
    }


def _logs_by_line(uid: str, nodes: Collection[str]) -> dict[tuple[str, str], list[str]]:
    rows = ServerLog.objects.filter(rollout=uid, node__in=nodes).order_by("-generation", "-attempt")
    return {(row.node, row.telling): row.lines for row in rows}


def server_logs_of(uid: str, nodes: Collection[str]) -> dict[str, list[str]]:
    """Return what the server of each node logged when an attempt of the rollout failed there, the newest one with lines.
    One query."""
    rows = ServerLog.objects.filter(rollout=uid, node__in=nodes).order_by("generation", "attempt")
    return {row.node: row.lines for row in rows}


def telling_lines(rows: Collection[Operation]) -> dict[tuple[str, str, int, int], str]:
    """Return the telling line of each attempt that has one, by rollout, node, generation and attempt. One query."""
    found = ServerLog.objects.filter(rollout__in={each.rollout for each in rows}, node__in={each.node for each in rows})
    return {(each.rollout, each.node, each.generation, each.attempt): each.telling for each in found.defer("lines")}
