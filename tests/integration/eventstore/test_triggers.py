"""Rows of the log never change: the database itself refuses, and the hash chain tells if someone got around that."""

import pytest
from django.core.management import CommandError, call_command
from django.core.management.sql import emit_post_migrate_signal
from django.db import DatabaseError, connection, models

from eventstore import Append, BrokenLogError, StoredEvent, append, verify
from tests.ledger import Opened

pytestmark = pytest.mark.usefixtures("ledger")


def append_three() -> None:
    append(*(Append(name, 0, [Opened(owner=name)]) for name in ("a", "b", "c")))


def execute(statement: str) -> list[tuple[str, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def triggers() -> set[str]:
    if connection.vendor == "postgresql":
        return {name for (name,) in execute("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal")}
    return {name for (name,) in execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")}


def drop_triggers() -> None:
    on_table = " ON eventstore_event" if connection.vendor == "postgresql" else ""
    for name in triggers():
        execute(f"DROP TRIGGER {name}{on_table}")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "change",
    [
        lambda: StoredEvent.objects.filter(position=2).update(data="{}"),
        lambda: StoredEvent.objects.get(position=2).save(),
        lambda: StoredEvent.objects.filter(position=2).delete(),
        lambda: execute("UPDATE eventstore_event SET data = data"),
        lambda: execute("DELETE FROM eventstore_event"),
    ],
)
def test_no_row_is_changed_or_removed(change):
    append_three()

    with pytest.raises(DatabaseError, match="the log is append-only"):
        change()


@pytest.mark.django_db
def test_the_table_is_not_emptied():
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no TRUNCATE")

    with pytest.raises(DatabaseError, match="the log is append-only"):
        execute("TRUNCATE eventstore_event")


@pytest.mark.django_db
def test_no_row_is_replaced():
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL has no REPLACE")
    append_three()

    with pytest.raises(DatabaseError, match="the log is append-only"):
        execute("REPLACE INTO eventstore_event SELECT * FROM eventstore_event WHERE position = 2")


@pytest.mark.django_db
def test_an_untouched_log_is_counted(capsys):
    assert verify() == 0
    append_three()

    assert verify() == 3
    call_command("verify_log")
    assert capsys.readouterr().out.startswith("3 events, none missing, none changed. Head: 3:")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("tampering", "found"),
    [
        ('UPDATE eventstore_event SET data = \'{"owner":"eve"}\' WHERE position = 2', "2 is not what was appended"),
        ('UPDATE eventstore_event SET metadata = \'{"actor":"eve"}\' WHERE position = 2', "2 is not what was"),
        ("UPDATE eventstore_event SET stream = 'e' WHERE position = 3", "3 is not what was appended"),
        ("UPDATE eventstore_event SET recorded_at = '2020-01-01 00:00:00' WHERE position = 1", "1 is not what was"),
        ("DELETE FROM eventstore_event WHERE position = 2", "position 2 is missing"),
        ("DELETE FROM eventstore_event WHERE position = 1", "position 1 is missing"),
    ],
)
def test_a_changed_or_removed_row_is_found(tampering, found):
    append_three()
    drop_triggers()
    execute(tampering)

    with pytest.raises(BrokenLogError, match=found):
        verify()
    with pytest.raises(CommandError, match=found):
        call_command("verify_log")


def test_migrate_creates_triggers_that_are_gone(committed_db):
    created = triggers()
    drop_triggers()

    call_command("migrate", verbosity=0)

    assert created
    assert triggers() == created


def test_triggers_survive_an_alteration_of_the_table(committed_db):
    append_three()
    created, former = triggers(), StoredEvent._meta.get_field("stream")
    longer = models.TextField(db_column="stream")
    longer.set_attributes_from_name("stream")
    longer.model = StoredEvent

    with connection.schema_editor() as editor:
        editor.alter_field(StoredEvent, former, longer)
    between = triggers()
    emit_post_migrate_signal(verbosity=0, interactive=False, db="default")

    assert between == (created if connection.vendor == "postgresql" else set())
    assert triggers() == created
    with pytest.raises(DatabaseError, match="the log is append-only"):
        execute("DELETE FROM eventstore_event")
    assert verify() == 3
