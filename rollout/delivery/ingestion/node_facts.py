"""Records what agents report about their servers. Two queries for any number of nodes, and none creates an event."""

import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from rollout.domain.node.harm import is_suspect
from rollout.domain.node.health import LOOP_RESTARTS, failed_checks
from rollout.messages import FindingStatus, Heartbeat
from rollout.models import NodeFacts

#: Facts of which only numbers have changed are written again after so many seconds.
FACTS_SECONDS = 60.0
#: Restarts that are kept.
MOST_RESTARTS = 10
#: They change with each heartbeat.
_NUMBERS = ("uptime_seconds", "used_memory")
_NUMBER = re.compile(r"\d[\d.,]*")
_CONFLICT = "loadmodule_owner"
_REFUSES_LOAD = "enable_module_command"


def record_facts(heartbeats: Collection[Heartbeat], now: datetime) -> None:
    """Write the facts of these heartbeats, which are in the order of names. Their rows of `Liveness` are locked."""
    reported = [each for each in heartbeats if each.facts is not None]
    if not reported:
        return
    known = NodeFacts.objects.in_bulk([each.node for each in reported])
    rows = [_row(each, known.get(each.node), now) for each in reported]
    changed = [row for row in rows if _is_news(row, known.get(row.node))]
    if changed:
        NodeFacts.objects.bulk_create(changed, update_conflicts=True, unique_fields=["node"], update_fields=_COLUMNS)


_COLUMNS = (
    "server",
    "doctor",
    "examined_at",
    "failed",
    "warned",
    "include_seen",
    "has_conflict",
    "refuses_load",
    "maintenance",
    "run_id",
    "restarts",
    "third_restart_at",
    "suspect",
    "reported_at",
)


def _row(heartbeat: Heartbeat, before: NodeFacts | None, now: datetime) -> NodeFacts:
    server: dict[str, Any] = _as_stored(heartbeat.facts)
    doctor = heartbeat.doctor
    if doctor is None and before is not None:  # the doctor examines the node now
        row = NodeFacts(doctor=before.doctor, failed=before.failed, warned=before.warned)
        row.examined_at = before.examined_at
        row.has_conflict, row.include_seen = before.has_conflict, before.include_seen
        row.refuses_load = before.refuses_load
    else:
        findings = doctor or ()
        row = NodeFacts(
            doctor=None if doctor is None else _as_stored(doctor),
            examined_at=None if (age := heartbeat.examined_seconds_ago) is None else now - timedelta(seconds=age),
            failed=len(failed_checks(findings)) if findings else None,
            warned=sum(each.status == FindingStatus.WARN for each in findings) if findings else None,
            has_conflict=_CONFLICT in failed_checks(findings),
            # Else it fails the check, and waits until a person has changed that.
            refuses_load=any(each.check == _REFUSES_LOAD and each.status == FindingStatus.WARN for each in findings),
            include_seen=server["include_seen"],
        )
    row.node, row.server, row.reported_at = heartbeat.node, server, now
    row.run_id = server["run_id"] or (before.run_id if before else "")
    row.restarts = _restarts(server, before, now)
    row.maintenance = server["maintenance"]
    row.suspect = is_suspect(server, row.restarts)
    third = row.restarts[-LOOP_RESTARTS] if len(row.restarts) >= LOOP_RESTARTS else None
    row.third_restart_at = None if third is None else datetime.fromtimestamp(third, UTC)
    return row


def _as_stored(reported: object) -> Any:
    """Return plain JSON values, as a row that is read has them: lists, not tuples."""
    return msgspec.json.decode(msgspec.json.encode(reported))


def _restarts(server: dict[str, Any], before: NodeFacts | None, now: datetime) -> list[float]:
    """Return when the server was restarted, but not by its agent."""
    if before is None:
        return []
    run_id, former = server["run_id"], before.run_id
    is_restart = run_id and former and run_id != former and former not in server["ended"]
    return [*before.restarts, now.timestamp()][-MOST_RESTARTS:] if is_restart else before.restarts


def _is_news(row: NodeFacts, before: NodeFacts | None) -> bool:
    if before is None or row.reported_at - before.reported_at >= timedelta(seconds=FACTS_SECONDS):
        return True
    return (_lasting(row.server), row.doctor) != (_lasting(before.server), before.doctor)


def _lasting(server: dict[str, Any]) -> dict[str, Any]:
    """Return the facts without those that always change."""
    replicas = [(each["address"], each["state"]) for each in server.get("replicas", [])]
    modules = [_lasting_of_module(each) for each in server.get("modules", [])]
    lasting = {name: value for name, value in server.items() if name not in _NUMBERS}
    save_problem = _NUMBER.sub("", server.get("save_problem", ""))
    return lasting | {"replicas": replicas, "modules": modules, "save_problem": save_problem}


def _lasting_of_module(module: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a module; of its calls, if there were any lately."""
    calls = module.get("recent_calls")
    lasting = {name: value for name, value in module.items() if name not in {"most_called", "clients"}}
    return lasting | {"recent_calls": None if calls is None else bool(calls)}
