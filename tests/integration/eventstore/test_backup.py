"""The log to a file and back: the same rows, or nothing."""

import gzip
import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection

from eventstore import Append, StoredEvent, append, head, verify
from eventstore.backup import backup_lines, new_header, restore
from tests.ledger import Balance, Deposited, Opened

pytestmark = pytest.mark.django_db


def fill():
    append(Append("a", 0, [Opened(owner="alice"), Deposited(cents=1)]), Append("b", 0, [Deposited(cents=4)]))
    append(Append("a", 2, [Deposited(cents=2)]))


def empty():
    """As a database is after `migrate`."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("ALTER TABLE eventstore_event DISABLE TRIGGER USER")
            cursor.execute("DELETE FROM eventstore_event")
            cursor.execute("ALTER TABLE eventstore_event ENABLE TRIGGER USER")
        else:
            cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
            made = cursor.fetchall()
            for name, _ in made:
                cursor.execute(f"DROP TRIGGER {name}")
            cursor.execute("DELETE FROM eventstore_event")
            for _, sql in made:
                cursor.execute(sql)
    Balance.objects.all().delete()


def rows():
    return list(StoredEvent.objects.order_by("position").values_list())


@pytest.fixture
def backup(balances, tmp_path):
    fill()
    path = tmp_path / "log.jsonl"
    call_command("backup_log", path, stdout=io.StringIO())
    return path


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
def test_it_works(balances, tmp_path, name, capsys):
    fill()
    before, balance = rows(), dict(Balance.objects.values_list("account", "cents"))
    call_command("backup_log", str(tmp_path / name))
    empty()
    call_command("restore_log", str(tmp_path / name))
    assert rows() == before
    assert dict(Balance.objects.values_list("account", "cents")) == balance
    assert verify() == 4
    assert capsys.readouterr().out.count(StoredEvent.objects.get(position=4).hash) == 2


def test_its_first_line_says_where_the_log_ended(backup):
    lines = backup.read_text().splitlines()
    header, last = json.loads(lines[0]), json.loads(lines[-1])
    assert (header["head"], header["hash"]) == (4, last["hash"])
    assert len(lines) == 5
    assert backup.stat().st_mode & 0o077 == 0


def test_an_empty_log_has_a_backup_too(balances, tmp_path):
    call_command("backup_log", str(tmp_path / "log"))
    call_command("restore_log", str(tmp_path / "log"))
    assert head() == 0


def test_what_is_appended_meanwhile_is_left_out(balances):
    fill()
    lines = backup_lines(new_header(), progress=lambda _: None)
    first = next(lines)
    append(Append("c", 0, [Deposited(cents=8)]))
    assert len(list(lines)) == json.loads(first)["head"] == 4


def test_the_same_log_makes_the_same_file(balances, tmp_path):
    fill()
    header = new_header()
    assert list(backup_lines(header, progress=print)) == list(backup_lines(header, progress=print))


def test_to_standard_output(balances, capsysbinary):
    fill()
    call_command("backup_log", "-", "--json")
    out, err = capsysbinary.readouterr()
    assert [json.loads(line).get("position") for line in out.splitlines()] == [None, 1, 2, 3, 4]
    assert json.loads(err)["head"] == 4


def test_a_log_that_is_not_empty_is_left_alone(backup):
    with pytest.raises(CommandError, match="not empty"):
        call_command("restore_log", backup)
    assert verify() == 4


def changed(text, line, **values):
    lines = text.splitlines()
    lines[line] = json.dumps({**json.loads(lines[line]), **values}, separators=(",", ":"))
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: changed(text, 2, data='{"cents":9}'), "position 2 is not what was appended"),
        (lambda text: changed(text, 2, recorded_at="2020-01-01T00:00:00Z"), "position 2 is not what was appended"),
        (lambda text: "\n".join(text.splitlines()[:-1]), "ends at position 3, and its header says 4"),
        (lambda text: "\n".join(text.splitlines()[:1] + text.splitlines()[2:]), "position 1 is missing"),
        (lambda text: changed(text, 3, type="ledger.new.v1"), "line 4 .*only a newer version of this program"),
        (lambda text: changed(text, 0, format="a-log-9"), "has the format a-log-9"),
        (lambda text: text[: len(text) // 2], "line 3 of the backup is not an event"),
        (lambda _: "hello\n", "not a backup of a log"),
        (lambda _: "", "not a backup of a log"),
    ],
)
def test_a_damaged_backup_is_refused_and_nothing_restored(backup, damage, said):
    backup.write_text(damage(backup.read_text()))
    empty()
    with pytest.raises(CommandError, match=said):
        call_command("restore_log", backup)
    assert (head(), Balance.objects.count()) == (0, 0)


def test_a_compressed_file_that_is_cut_off_is_refused(backup, tmp_path):
    packed = tmp_path / "log.gz"
    packed.write_bytes(gzip.compress(backup.read_bytes())[:-20])
    empty()
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("restore_log", packed)
    assert head() == 0


def test_a_file_that_is_not_there(balances, tmp_path):
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("restore_log", str(tmp_path / "nothing"))


def test_the_triggers_stay(backup):
    empty()
    restore(backup.read_bytes().splitlines(), progress=lambda _: None)
    with pytest.raises(DatabaseError, match="the log is append-only"):
        StoredEvent.objects.filter(position=1).delete()


def test_a_broken_log_has_no_backup_and_leaves_the_former_file(backup):
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("ALTER TABLE eventstore_event DISABLE TRIGGER USER")
        else:
            cursor.execute("DROP TRIGGER eventstore_no_update")
        cursor.execute("UPDATE eventstore_event SET data = '{\"cents\":9}' WHERE position = 2")
    former = backup.read_bytes()
    with pytest.raises(CommandError, match="position 2 is not what was appended"):
        call_command("backup_log", backup)
    assert backup.read_bytes() == former
    assert [each.name for each in backup.parent.iterdir()] == ["log.jsonl"]


def test_a_backup_that_cannot_be_written_says_so(balances, tmp_path, capsys):
    with pytest.raises(CommandError, match="No such file or directory"):
        call_command("backup_log", str(tmp_path / "nowhere" / "log"), "--json")
    assert json.loads(capsys.readouterr().out)["ok"] is False
