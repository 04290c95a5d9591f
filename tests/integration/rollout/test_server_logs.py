"""What servers logged during failures: kept in a table of its own, for some days."""

import csv
import io
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from django.test import Client

from eventstore import database_now
from eventstore.models import StoredEvent
from rollout.delivery import ingestion
from rollout.domain.retries import Retries
from rollout.messages import LONGEST_LOG_LINE, Phase, Reason
from rollout.models import ServerLog
from rollout.queries.failures import failures_of
from rollout.tasks import sweep
from tests.recorded_fleet import fleet, operation, report_of, say, start
from ui.cells import page_url

pytestmark = pytest.mark.django_db

LINES = (
    "# <greet> Greet requires redis-server 7.2",
    "# Module /m/greet/1/greet.so initialization failed. Module not loaded.",
)
REFUSED = {"reason": Reason.LOAD_FAILED, "message": "The server refuses to load greet 1.", "server_log": LINES}


@pytest.fixture
def node():
    (name,) = fleet(1)
    return name


def kept():
    return {str(row): (row.telling, row.lines) for row in ServerLog.objects.all()}


def key_of(uid, name):
    row = operation(uid, name)
    return f"{uid}:{name}:{row.generation}:{row.attempt}"


def forge(uid, name):
    """Report an operation that the node was never asked for."""
    report = report_of(uid, name, Phase.FAILED, **REFUSED)
    ingestion.record_reports([report | {"rollout": "another", "generation": 99}])


def test_it_works(node):
    uid = start()
    say(uid, node, Phase.FAILED, **REFUSED)
    assert kept() == {key_of(uid, node): ("Greet requires redis-server 7.2", list(LINES))}


def test_no_event_has_them(node):
    uid = start()
    say(uid, node, Phase.FAILED, **REFUSED)
    say(uid, node, Phase.SKIPPED, **REFUSED)
    forge(uid, node)
    events = json.dumps([[row.data, row.metadata] for row in StoredEvent.objects.all()], default=str)
    assert "refuses to load greet" in events
    assert "redis-server 7.2" not in events


def test_a_report_that_is_rejected_leaves_none(node):
    """Nobody fills the table with reports of operations that were never asked for."""
    forge(start(), node)
    assert kept() == {}


def test_a_repeated_report_changes_nothing(node):
    uid = start()
    say(uid, node, Phase.FAILED, **REFUSED)
    say(uid, node, Phase.FAILED, **REFUSED | {"server_log": ("# other",)})
    assert kept()[key_of(uid, node)][1] == list(LINES)


def test_each_attempt_has_its_own(node):
    uid = start(careful={"retries": Retries(limit=1, reasons=(Reason.LOAD_FAILED,), backoff_seconds=0)})
    say(uid, node, Phase.FAILED, **REFUSED)
    say(uid, node, Phase.FAILED, **REFUSED | {"server_log": ("# other",)})
    assert sorted(lines for _, lines in kept().values()) == [
        ["# <greet> Greet requires redis-server 7.2", LINES[1]],
        ["# other"],
    ]


def test_control_characters_of_a_node_are_escaped(node):
    uid = start()
    say(uid, node, Phase.FAILED, **REFUSED | {"server_log": ("# \x1b[31mred \u202e" + "x" * 288,)})
    ((_, (line,)),) = kept().values()
    assert line.startswith("# \\x1b[31mred \\u202exxx")
    assert len(line) == LONGEST_LOG_LINE


def test_they_are_deleted_after_some_days(node, settings):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, failure_log_days=2)
    uid = start()
    say(uid, node, Phase.FAILED, **REFUSED)
    ServerLog.objects.update(recorded_at=database_now() - timedelta(days=1.9))
    sweep()
    assert kept()
    ServerLog.objects.update(recorded_at=database_now() - timedelta(days=2.1))
    sweep()
    assert not kept()
    assert operation(uid, node).reason == Reason.LOAD_FAILED


# --- Shown ------------------------------------------------------------------------------------------------------------


TEXT = "2 nodes: load_failed: Greet requires redis-server 7.2"


@pytest.fixture
def failed():
    """The uid of a rollout in which three nodes failed, two of them for the same cause."""
    uid = start(nodes=tuple(fleet(4)))
    say(uid, "n0000", Phase.FAILED, **REFUSED)
    say(uid, "n0001", Phase.FAILED, **REFUSED)
    say(uid, "n0002", Phase.FAILED, reason=Reason.DISK_FULL, message="full")
    say(uid, "n0003")
    return uid


def in_short(failures):
    return [(each["text"], each["node"], each["server_log"]) for each in failures]


GROUPS = [(TEXT, "n0000", list(LINES)), ("1 node: disk_full", "n0002", [])]


def test_why_groups_them(admin, failed):
    why = admin.get(f"/v2/rollouts/{failed}/why").json()
    assert in_short(why["failures"]) == GROUPS
    assert f"{TEXT}." in why["summary"]


def test_why_of_a_node_has_its_own(admin, failed):
    why = admin.get(f"/v2/rollouts/{failed}/nodes/n0001/why").json()
    assert in_short(why["failures"]) == [("1 node: load_failed: Greet requires redis-server 7.2", "n0001", list(LINES))]
    assert "Its server logged: Greet requires redis-server 7.2." in why["summary"]


def test_the_report_groups_them_and_has_the_lines_of_each_node(admin, failed):
    report = json.loads(b"".join(admin.get(f"/v2/rollouts/{failed}/report").streaming_content))
    assert in_short(report["failures"]) == GROUPS
    assert [each["server_log"] for each in report["nodes"]] == [list(LINES), list(LINES), [], []]


def test_the_csv_has_them_too(admin, failed):
    answer = admin.get(f"/v2/rollouts/{failed}/report?format=csv")
    rows = list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode())))
    shown = [(each["message"], each["server_log"]) for each in rows if each["record"] == "failure"]
    assert shown == [(TEXT, "\n".join(LINES)), ("1 node: disk_full", "")]
    assert next(each["server_log"] for each in rows if each["record"] == "node") == "\n".join(LINES)


def test_a_retry_does_not_hide_them(admin, node):
    uid = start(careful={"retries": Retries(limit=1, reasons=(Reason.LOAD_FAILED,), backoff_seconds=0)})
    say(uid, node, Phase.FAILED, **REFUSED)
    say(uid, node)
    why = admin.get(f"/v2/rollouts/{uid}/why").json()
    assert in_short(why["failures"]) == [("1 node: load_failed: Greet requires redis-server 7.2", node, list(LINES))]


def test_once_deleted_only_the_reasons_are_left(admin, failed):
    ServerLog.objects.all().delete()
    why = admin.get(f"/v2/rollouts/{failed}/why").json()
    assert in_short(why["failures"]) == [("2 nodes: load_failed", "n0000", []), ("1 node: disk_full", "n0002", [])]


@pytest.mark.parametrize("count", [3, 30])
def test_it_takes_as_many_queries_however_many_nodes_failed(count, django_assert_num_queries):
    names = fleet(count)
    uid = start(max_parallel=100)
    for number, name in enumerate(names):
        say(uid, name, Phase.FAILED, **REFUSED | {"server_log": (f"# <greet> cause {number}", LINES[1])})
    with django_assert_num_queries(3):
        assert len(failures_of(uid)) == min(count, 10)


def test_the_console_shows_them(alice, failed):
    browser = Client()
    browser.force_login(alice)
    rollout = browser.get(page_url("rollout_rollout", failed)).content.decode()
    assert TEXT in rollout
    assert "# &lt;greet&gt; Greet requires redis-server 7.2" in rollout
    assert "Greet requires redis-server 7.2" in browser.get(page_url("rollout_node", "n0001")).content.decode()
