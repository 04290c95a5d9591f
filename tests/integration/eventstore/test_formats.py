"""A log that was begun by a version that stored metadata as a JSON value: it is migrated, verified and continued."""

import json
from datetime import UTC, datetime
from uuid import uuid4

import msgspec
import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection

from eventstore import Append, Metadata, StoredEvent, append, load, verify
from eventstore.backup import restore
from eventstore.conf import conf
from eventstore.envelope import FORMAT, GENESIS_HASH, Row, chained_hash
from tests.integration.eventstore.test_triggers import execute, triggers
from tests.ledger import Deposited

pytestmark = pytest.mark.usefixtures("ledger")

METADATA = {"request_id": "r1", "actor": "alice"}
UPCAST = Metadata(actor="user:alice", requested_by="user:alice", correlation_id="r1")


def former_rows(*positions: int, last_hash: str = GENESIS_HASH) -> list[Row]:
    rows = []
    for position in positions:
        text = msgspec.json.encode(METADATA).decode()
        moment = datetime(2026, 11, 23, 16, 20, position, 5, tzinfo=UTC)
        row = Row(position, "a", position, "ledger.deposited.v3", '{"cents":1}', text, uuid4(), moment, format=None)
        rows.append(row._replace(hash=(last_hash := chained_hash(last_hash, row))))
    return rows


def insert_as_then(rows: list[Row]) -> None:
    on_sqlite = connection.vendor == "sqlite"
    with connection.cursor() as cursor:
        for row in rows:
            event_id = row.event_id.hex if on_sqlite else str(row.event_id)
            moment = str(row.recorded_at.replace(tzinfo=None)) if on_sqlite else row.recorded_at
            cursor.execute(
                "INSERT INTO eventstore_event"
                " (position, stream, version, type, data, metadata, event_id, recorded_at, hash)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [*row[:6], event_id, moment, row.hash],
            )


def test_it_is_migrated_verified_and_continued(committed_db):
    created = triggers()
    call_command("migrate", "eventstore", "0001", verbosity=0)
    insert_as_then(former_rows(1, 2))

    call_command("migrate", verbosity=0)
    assert triggers() == created
    with pytest.raises(DatabaseError, match="the log is append-only"):
        execute("UPDATE eventstore_event SET format = 2")
    (new,) = append(Append("a", 2, [Deposited(cents=4)]))
    insert_as_then(former_rows(4, last_hash=new.hash))  # a process that the upgrade has not reached yet

    assert verify() == 4
    assert list(StoredEvent.objects.values_list("format", flat=True)) == [None, None, FORMAT, None]
    assert [each.actor for each in load("a")[:2]] == ["user:alice", "user:alice"]
    call_command("verify_log")


@pytest.mark.django_db
def test_a_backup_of_then_is_restored():
    rows = former_rows(1, 2)
    header = {
        "format": f"{conf().backup_format}-1",
        "head": 2,
        "hash": rows[-1].hash,
        "taken_at": "2026-11-23T17:00:00Z",
    }
    lines = [{**row._asdict(), "metadata": METADATA} for row in rows]
    for each in lines:
        del each["format"]

    restore([json.dumps(header).encode(), *map(msgspec.json.encode, lines)], progress=lambda _: None)

    assert verify() == 2
    assert load("a")[0].metadata == UPCAST
