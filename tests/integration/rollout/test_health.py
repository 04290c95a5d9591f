"""What nodes report about the health of their servers: recorded, shown, and judged while a wave soaks."""

import csv
import io
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from msgspec import to_builtins

from eventstore import database_now
from rollout.delivery import ingestion
from rollout.messages import Phase, Reason, ServerHealth, ServerState, ServerStatistics
from rollout.models import NodeFacts
from rollout.process import advance as advance_module
from rollout.process.advance import advance
from rollout.process.timeouts import end_overdue_operations
from rollout.queries.explanations import of_node, of_rollout
from rollout.queries.harm import harmed_nodes
from rollout.services.rollouts import pause_rollout, resume_rollout
from tests.recorded_fleet import (
    differences,
    fleet,
    grew,
    heartbeat_of,
    installed,
    operation,
    overdue,
    rollout,
    say,
    start,
)
from ui.cells import page_url

pytestmark = pytest.mark.django_db

HEALTH = ServerHealth(
    before=ServerStatistics(calls=200, failed_calls=4, p99_usec=13.0, used_memory=1_500_000, evicted_keys=0),
    after=ServerStatistics(calls=300, failed_calls=60, p99_usec=25.0, used_memory=2_000_000, evicted_keys=7),
    restarts=1,
    run_id="a",
    unexpected_error_replies=2,
)
WELL: dict[str, Any] = {"run_id": "a", "unexpected_error_replies": 2}
CRASHED: dict[str, Any] = {"run_id": "b", "unexpected_error_replies": 0, "crash": "Its log has a crash report."}


def beat(name, **facts):
    state = ServerState(**WELL | facts)
    ingestion.record_heartbeats(
        [heartbeat_of(name, modules=[installed()]) | {"facts": to_builtins(state), "doctor": ()}]
    )


def soaking(count=1, **more):
    fleet(count)
    uid = start(careful={"canary": 0, "soak_seconds": 600.0, **more})
    for number in range(count):
        beat(f"n{number:04}")
        say(uid, f"n{number:04}", health=HEALTH)
    advance(uid)
    assert rollout(uid).waves[0]["phase"] == "soaking"
    return uid


# --- Recorded and shown


def test_the_health_is_part_of_the_operation(admin):
    fleet(1)
    uid = start()
    say(uid, "n0000", message="No client called its commands while it settled.", health=HEALTH)
    shown = admin.get(f"/v2/rollouts/{uid}/nodes/n0000").json()
    assert shown["health"] == to_builtins(HEALTH)
    assert shown["outcomes"][0]["health"] == to_builtins(HEALTH)
    assert shown["message"] == "No client called its commands while it settled."


def test_an_operation_without_a_load_has_none(admin):
    fleet(1)
    uid = start()
    say(uid, "n0000")
    assert admin.get(f"/v2/rollouts/{uid}/nodes/n0000").json()["health"] is None


def test_the_report_has_it(admin):
    fleet(1)
    uid = start()
    say(uid, "n0000", health=HEALTH)
    text = b"".join(admin.get(f"/v2/rollouts/{uid}/report?format=csv").streaming_content).decode()
    (row,) = [each for each in csv.DictReader(io.StringIO(text)) if each["record"] == "node"]
    assert (row["calls_before"], row["calls_after"], row["failed_calls_after"]) == ("200", "300", "60")
    assert (row["p99_usec_after"], row["evicted_keys_after"], row["rejected_connections_after"]) == ("25.0", "7", "")
    assert (row["used_memory_before"], row["used_memory_after"]) == ("1500000", "2000000")


def test_the_console_shows_it(client, alice):
    client.force_login(alice)
    fleet(1)
    uid = start()
    say(uid, "n0000", health=HEALTH)
    page = client.get(page_url("rollout_operation", operation(uid, "n0000").key))
    text = page.content.decode()
    assert "Memory: 1.50 MB before, 2.00 MB after" in text
    assert "p99 latency: 0.013 ms before, 0.025 ms after" in text
    assert "Evicted keys: 0 before, 7 after" in text
    assert "Restarts while it settled: 1" in text
    summary = of_node(uid, "n0000").document["summary"]
    assert "p99 latency: 0.013 ms before, 0.025 ms after; Memory: 1.50 MB before, 2.00 MB after;" in summary


def test_a_hang_is_shown_while_the_operation_goes_on(admin):
    fleet(1)
    uid = start()
    words = "The server has not answered for 10 s. If it hangs, only SIGKILL ends it."
    say(uid, "n0000", Phase.LOADING, reason=Reason.SERVER_HANGS, message=words)
    shown = admin.get(f"/v2/rollouts/{uid}/nodes/n0000").json()
    assert (shown["phase"], shown["reason"], shown["message"]) == ("loading", "server_hangs", words)
    assert of_node(uid, "n0000").document["summary"].count("only SIGKILL ends it") == 1
    say(uid, "n0000", Phase.PROBING)
    assert (operation(uid, "n0000").reason, operation(uid, "n0000").message) == ("", "")


def test_the_deadline_says_what_the_agent_has_noted():
    fleet(1)
    uid = start(careful={"canary": 0})
    words = "The link to the master was up before, and is down for 6 s."
    say(uid, "n0000", Phase.SETTLING, reason=Reason.LINK_DOWN, message=words)
    overdue("n0000")
    end_overdue_operations()
    found = operation(uid, "n0000")
    assert (found.phase, found.reason) == ("timed_out", "node_deadline")
    assert found.message == f"n0000 did not finish before its deadline; its last phase was settling. {words}"


# --- The soak


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (CRASHED, "crashed since"),
        ({"unexpected_error_replies": 5}, "3 commands of its master"),
        (
            {"run_id": "b", "unexpected_error_replies": 1},
            "1 command of its master with an error since, and lost this write",
        ),
        ({"unexpected_error_replies": 1}, "1 command of its master with an error since, and lost this write"),
        ({"role": "replica", "link_status": "down", "link_down_seconds": 61}, "down for 61 s"),
    ],
    ids=["crash", "error replies", "error replies after a restart", "error replies after CONFIG RESETSTAT", "link"],
)
def test_a_server_that_is_harmed_during_the_soak_stops_the_rollout(facts, words):
    uid = soaking(2)
    beat("n0001", **facts)
    advance(uid)
    assert (rollout(uid).phase, rollout(uid).reason) == ("paused", "error_threshold")
    summary = of_rollout(uid).document["summary"]
    assert "n0001: " in summary
    assert words in summary
    assert words in of_node(uid, "n0001").document["summary"]
    assert words not in of_node(uid, "n0000").document["summary"]


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"run_id": "b", "unexpected_error_replies": 0},
        {"link_status": "down", "link_down_seconds": 60},
        {"crash": "Its log has a crash report."},
        {"unexpected_error_replies": None},
    ],
    ids=["well", "restarted", "link just lost", "crashed before the load", "unknown"],
)
def test_a_server_that_is_not_harmed(facts):
    uid = soaking()
    beat("n0000", **facts)
    advance(uid)
    assert rollout(uid).phase == "running"
    assert harmed_nodes(rollout(uid)) == {}


def soak_of(uid):
    wave = rollout(uid).waves[0]
    return wave["phase"], datetime.fromisoformat(wave["soak_until"])


def test_after_a_restart_the_soak_begins_again_and_nothing_is_removed():
    uid = soaking(2)
    beat("n0001", run_id="b", unexpected_error_replies=0)
    before = database_now()
    assert grew(lambda: advance(uid)) == 1
    phase, until = soak_of(uid)
    assert phase == "soaking"
    assert abs((until - before).total_seconds() - 600) < 5
    assert grew(lambda: advance(uid)) == 0
    assert operation(uid, "n0001").phase == "succeeded"
    assert differences() == {}


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_restart_at_the_end_of_the_soak(monkeypatch, is_paused):
    """It was not looked at in between, as while the rollout was paused."""
    uid = soaking()
    _, until = soak_of(uid)
    restarted = until - timedelta(seconds=1)
    NodeFacts.objects.update(restarts=[restarted.timestamp()], run_id="b")
    if is_paused:
        pause_rollout(uid)
    monkeypatch.setattr(advance_module, "database_now", lambda: until + timedelta(seconds=2))
    if is_paused:
        advance(uid)
        resume_rollout(uid)
    advance(uid)
    assert soak_of(uid) == ("soaking", restarted + timedelta(seconds=600))
    monkeypatch.setattr(advance_module, "database_now", lambda: restarted + timedelta(seconds=601))
    advance(uid)
    assert rollout(uid).phase == "succeeded"


def test_a_restart_before_the_soak_counts_for_nothing():
    uid = soaking()
    _, until = soak_of(uid)
    NodeFacts.objects.update(restarts=[(until - timedelta(seconds=601)).timestamp()], run_id="b")
    assert grew(lambda: advance(uid)) == 0


@pytest.mark.dialect
def test_a_restart_before_the_success_that_is_heard_later_counts_for_nothing():
    """As where a person restarts the server, and the operation waits for that."""
    fleet(1)
    uid = start(careful={"canary": 0, "soak_seconds": 600.0})
    beat("n0000", run_id="c")
    say(uid, "n0000", health=HEALTH)
    advance(uid)
    before = soak_of(uid)
    beat("n0000")
    assert len(NodeFacts.objects.get().restarts) == 1
    assert grew(lambda: advance(uid)) == 0
    assert soak_of(uid) == before


def test_two_restarts_within_a_minute_are_a_crash():
    uid = soaking()
    beat("n0000", run_id="b", unexpected_error_replies=0)
    advance(uid)
    assert rollout(uid).phase == "running"
    beat("n0000", run_id="c", unexpected_error_replies=0)
    advance(uid)
    assert rollout(uid).phase == "paused"
    assert "restarted twice" in of_node(uid, "n0000").document["summary"]


def test_what_was_heard_before_a_success_is_no_harm():
    """The server has crashed before the operation, and was started again after that heartbeat."""
    fleet(1)
    uid = start(careful={"canary": 0, "soak_seconds": 600.0})
    beat("n0000", run_id="c")
    beat("n0000", **CRASHED)
    say(uid, "n0000", health=HEALTH)
    advance(uid)
    assert rollout(uid).waves[0]["phase"] == "soaking"
    assert harmed_nodes(rollout(uid)) == {}
    assert not any(word in str(of_node(uid, "n0000").document) for word in ("crashed", "restarted"))
    beat("n0000", **CRASHED)
    assert list(harmed_nodes(rollout(uid))) == ["n0000"]
    assert "crashed" in str(of_node(uid, "n0000").document)


def test_a_restart_is_shown():
    uid = soaking()
    beat("n0000", run_id="b", unexpected_error_replies=0)
    assert "restarted since" in of_node(uid, "n0000").document["summary"]


def test_a_rollout_that_soaks_looks_every_ten_seconds():
    uid = soaking()
    wake_at = advance(uid)
    assert wake_at is not None
    assert wake_at <= database_now() + timedelta(seconds=10)


def test_a_person_accepts_the_harm():
    uid = soaking(2)
    beat("n0001", **CRASHED)
    advance(uid)
    resume_rollout(uid)
    advance(uid)
    assert rollout(uid).phase == "running"


def test_nothing_is_read_without_a_soak():
    fleet(1)
    uid = start()
    say(uid, "n0000", health=HEALTH)
    beat("n0000", **CRASHED)
    row = rollout(uid)
    with CaptureQueriesContext(connection) as queries:
        assert harmed_nodes(row) == {}
    assert len(queries) == 0


def test_more_error_replies_are_written_at_once():
    fleet(1)
    beat("n0000", unexpected_error_replies=0)
    assert NodeFacts.objects.get().suspect is False
    beat("n0000", unexpected_error_replies=1)
    row = NodeFacts.objects.get()
    assert (row.server["unexpected_error_replies"], row.suspect) == (1, True)
