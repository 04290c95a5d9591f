"""`verify_log`: what it finds, from where, and how it says so. What tampering it finds is in test_triggers."""

import json

import pytest
from django.core.management import CommandError, call_command

from eventstore import Append, Appended, BrokenLogError, StoredEvent, append, observe_appends, verify
from eventstore.envelope import GENESIS_HASH, chained_hash
from eventstore.reading import read_stored_rows
from tests.integration.eventstore.test_triggers import drop_triggers, execute
from tests.ledger import Deposited, Opened

pytestmark = [pytest.mark.usefixtures("ledger"), pytest.mark.django_db]


def fill():
    append(Append("a", 0, [Opened(owner="alice"), Deposited(cents=1)]), Append("b", 0, [Deposited(cents=4)]))
    append(Append("a", 2, [Deposited(cents=2)]))


def test_its_json_names_the_head_and_the_last_hash(capsys):
    fill()
    call_command("verify_log", "--json")
    last = StoredEvent.objects.get(position=4).hash
    assert json.loads(capsys.readouterr().out) == {"ok": True, "events": 4, "head": 4, "hash": last, "heads": 0}


def test_an_empty_log_is_whole(capsys):
    call_command("verify_log", "--json")
    answer = {"ok": True, "events": 0, "head": 0, "hash": GENESIS_HASH, "heads": 0}
    assert json.loads(capsys.readouterr().out) == answer


@pytest.mark.parametrize(("after", "count"), [(0, 4), (1, 3), (3, 1), (4, 0)])
def test_only_what_comes_after_a_position(after, count, capsys):
    fill()
    call_command("verify_log", "--from", str(after), "--json")
    answer = json.loads(capsys.readouterr().out)
    assert (answer["events"], answer["head"]) == (count, 4)


def test_a_position_that_does_not_exist():
    fill()
    with pytest.raises(BrokenLogError, match="position 5 is missing"):
        verify(after=5)


@pytest.mark.parametrize(("after", "is_found"), [(0, True), (1, True), (2, False)])
def test_what_was_checked_before_is_not_looked_at(after, is_found):
    fill()
    drop_triggers()
    execute('UPDATE eventstore_event SET metadata = \'{"actor":"eve"}\' WHERE position = 2')
    if not is_found:
        assert verify(after=after) == 2
        return
    with pytest.raises(BrokenLogError, match="position 2"):
        verify(after=after)


@pytest.mark.parametrize("after", [0, 2])
def test_a_version_that_is_left_out_is_found_even_where_all_hashes_match(after):
    fill()
    drop_triggers()
    execute("UPDATE eventstore_event SET version = 9 WHERE position = 4")
    *_, before, row = read_stored_rows()
    execute(f"UPDATE eventstore_event SET hash = '{chained_hash(before.hash, row)}' WHERE position = 4")
    with pytest.raises(BrokenLogError, match="position 4 is version 9 of a, and not 3"):
        verify(after=after)


def test_the_json_of_a_fault_names_its_position(capsys):
    fill()
    drop_triggers()
    execute("DELETE FROM eventstore_event WHERE position = 3")
    with pytest.raises(CommandError):
        call_command("verify_log", "--json")
    answer = json.loads(capsys.readouterr().out)
    assert (answer["ok"], answer["position"], answer["error"]) == (False, 3, "position 3 is missing")


def test_observers_are_called_after_each_commit(django_capture_on_commit_callbacks, monkeypatch):
    seen: list[object] = []
    monkeypatch.setattr("eventstore.observe._observers", seen)
    appends: list[Appended] = []
    observe_appends(appends.append)
    with django_capture_on_commit_callbacks(execute=True):
        fill()
    assert len(seen) == 1
    assert [(each.position, each.events) for each in appends] == [(3, 3), (4, 1)]
    assert all(isinstance(each, Appended) and each.seconds > each.projection_seconds >= 0 for each in appends)
