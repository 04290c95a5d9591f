"""All events that one request has led to are found by an index, and those of an actor by name."""

import json
from uuid import uuid4

import pytest
from django.db import connection

from eventstore import Append, acting_as, all_events, append, by_actor, of_request, read_rows
from tests.ledger import Deposited

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("ledger")]


def deposit(stream, *, actor="user:alice", request="r1"):
    with acting_as(actor, correlation_id=request):
        append(Append(stream, 0, [Deposited(cents=1)]))


def as_an_older_version(actor, request_id):
    """The newest row is one that an older version has written."""
    metadata = json.dumps({"actor": actor, "request_id": request_id})
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("ALTER TABLE eventstore_event DISABLE TRIGGER ALL")
        else:
            cursor.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'eventstore_event'")
            for (name,) in cursor.fetchall():
                cursor.execute(f"DROP TRIGGER {name}")
        cursor.execute(
            "UPDATE eventstore_event SET metadata = %s WHERE position = (SELECT max(position) FROM eventstore_event)",
            [metadata],
        )


def streams(rows):
    return [each.stream for each in read_rows(rows.order_by("position"))]


def test_of_a_request():
    deposit("a")
    deposit("b", request="r2")
    deposit("c")
    deposit("d")
    as_an_older_version("alice", "r1")
    assert streams(of_request(all_events(), "r1")) == ["a", "c", "d"]


def test_by_an_actor():
    deposit("a")
    deposit("b", actor="node:alice")
    deposit("c", actor="system:relay")
    deposit("d")
    as_an_older_version("alice", "r1")
    assert streams(by_actor(all_events(), "alice")) == ["a", "d"]
    assert streams(by_actor(all_events(), "node:alice")) == ["b", "d"]  # no kind was stored
    assert streams(by_actor(all_events(), "system:relay")) == ["c"]


def test_the_index_is_used():
    for number in range(300):
        deposit(f"a{number}", request=uuid4().hex)
    query = of_request(all_events(), "r1").order_by("position")[:101]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("ANALYZE eventstore_event")
    assert "events_by_request" in query.explain()
