"""docs/explanation/log-growth.md: how much the log grows for a node's operation, as measured here."""

import re
from pathlib import Path

import pytest
from django.db import connection

from eventstore import StoredEvent
from rollout.delivery import ingestion
from rollout.process.advance import advance
from tests.recorded_fleet import installed, inventory, join, report_of, rollout, start, upload

PAGE = (Path(__file__).parents[3] / "docs/explanation/log-growth.md").read_text()
NODES = 200
CONTENT = "c" * 64
#: Of SQLite: the table, and its indexes.
TREES = (
    "eventstore_event",
    "events_by_type",
    "sqlite_autoindex_eventstore_event_1",
    "sqlite_autoindex_eventstore_event_2",
)

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


def on_disk():
    """Bytes of the log's table and its indexes."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_total_relation_size('eventstore_event')")
        else:
            cursor.execute(
                "SELECT sum(pgsize) FROM dbstat WHERE name IN ({})".format(", ".join(f"'{each}'" for each in TREES))
            )
        return cursor.fetchone()[0]


def said(name):
    (number,) = re.findall(rf"^\| {name} \| ([\d,.]+)", PAGE, re.MULTILINE)
    return float(number.replace(",", ""))


def test_the_numbers_are_right():
    names = [f"node-{number:04}" for number in range(NODES)]
    upload(content=CONTENT)
    join(*names)
    events, bytes_before = StoredEvent.objects.count(), on_disk()
    uid = start(max_parallel=NODES)
    has = installed(content=CONTENT)
    ingestion.record_reports([report_of(uid, name, seconds=1.0, inventory=inventory(has)) for name in names])
    advance(uid)
    assert rollout(uid).phase == "succeeded"
    added = StoredEvent.objects.order_by("position")[events:]
    data = sum(len(each.data) + len(str(each.metadata)) for each in added)
    for name, measured in {"events": len(added), "bytes of JSON": data}.items():
        assert said(name) == pytest.approx(measured / NODES, rel=0.15), name
    # Less where tests that were rolled back have left pages to use again.
    assert (on_disk() - bytes_before) / NODES <= 1.15 * said(f"bytes on disk, {connection.vendor}")
