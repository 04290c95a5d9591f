"""Answers about operations."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Case, Exists, Max, OuterRef, Q, QuerySet, When

from api.fields import rfc3339
from rollout.domain.errors import NodeNotFoundError, RolloutNotFoundError
from rollout.domain.node.state import NodePhase
from rollout.messages import RUNNING_PHASES, Phase, Reason, Way
from rollout.models import Liveness, Node, Operation, Rollout
from rollout.projections.attempts import BAD, outcomes_of
from rollout.projections.counters import operation_key
from rollout.queries.nodes import by_node, node_row
from rollout.queries.rollouts import rollout_row

#: Phases of an operation that is released and has not ended.
IN_PROGRESS = (Phase.QUEUED, *sorted(RUNNING_PHASES))
#: A restart counts as over when the agent has not spoken of it for so long: its last report may come after the heartbeat that
#: does not. And it counts as over after so long, whatever the agent says; seconds.
SILENT_SECONDS = 60.0
LONGEST_RESTART = 86_400.0


def operations_by_key(keys: Iterable[str]) -> dict[str, Operation]:
    return Operation.objects.in_bulk(set(keys))


def unfinished_operations_of(*nodes: str) -> list[Operation]:
    return list(Operation.objects.filter(node__in=nodes, finished_at__isnull=True))


def operations_of_decommissioned_nodes() -> list[Operation]:
    """Return their unfinished operations."""
    decommissioned = Node.objects.filter(name=OuterRef("node"), phase=NodePhase.DECOMMISSIONED)
    return list(Operation.objects.filter(Exists(decommissioned), finished_at__isnull=True))


def overdue_operations(now: datetime) -> list[Operation]:
    """Return the operations that are released and did not end by their deadline. While an agent restarts its server, no
    deadline runs here: a server may read its data for as long as it makes progress, and its agent ends it otherwise."""
    rows = Operation.objects.filter(phase__in=IN_PROGRESS, deadline_at__lt=now)
    return list(rows.exclude(restarting_now(now)))


def restarting_now(now: datetime) -> Q:
    """Match operations in progress whose agent says that it restarts its server."""
    since = now - timedelta(seconds=SILENT_SECONDS)
    said = Liveness.objects.filter(node=OuterRef("node"), restarting_at__gt=since)
    return Q(Exists(said)) & _restarts(now)


def newest_restart_of(uid: str, now: datetime) -> datetime | None:
    """Return when the newest restart for the rollout was over; `now` while there is one. None: there was none."""
    nodes = Operation.objects.filter(_restarts(now), rollout=uid).values("node")
    at: datetime | None = Liveness.objects.filter(node__in=nodes).aggregate(at=Max("restarting_at"))["at"]
    return None if at is None else min(now, at + timedelta(seconds=SILENT_SECONDS))


def _restarts(now: datetime) -> Q:
    return Q(way=Way.RESTART, released_at__gt=now - timedelta(seconds=LONGEST_RESTART))


def newer_operations() -> QuerySet[Operation]:
    """Return a subquery: the newer operations of the same module on the same node. A failback changes no module."""
    return Operation.objects.filter(
        node=OuterRef("node"),
        module_name=OuterRef("module_name"),
        generation__gt=OuterRef("generation"),
        fails_back_to="",
    )


def operation_rows(uid: str) -> QuerySet[Operation]:
    """Return the rollout's operations in its order. Raises: `RolloutNotFoundError`."""
    if not Rollout.objects.filter(uid=uid).exists():
        raise RolloutNotFoundError
    return Operation.objects.filter(rollout=uid).order_by("ordinal")


def operation_row(uid: str, node: str) -> Operation:
    """Return the newest operation of the rollout on the node. Raises: `RolloutNotFoundError`, `NodeNotFoundError`."""
    row = Operation.objects.filter(key=operation_key(uid, node)).first()
    if row is None:
        rollout_row(uid)
        raise NodeNotFoundError(f"{node} is not part of this rollout.")
    return row


def operation_documents(rows: Sequence[Operation]) -> list[dict[str, Any]]:
    """Return the operations as JSON, each with all its outcomes; at most one query."""
    outcomes = outcomes_of(rows)
    return [operation_document(each, outcomes[each.key]) for each in rows]


def operation_document(row: Operation, outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "node": row.node,
        "module_name": row.module_name,
        "version": row.version,
        "action": row.action,
        "activation": row.activation,
        "way": row.way,
        "fails_back_to": row.fails_back_to or None,
        "phase": row.phase,
        "reason": row.reason or None,
        "message": row.message,
        "generation": row.generation,
        "attempt": row.newest_attempt,
        "wave": row.wave if row.wave >= 0 else None,
        "rollback": row.rollback,
        "requested_by": row.asked_by,
        "automatic": row.automatic,
        "canceled_by": row.canceled_by or None,
        "content_sha256": row.content_sha256 or None,
        "scheduled_at": rfc3339(row.scheduled_at),
        "released_at": rfc3339(row.released_at) if row.released_at else None,
        "started_at": rfc3339(row.started_at) if row.started_at else None,
        "finished_at": rfc3339(row.finished_at) if row.finished_at else None,
        "seconds": row.seconds,
        "swap_seconds": row.swap_seconds,
        "health": row.health,
        "restart": row.restart,
        "way_back": row.way_back,
        "outcomes": outcomes,
    }


def attempts_needing_attention(uid: str, *, limit: int) -> list[Operation]:
    """Return the first attempts that failed, also those that were retried or undone; then those in progress."""
    urgency = Case(When(phase__in=BAD, then=0), default=1)
    rows = Operation.attempts.filter(rollout=uid, phase__in=(*BAD, *IN_PROGRESS))
    return list(rows.order_by(urgency, "former", "ordinal", "generation", "attempt")[:limit])


def attempts_on(name: str) -> QuerySet[Operation]:
    """Return all operations on the node: each attempt and each undo. Raises: `NodeNotFoundError`."""
    node_row(name)
    return Operation.attempts.filter(node=name)


def newest_attempts_on(name: str, *, limit: int) -> list[Operation]:
    """Return the newest operations on the node."""
    return list(Operation.attempts.filter(node=name).order_by("-scheduled_position")[:limit])


def attempt_document(row: Operation) -> dict[str, Any]:
    """Return one entry of a node's timeline, as JSON."""
    return {
        "scheduled_at": rfc3339(row.scheduled_at),
        "finished_at": rfc3339(row.finished_at) if row.finished_at else None,
        "action": row.action,
        "module_name": row.module_name,
        "version": row.version,
        "activation": row.activation,
        "content_sha256": row.content_sha256 or None,
        "rollback": row.rollback,
        "attempt": row.newest_attempt,
        "phase": row.phase,
        "reason": row.reason or None,
        "message": row.message,
        "seconds": row.seconds,
        "rollout": row.rollout,
        "requested_by": row.asked_by,
        "automatic": row.automatic,
        "canceled_by": row.canceled_by or None,
    }


def unfinished_on(nodes: Collection[str] | None, module_name: str) -> dict[str, list[Operation]]:
    """Return the unfinished operations of the module, by node. `nodes` None: on all of them."""
    return by_node(Operation.objects.filter(module_name=module_name, finished_at__isnull=True), nodes)


def rollouts_that_lose_options(rollouts: Iterable[Rollout]) -> set[str]:
    """Return those in which a person has retried an operation that had stopped for its lost options. One query."""
    retries = {each.uid: each.retry_of for each in rollouts}
    uids = {*retries, *retries.values()} - {""}
    rows = Operation.attempts.filter(rollout__in=uids, reason=Reason.OPTIONS_LOST).values_list("rollout", "former")
    found = set(rows.order_by().distinct())
    return {
        uid for uid, retried in retries.items() if (uid, True) in found or {(retried, True), (retried, False)} & found
    }
