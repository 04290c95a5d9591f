"""The head of the log, noted in a file and in the program's log."""

import logging

import pytest

from eventstore import Append, append, note_head, verify
from eventstore.envelope import GENESIS_HASH
from eventstore.heads import read_heads
from tests.ledger import Deposited

pytestmark = [pytest.mark.usefixtures("ledger"), pytest.mark.django_db]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "log-heads"


def test_it_works(path):
    note_head(path)
    append(Append("a", 0, [Deposited(cents=1)]))
    noted = note_head(path)

    assert [each.position for each in read_heads(path)] == [0, 1]
    assert path.read_text().splitlines()[0] == f"0:{GENESIS_HASH}"
    assert read_heads(path)[-1] == noted
    assert verify(heads=read_heads(path)) == 1


def test_the_same_head_is_noted_once(path):
    append(Append("a", 0, [Deposited(cents=1)]))
    assert note_head(path) == note_head(path)
    assert len(read_heads(path)) == 1


def test_the_program_s_log_has_it_as_fields(path, caplog):
    caplog.set_level(logging.INFO)
    noted = note_head(path)
    (record,) = [each for each in caplog.records if each.name == "eventstore.heads"]
    assert (record.position, record.hash) == noted


def test_a_line_that_a_crash_cut_off_spoils_no_other(path):
    noted = note_head(path)
    with path.open("a") as file:
        file.write("17:ab")
    assert read_heads(path) == [noted]

    append(Append("a", 0, [Deposited(cents=1)]))
    note_head(path)
    assert [each.position for each in read_heads(path)] == [0, 1]
