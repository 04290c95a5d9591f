"""The report of a rollout: who asked for what, what happened, and how each node ended."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from api.fields import rfc3339
from eventstore import RecordedEvent, database_now, give_connection_back, is_person, load_positions, snapshot
from rollout.domain.placement.events import OperationCancelRequested, OperationFinished
from rollout.domain.rollout.decider import ROLLOUT
from rollout.domain.rollout.events import (
    AbortRequested,
    RollbackRequested,
    RollbackStarted,
    RolloutPaused,
    RolloutRejected,
    RolloutStarted,
    WavePassed,
)
from rollout.messages import Action, Phase, Reason
from rollout.models import Operation, Rollout, TimelineEntry
from rollout.projections.actions import STOPS, VERBS, action_of, nodes_of, remark_of, stop_of
from rollout.projections.attempts import had_by, outcomes_of
from rollout.projections.rollout_document import document
from rollout.queries.failures import failures_of, server_logs_of
from rollout.queries.learned import build_facts, learned_document
from rollout.queries.rollouts import rollout_row

#: Actions of the report that `outcomes.action_of` does not name: the start, and the stops by people.
_MORE_VERBS: dict[type, str] = {
    RolloutStarted: "start",
    RolloutRejected: "reject",
    RolloutPaused: "pause",
    AbortRequested: "abort",
    RollbackRequested: "rollback",
}
#: Operations that are read by one query.
CHUNK = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`rollout`: the report without its nodes. `operations`: their rows, which `node_records` reads while the client does."""

    rollout: dict[str, Any]
    operations: QuerySet[Operation]


@snapshot()
def report_of(uid: str) -> Report:
    """Return the report: six queries of one moment, two more if nodes failed, one more if a newer rollout took over nodes.

    Raises: `RolloutNotFoundError`.
    """
    row = rollout_row(uid)
    shown = document(row)  # not the stored one: until the rows are rebuilt, it may lack fields that this version adds
    events = _events_of(row)
    return Report(
        rollout={
            "generated_at": rfc3339(database_now()),
            "complete": row.finished_at is not None,
            **{
                name: value
                for name, value in shown.items()
                if name not in {"actor", "slowest_nodes", "progress", "waves"}
            },
            "requested_by": row.actor,
            "counts": {name: value for name, value in shown["progress"].items() if name != "eta_seconds"},
            "actions": _actions(events, _who_took_over(row)),
            "stops": _stops(events),
            "left_alone": _left_unchanged(events),
            "failures": failures_of(uid),
            "waves": shown["waves"],
            "learned": _learned(row),
        },
        operations=Operation.objects.filter(rollout=row.uid).order_by("ordinal"),
    )


def _learned(row: Rollout) -> dict[str, Any] | None:
    """Return what scratch servers have shown about the builds of the rollout, None for a removal."""
    rows = Operation.objects.filter(rollout=row.uid, action=Action.INSTALL).order_by()
    contents = set(rows.values_list("content_sha256", flat=True).distinct())
    return learned_document(contents, build_facts(contents)) if contents else None


def _events_of(row: Rollout) -> list[RecordedEvent]:
    """Return the events by which people acted and by which the rollout was stopped."""
    classes = {*_MORE_VERBS, *VERBS, *STOPS, RollbackStarted}
    if not row.canceled and all(each["action"] != "rollback" for each in row.stops):
        classes.remove(OperationFinished)  # there is one for each node, and a person canceled none
    positions = TimelineEntry.objects.filter(rollout=row.uid).values("position")
    return load_positions(positions, event_classes=classes)


def _who_took_over(row: Rollout) -> dict[UUID | None, str]:
    """Return the users whose newer rollouts took over nodes, by the event that ended the operation."""
    if not row.superseded:
        return {}
    rows = Operation.attempts.filter(rollout=row.uid, phase=Phase.CANCELED, reason=Reason.NEWER_ROLLOUT)
    return dict(rows.values_list("event_id", "canceled_by"))


def _stops(events: list[RecordedEvent]) -> list[dict[str, Any]]:
    state, found = ROLLOUT.initial, []
    for each in events:
        if isinstance(each.event, OperationFinished | OperationCancelRequested):
            continue
        found.append(stop_of(each, state))
        state = ROLLOUT.evolve(state, each.event)
    return [stop for stop in found if stop is not None]


def _left_unchanged(events: list[RecordedEvent]) -> list[dict[str, Any]]:
    """Return the nodes that a rollback left unchanged, by the newer rollout that changed them."""
    groups = [group for each in events for group in getattr(each.event, "left_alone", ())]
    return [{"rollout": each.rollout, "nodes": list(each.nodes)} for each in groups]


def _actions(events: list[RecordedEvent], took_over: dict[UUID | None, str]) -> list[dict[str, Any]]:
    """Return the start, what people did, and which nodes newer rollouts took over. An action names all its nodes."""
    return [
        {
            "at": rfc3339(each.recorded_at),
            "actor": done["actor"],
            "action": done["action"],
            "remark": remark_of(each.event) or None,
            "reason": getattr(each.event, "reason", None) or None,
            "wave": each.event.wave if isinstance(each.event, WavePassed) else None,
            "nodes": nodes_of(each.event),
            "position": each.position,
        }
        for each in events
        if (done := action_of(each, took_over.get(each.event_id, "")) or _more(each)) is not None
    ]


def _more(recorded: RecordedEvent) -> dict[str, Any] | None:
    """Return the start, by anyone, or a stop by a person. A stop by a rule is no action."""
    verb = _MORE_VERBS.get(type(recorded.event))
    if verb is None or (verb != "start" and not is_person(recorded.actor)):
        return None
    return {"action": verb, "actor": recorded.shown_actor}


def _node(row: Operation, outcomes: list[dict[str, Any]], server_log: list[str]) -> dict[str, Any]:
    return {
        "node": row.node,
        "wave": row.wave if row.wave >= 0 else None,
        "way": row.way,
        "fails_back_to": row.fails_back_to or None,
        "phase": row.phase,
        "reason": row.reason or None,
        "message": row.message,
        "attempts": row.newest_attempt,
        "rollback": row.rollback,
        "requested_by": row.asked_by,
        "automatic": row.automatic,
        "canceled_by": row.canceled_by or None,
        **from_to(had_by(row), row.action, row.version, row.content_sha256 or None),
        "released_at": rfc3339(row.released_at) if row.released_at else None,
        "finished_at": rfc3339(row.finished_at) if row.finished_at else None,
        "seconds": row.seconds,
        "swap_seconds": row.swap_seconds,
        "health": row.health,
        "restart": row.restart,
        "late": row.late or None,
        "server_log": server_log,
        "outcomes": outcomes,
    }


def from_to(had: dict[str, Any] | None, action: str, version: int, content_sha256: str | None) -> dict[str, Any]:
    """Return what the node had, loaded or else as files, and what the operation installs."""
    gets = action == Action.INSTALL
    return {
        "from_version": had["version"] if had else None,
        "from_activation": had["activation"] if had else None,
        "from_sha256": had["content_sha256"] if had else None,
        "to_version": version if gets else None,
        "to_sha256": content_sha256 if gets else None,
    }


def node_records(report: Report) -> Iterator[dict[str, Any]]:
    """Yield the nodes. Between two chunks the connection is given back: a client may read slowly."""
    rows = report.operations[:CHUNK]
    while batch := list(rows):
        outcomes = outcomes_of(batch)
        logs = server_logs_of(batch[0].rollout, [each.node for each in batch])
        give_connection_back()
        yield from (_node(each, outcomes[each.key], logs.get(each.node, [])) for each in batch)
        if len(batch) < CHUNK:
            return
        rows = report.operations.filter(ordinal__gt=batch[-1].ordinal)[:CHUNK]
