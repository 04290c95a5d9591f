"""`GET /v2/rollouts/{uid}/report`: the report of a rollout for a change ticket, as JSON or CSV."""

import csv
import json
from collections.abc import Iterator
from typing import Any

import msgspec
from django.http import StreamingHttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.roles import Permission
from api.errors import InvalidRequestError
from api.refusals import refuses
from rollout.domain.errors import RolloutNotFoundError
from rollout.domain.server_health import in_columns
from rollout.messages import Action
from rollout.projections.attempts import earlier
from rollout.projections.counters import COUNTERS
from rollout.queries.report import CHUNK, Report, from_to, node_records, report_of

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
    *in_columns(None),
    "late",
    "retry_of",
    "rollback_of",
    "retried_by",
    "rolled_back_by",
    "requested_by",
    "automatic",
    "server_log",
)
#: A spreadsheet takes what begins so for a formula (OWASP, "CSV Injection"); the last four are the full-width forms.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def as_json(report: Report) -> Iterator[str]:
    """Yield one JSON document, its nodes last."""
    yield msgspec.json.encode(report.rollout).decode()[:-1] + ', "nodes": ['
    separator = "\n"
    for node in node_records(report):
        yield separator + json.dumps(node)
        separator = ",\n"
    yield "\n]}\n"


class _Line:
    """What `csv` writes to."""

    def write(self, text: str) -> str:
        return text


def as_csv(report: Report) -> Iterator[str]:
    """Yield the lines of one table. `record` is the kind of a row: the rollout, an action, a stop, nodes left unchanged,
    nodes that failed for the same cause, what scratch servers have shown, a wave, an earlier attempt, or a node with its newest attempt."""
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
    for failure in rollout["failures"]:
        text, lines = failure["text"], _joined(failure["server_log"])
        yield {"record": "failure", "reason": failure["reason"], "message": text, "server_log": lines}
    if rollout["learned"]:
        yield {"record": "learned", "message": " ".join(rollout["learned"]["in_words"])}
    for wave in rollout["waves"]:
        counts = [f"{wave['total']} total", *(f"{wave[name]} {name}" for name in _COUNTS if wave.get(name))]
        yield {**wave, "record": "wave", "at": wave["started_at"], "message": ", ".join(counts)}
    for node in node_records(report):
        former = earlier(node["outcomes"], has_ended=node["finished_at"] is not None)
        yield from ({**_attempt(node, each), "module_name": rollout["module_name"]} for each in former)
        yield {
            **node,
            **in_columns(node["health"]),
            "record": "node",
            "server_log": _joined(node["server_log"]),
            "at": node["released_at"],
            "actor": node["canceled_by"],
            "module_name": rollout["module_name"],
        }


def _joined(lines: list[str]) -> str:
    return "\n".join(lines)


def _attempt(node: dict[str, Any], outcome: dict[str, Any]) -> dict[str, Any]:
    return {
        **outcome,
        **in_columns(outcome["health"]),
        **from_to(outcome["had"], outcome["action"], outcome["version"], outcome["content_sha256"]),
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
        """Return the rollout for a change ticket: who requested and approved it, its waves, what was done by hand, what stopped it, why nodes failed,
        and each node with what it had, what it got and the outcome of every attempt. `complete` is false while it has not
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
        if len(held) == CHUNK:
            yield "".join(held)
            held.clear()
    yield "".join(held)
