"""`GET /v2/rollouts/{uid}/report`: the whole story of a rollout for a change ticket, as JSON or CSV.

Who asked for it and who approved, by which strategy, its waves, what was done by hand, who or which rule stopped it, and
each node: what it had, what it got, and the outcome of every attempt. Nothing that happens later takes an outcome away.
One that has not ended yet is told as far as it is, and says so (`complete`). Streamed, in chunks of 2,000 nodes, each in
two queries.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.roles import Permission
from api.errors import InvalidRequestError
from api.fields import rfc3339
from api.refusals import refuses
from eventstore import RecordedEvent, database_now, give_connection_back, is_person, load_positions, snapshot
from rollout.domain.errors import RolloutNotFoundError
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
from rollout.projections.counters import COUNTERS
from rollout.projections.outcomes import (
    STOPS,
    VERBS,
    action_of,
    earlier,
    had_by,
    nodes_of,
    outcomes_of,
    remark_of,
    stop_of,
)
from rollout.projections.rollout_document import document
from rollout.queries.rollouts import rollout_row

#: The actions of the report beside those of `outcomes.action_of`: the start, and the stops that people caused.
_MORE_VERBS: dict[type, str] = {
    RolloutStarted: "start",
    RolloutRejected: "reject",
    RolloutPaused: "pause",
    AbortRequested: "abort",
    RollbackRequested: "rollback",
}
_CHUNK = 2000
_COUNTS = (*COUNTERS, "failed_before")

COLUMNS = (
    "record",
    "at",
    "finished_at",
    "actor",
    "action",
    "module_name",
    "wave",
    "node",
    "phase",
    "reason",
    "message",
    "rule",
    "attempts",
    "rollback",
    "from_version",
    "from_activation",
    "from_sha256",
    "to_version",
    "to_sha256",
    "seconds",
    "swap_seconds",
    "late",
    "retry_of",
    "rollback_of",
    "retried_by",
    "rolled_back_by",
    "requested_by",
    "automatic",
)
#: A spreadsheet takes what begins so for a formula (OWASP, "CSV Injection").
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`rollout` has all but the nodes, which `operations` are read for while they are told."""

    rollout: dict[str, Any]
    operations: QuerySet[Operation]


@snapshot()
def report_of(uid: str) -> Report:
    """Three queries of one moment, four if a newer rollout took over nodes; the nodes are read while they are told.

    Raises: `RolloutNotFoundError`.
    """
    row = rollout_row(uid)
    shown = document(row)  # the stored one may lack what this version adds, until the rows are rebuilt
    told = _told(row)
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
            "actions": _actions(told, _who_took_over(row)),
            "stops": _stops(told),
            "left_alone": _left_alone(told),
            "waves": shown["waves"],
        },
        operations=Operation.objects.filter(rollout=row.uid).order_by("ordinal"),
    )


def _told(row: Rollout) -> list[RecordedEvent]:
    """The events that tell what people did and what stopped the rollout."""
    classes = {*_MORE_VERBS, *VERBS, *STOPS, RollbackStarted}
    if not row.canceled and all(each["action"] != "rollback" for each in row.stops):
        classes.remove(OperationFinished)  # there is one for each node, and none that a person has canceled
    positions = TimelineEntry.objects.filter(rollout=row.uid).values("position")
    return load_positions(positions, event_classes=classes)


def _who_took_over(row: Rollout) -> dict[UUID | None, str]:
    """The users whose newer rollouts took over nodes, by the event with which the operation ended."""
    if not row.superseded:
        return {}
    rows = Operation.attempts.filter(rollout=row.uid, phase=Phase.CANCELED, reason=Reason.NEWER_ROLLOUT)
    return dict(rows.values_list("event_id", "canceled_by"))


def _stops(told: list[RecordedEvent]) -> list[dict[str, Any]]:
    state, found = ROLLOUT.initial, []
    for each in told:
        if isinstance(each.event, OperationFinished | OperationCancelRequested):
            continue
        found.append(stop_of(each, state))
        state = ROLLOUT.evolve(state, each.event)
    return [stop for stop in found if stop is not None]


def _left_alone(told: list[RecordedEvent]) -> list[dict[str, Any]]:
    """All nodes that a rollback has left alone, with the rollout that came after this one, or after the one it takes back."""
    groups = [group for each in told for group in getattr(each.event, "left_alone", ())]
    return [{"rollout": each.rollout, "nodes": list(each.nodes)} for each in groups]


def _actions(told: list[RecordedEvent], took_over: dict[UUID | None, str]) -> list[dict[str, Any]]:
    """What people did, the start, and which nodes newer rollouts took over. An action names all its nodes."""
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
        for each in told
        if (done := action_of(each, took_over.get(each.event_id, "")) or _more(each)) is not None
    ]


def _more(recorded: RecordedEvent) -> dict[str, Any] | None:
    """The start, whoever did it, and what a person stopped: a stop by a rule is no action."""
    verb = _MORE_VERBS.get(type(recorded.event))
    if verb is None or (verb != "start" and not is_person(recorded.actor)):
        return None
    return {"action": verb, "actor": recorded.shown_actor}


def _node(row: Operation, outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "node": row.node,
        "wave": row.wave if row.wave >= 0 else None,
        "phase": row.phase,
        "reason": row.reason or None,
        "message": row.message,
        "attempts": row.newest_attempt,
        "rollback": row.rollback,
        "requested_by": row.asked_by,
        "automatic": row.automatic,
        "canceled_by": row.canceled_by or None,
        **_from_to(had_by(row), row.action, row.version, row.content_sha256 or None),
        "released_at": rfc3339(row.released_at) if row.released_at else None,
        "finished_at": rfc3339(row.finished_at) if row.finished_at else None,
        "seconds": row.seconds,
        "swap_seconds": row.swap_seconds,
        "late": row.late or None,
        "outcomes": outcomes,
    }


def _from_to(had: dict[str, Any] | None, action: str, version: int, content_sha256: str | None) -> dict[str, Any]:
    """What the node had loaded, or else had the files of; and what it was to get."""
    gets = action == Action.INSTALL
    return {
        "from_version": had["version"] if had else None,
        "from_activation": had["activation"] if had else None,
        "from_sha256": had["content_sha256"] if had else None,
        "to_version": version if gets else None,
        "to_sha256": content_sha256 if gets else None,
    }


def _nodes(report: Report) -> Iterator[dict[str, Any]]:
    """By short queries: the client may take long to read what lies between them."""
    rows = report.operations[:_CHUNK]
    while batch := list(rows):
        outcomes = outcomes_of(batch)
        give_connection_back()
        yield from (_node(each, outcomes[each.key]) for each in batch)
        if len(batch) < _CHUNK:
            return
        rows = report.operations.filter(ordinal__gt=batch[-1].ordinal)[:_CHUNK]


def as_json(report: Report) -> Iterator[str]:
    """One document, its nodes last."""
    yield msgspec.json.encode(report.rollout).decode()[:-1] + ', "nodes": ['
    separator = "\n"
    for node in _nodes(report):
        yield separator + json.dumps(node)
        separator = ",\n"
    yield "\n]}\n"


class _Line:
    """What `csv` writes to."""

    def write(self, text: str) -> str:
        return text


def as_csv(report: Report) -> Iterator[str]:
    """One table: `record` says what a row is about, a rollout, an action, a stop, nodes that were left alone, a wave, an
    attempt that another one followed, or a node with its newest attempt."""
    writer = csv.DictWriter(_Line(), COLUMNS, extrasaction="ignore", lineterminator="\r\n")
    yield writer.writeheader()
    for record in _records(report):
        yield writer.writerow({name: _defused(value) for name, value in record.items()})


def _records(report: Report) -> Iterator[dict[str, Any]]:
    rollout = report.rollout
    strategy = json.dumps(rollout["strategy"], sort_keys=True)
    state = "ended" if rollout["complete"] else "has not ended yet"
    yield {
        **rollout,
        "record": "rollout",
        "at": rollout["created_at"],
        "actor": rollout["requested_by"],
        "action": "rollback" if rollout["rollback_of"] else rollout["action"],
        "to_version": rollout["version"]
        if rollout["action"] == Action.INSTALL and not rollout["rollback_of"]
        else None,
        "retried_by": " ".join(rollout["retried_by"]),
        "message": f"{rollout['title']}: {rollout['message']}; {state}; strategy {strategy}; uid {rollout['uid']}",
    }
    for action in rollout["actions"]:
        yield {**action, "record": "action", "message": action["remark"], "node": " ".join(action["nodes"])}
    for stop in rollout["stops"]:
        yield {**stop, "record": "stop", "actor": stop["by"]}
    for left in rollout["left_alone"]:
        message = f"changed since, or about to be, by rollout {left['rollout']}"
        yield {"record": "left_alone", "node": " ".join(left["nodes"]), "message": message}
    for wave in rollout["waves"]:
        counts = [f"{wave['total']} total", *(f"{wave[name]} {name}" for name in _COUNTS if wave.get(name))]
        yield {**wave, "record": "wave", "at": wave["started_at"], "message": ", ".join(counts)}
    for node in _nodes(report):
        former = earlier(node["outcomes"], has_ended=node["finished_at"] is not None)
        yield from ({**_attempt(node, each), "module_name": rollout["module_name"]} for each in former)
        yield {
            **node,
            "record": "node",
            "at": node["released_at"],
            "actor": node["canceled_by"],
            "module_name": rollout["module_name"],
        }


def _attempt(node: dict[str, Any], outcome: dict[str, Any]) -> dict[str, Any]:
    return {
        **outcome,
        **_from_to(outcome["had"], outcome["action"], outcome["version"], outcome["content_sha256"]),
        "record": "attempt",
        "at": outcome["released_at"],
        "finished_at": outcome["at"],
        "actor": outcome["by"],
        "attempts": outcome["attempt"],
        "node": node["node"],
        "wave": node["wave"],
    }


def _defused(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


class RolloutReportView(APIView):
    permissions = {"GET": Permission.VIEW_CLUSTER_MODULES}

    @extend_schema(
        operation_id="v2_rollouts_report",
        responses={(200, "application/json"): dict, (200, "text/csv"): str},
        parameters=[OpenApiParameter("format", str, enum=["json", "csv"], default="json")],
    )
    @refuses(RolloutNotFoundError)
    def get(self, request: Request, uid: str) -> StreamingHttpResponse:
        """The rollout for a change ticket: who asked and approved, its waves, what was done by hand, what stopped it, and
        each node with what it had, what it got and the outcome of every attempt. `complete` is false while it has not
        ended."""
        match request.query_params.get("format", "json"):
            case "json" as ending:
                lines, content_type = as_json, "application/json"
            case "csv" as ending:
                lines, content_type = as_csv, "text/csv; charset=utf-8"
            case _:
                raise InvalidRequestError("format: must be json or csv.")
        report = report_of(uid)
        name = f"rollout-{report.rollout['module_name']}-{report.rollout['version']}-{uid[:8]}.{ending}"
        return StreamingHttpResponse(
            _together(lines(report)),
            content_type=content_type,
            headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"},
        )


def _together(lines: Iterator[str]) -> Iterator[str]:
    """Many lines at a time: each that is sent by itself is a packet."""
    held: list[str] = []
    for line in lines:
        held.append(line)
        if len(held) == _CHUNK:
            yield "".join(held)
            held.clear()
    yield "".join(held)
