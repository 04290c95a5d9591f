"""Every way in which a superuser of the database can tamper with the log is found, given a head that was noted before.

What is not found is an event appended at the end by the rules: its author has the rights of the control plane itself.
"""

import json
import re
from collections.abc import Callable
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from eventstore import Append, BrokenLogError, StoredEvent, append, head, verify
from eventstore.envelope import FORMAT, GENESIS_HASH, Row, chained_hash
from eventstore.reading import read_stored_rows
from eventstore.triggers import create_triggers
from eventstore.verification import Head
from tests.integration.eventstore.test_triggers import drop_triggers, execute
from tests.ledger import Deposited, Opened

pytestmark = [pytest.mark.usefixtures("ledger"), pytest.mark.django_db]


def fill() -> Head:
    append(Append("a", 0, [Opened(owner="alice"), Deposited(cents=1)]), Append("b", 0, [Deposited(cents=4)]))
    append(Append("a", 2, [Deposited(cents=2)]), Append("b", 1, [Deposited(cents=8)]))
    return Head(5, StoredEvent.objects.get(position=5).hash)


def change(columns: str, position: int = 2) -> Callable[[], object]:
    return lambda: execute(f"UPDATE eventstore_event SET {columns} WHERE position = {position}")


def delete(condition: str) -> Callable[[], object]:
    return lambda: execute(f"DELETE FROM eventstore_event WHERE {condition}")


def rows() -> list[Row]:
    return list(read_stored_rows(up_to=head()))


def write(changed: list[Row]) -> None:
    """Replace the whole log by these rows, each with the hash that the rules give it."""
    execute("DELETE FROM eventstore_event")
    last_hash = GENESIS_HASH
    for row in changed:
        last_hash = chained_hash(last_hash, row)
        insert(row._replace(hash=last_hash))


def insert(row: Row) -> None:
    from eventstore import database

    database.insert([row])


def rewrite_one_event() -> None:
    write([row._replace(data='{"cents":900}') if row.position == 2 else row for row in rows()])


def rewrite_in_the_former_format() -> None:
    write([row._replace(format=None) for row in rows()])


def rewrite_without_an_event() -> None:
    kept = [row for row in rows() if row.position != 4]
    write([row._replace(position=place) for place, row in enumerate(kept, start=1)])


def rewrite_with_an_event_more() -> None:
    *before, last = rows()
    write([*before, last._replace(event_id=uuid4(), stream="c", version=1), last._replace(position=6)])


def rewrite_all() -> None:
    write([Row(1, "a", 1, "ledger.opened.v1", '{"owner":"eve"}', "{}", uuid4(), rows()[0].recorded_at)])


def cut_and_go_on() -> None:
    execute("DELETE FROM eventstore_event WHERE position > 3")
    append(Append("a", 2, [Deposited(cents=900)]), Append("b", 1, [Deposited(cents=8)]))


def empty_and_go_on() -> None:
    execute("DELETE FROM eventstore_event")
    append(Append("a", 0, [Opened(owner="eve")] + [Deposited(cents=1)] * 5))


def fall_back_to_the_former_format() -> None:
    write([row if row.position < 3 else row._replace(format=None) for row in rows()])


def swap() -> None:
    execute("UPDATE eventstore_event SET position = 9 WHERE position = 2")
    execute("UPDATE eventstore_event SET position = 2 WHERE position = 3")
    execute("UPDATE eventstore_event SET position = 3 WHERE position = 9")


def put_before_the_first() -> None:
    row = Row(0, "c", 1, "ledger.deposited.v3", '{"cents":900}', "{}", uuid4(), rows()[0].recorded_at)
    insert(row._replace(hash=chained_hash(GENESIS_HASH, row)))


def append_past_a_gap() -> None:
    insert(rows()[-1]._replace(position=7, version=3, event_id=uuid4()))


def append_with_the_hash_of_another() -> None:
    insert(rows()[-1]._replace(position=6, version=3, event_id=uuid4()))


def shift_all() -> None:
    execute("UPDATE eventstore_event SET position = position + 100")
    execute("UPDATE eventstore_event SET position = position - 99")


def skip_a_version() -> None:
    write([row._replace(version=9) if row.position == 5 else row for row in rows()])


KINDS = {
    "data changed": (change("data = '{\"cents\":900}'"), "2 is not what was appended"),
    "data written otherwise": (change("data = '{\"cents\": 1}'"), "2 is not what was appended"),
    "metadata changed": (change('metadata = \'{"actor":"eve"}\''), "2 is not what was appended"),
    "metadata written otherwise": (change("metadata = ' ' || metadata"), "2 is not what was appended"),
    "a key of metadata twice": (
        change('metadata = \'{"actor":"eve",\' || substr(metadata, 2)'),
        "2 is not what was appended",
    ),
    "stream renamed": (change("stream = 'eve'", 5), "5 is not what was appended"),
    "version changed": (change("version = 9", 5), "5 is not what was appended"),
    "type changed": (change("type = 'ledger.closed.v1'"), "2 is not what was appended"),
    "event_id changed": (change("event_id = '11111111111111111111111111111111'"), "2 is not what was appended"),
    "recorded_at changed": (change("recorded_at = '2020-01-01 00:00:00'"), "2 is not what was appended"),
    "hash changed": (change(f"hash = '{'0' * 64}'"), "2 is not what was appended"),
    "format changed": (change("format = NULL"), "2 is not what was appended"),
    "unknown format": (change("format = 99"), "2 has the format 99"),
    "first event removed": (delete("position = 1"), "position 1 is missing"),
    "event in the middle removed": (delete("position = 3"), "position 3 is missing"),
    "last event removed": (delete("position = 5"), "position 5 is missing"),
    "end cut off": (delete("position > 2"), "position 5 is missing"),
    "log emptied": (delete("position > 0"), "position 5 is missing"),
    "end cut off, log continued": (cut_and_go_on, "5 has another hash than was noted"),
    "log emptied, begun anew": (empty_and_go_on, "5 has another hash than was noted"),
    "one event rewritten with all hashes after it": (rewrite_one_event, "5 has another hash than was noted"),
    "one event left out, the rest rewritten": (rewrite_without_an_event, "position 5 is missing"),
    "one event put in, the rest rewritten": (rewrite_with_an_event_more, "5 has another hash than was noted"),
    "all rewritten in the former format": (rewrite_in_the_former_format, "5 has another hash than was noted"),
    "whole log replaced": (rewrite_all, "position 5 is missing"),
    "former format from one event on": (fall_back_to_the_former_format, "5 has another hash than was noted"),
    "two events swapped": (swap, "2 is not what was appended"),
    "event before the first": (put_before_the_first, "position 0 was not appended"),
    "event after a gap": (append_past_a_gap, "position 6 is missing"),
    "event with the hash of another": (append_with_the_hash_of_another, "6 is not what was appended"),
    "positions shifted": (shift_all, "position 1 is missing"),
    "version left out, all hashes right": (skip_a_version, "5 is version 9 of b, and not 2"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_found(kind):
    tamper, found = KINDS[kind]
    noted = fill()
    drop_triggers()
    tamper()
    create_triggers("default")  # nothing but the rows is left to tell

    with pytest.raises(BrokenLogError, match=found):
        verify(heads=[noted])
    with pytest.raises(CommandError, match=found):
        call_command("verify_log", "--head", f"{noted.position}:{noted.hash}")


@pytest.mark.parametrize("kind", ["end cut off", "log emptied", "one event rewritten with all hashes after it"])
def test_without_a_noted_head_these_are_not_found(kind):
    """Why a head has to be kept elsewhere."""
    fill()
    drop_triggers()
    KINDS[kind][0]()
    verify()


def disable_triggers() -> None:
    execute("ALTER TABLE eventstore_event DISABLE TRIGGER USER")


def refuse_nothing() -> None:
    execute(
        "CREATE OR REPLACE FUNCTION eventstore_refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
    )


def drop_one_trigger() -> None:
    name = "eventstore_no_change ON eventstore_event" if connection.vendor == "postgresql" else "eventstore_no_update"
    execute(f"DROP TRIGGER {name}")


def make_one_that_does_nothing() -> None:
    execute("DROP TRIGGER eventstore_no_update")
    execute("CREATE TRIGGER eventstore_no_update BEFORE UPDATE ON eventstore_event BEGIN SELECT 1; END")


UNPROTECTED = {
    "sqlite": [drop_triggers, drop_one_trigger, make_one_that_does_nothing],
    "postgresql": [drop_triggers, drop_one_trigger, disable_triggers, refuse_nothing],
}


def test_triggers_that_do_not_refuse_are_found():
    fill()
    for weaken in UNPROTECTED[connection.vendor]:
        weaken()
        with pytest.raises(CommandError, match=r"triggers that refuse changes .* run `migrate`"):
            call_command("verify_log")
        drop_triggers()
        create_triggers("default")
        call_command("verify_log")


def test_all_that_is_noted_is_looked_for(tmp_path, capsys):
    noted = fill()
    first = StoredEvent.objects.get(position=1).hash
    (tmp_path / "heads").write_text(f"0:{GENESIS_HASH}\n1:{first}\n5:{noted.hash}\n")

    call_command("verify_log", "--head", f"1:{first}", "--heads", str(tmp_path / "heads"), "--json")
    assert json.loads(capsys.readouterr().out)["heads"] == 4
    with pytest.raises(CommandError, match="1 has another hash than was noted"):
        call_command("verify_log", "--from", "3", "--head", f"1:{'a' * 64}")


@pytest.mark.parametrize(
    "text", ["", "5", "5:", "5:abc", "five:" + "0" * 64, "-1:" + "0" * 64, "9" * 30 + ":" + "0" * 64]
)
def test_what_is_no_head_is_refused(text, tmp_path):
    with pytest.raises(CommandError, match="is not a head: write POSITION:HASH"):
        call_command("verify_log", f"--head={text}")
    (tmp_path / "heads").write_text(f"{text}\n")
    with pytest.raises(CommandError, match="is not a head: write POSITION:HASH"):
        call_command("verify_log", "--heads", str(tmp_path / "heads"))


def test_a_file_without_a_head_proves_nothing(tmp_path):
    (tmp_path / "heads").touch()
    with pytest.raises(CommandError, match="heads has no head"):
        call_command("verify_log", "--heads", str(tmp_path / "heads"))


def test_a_file_of_heads_that_is_not_there(tmp_path):
    with pytest.raises(CommandError, match=re.escape("No such file")):
        call_command("verify_log", "--heads", str(tmp_path / "heads"))


def test_new_rows_have_the_newest_format():
    fill()
    assert set(StoredEvent.objects.values_list("format", flat=True)) == {FORMAT}
