"""What servers logged during failures: kept in a table of its own, for some days."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from eventstore import database_now
from eventstore.models import StoredEvent
from rollout.delivery import ingestion
from rollout.domain.retries import Retries
from rollout.messages import LONGEST_LOG_LINE, Phase, Reason
from rollout.models import ServerLog
from rollout.tasks import sweep
from tests.recorded_fleet import fleet, operation, report_of, say, start

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
    return {row.attempt: (row.telling, row.lines) for row in ServerLog.objects.all()}


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
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, server_log_days=2)
    uid = start()
    say(uid, node, Phase.FAILED, **REFUSED)
    ServerLog.objects.update(recorded_at=database_now() - timedelta(days=1.9))
    sweep()
    assert kept()
    ServerLog.objects.update(recorded_at=database_now() - timedelta(days=2.1))
    sweep()
    assert not kept()
    assert operation(uid, node).reason == Reason.LOAD_FAILED
