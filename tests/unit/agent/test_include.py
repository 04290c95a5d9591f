"""The include file of the server's configuration."""

import shlex
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.agent.include import IncludeFile, quoted

GREET = PurePosixPath("/m/greet")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "modfleet.conf"


def lines(path):
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def test_it_works(path):
    include = IncludeFile(path)
    include.ensure()
    assert lines(path) == []
    include.remember(GREET, GREET / "1/greet.so", ["a b"])
    include.remember(GREET, GREET / "2/greet.so", [])
    assert lines(path) == ["loadmodule /m/greet/2/greet.so"]
    include.forget(GREET / "2")
    assert lines(path) == []


def test_other_modules_keep_their_lines(path):
    path.write_text("loadmodule /m/greet2/1/x.so\nloadmodule /m/greet/1/greet.so\n")
    IncludeFile(path).forget(GREET / "1")
    assert lines(path) == ["loadmodule /m/greet2/1/x.so"]


def test_a_folder_with_a_blank_is_found_again(path):
    folder = PurePosixPath("/my modules/greet")
    IncludeFile(path).remember(folder, folder / "1/greet.so", [])
    assert lines(path) == ['loadmodule "/my modules/greet/1/greet.so"']
    IncludeFile(path).forget(folder / "1")
    assert lines(path) == []


def test_nothing_is_written_when_nothing_changes(path):
    include = IncludeFile(path)
    include.remember(GREET, GREET / "1/greet.so", [])
    inode = path.stat().st_ino
    include.remember(GREET, GREET / "1/greet.so", [])
    assert path.stat().st_ino == inode


def test_a_node_that_does_not_persist_has_none(tmp_path):
    IncludeFile(None).remember(GREET, GREET / "1/greet.so", [])
    assert list(tmp_path.iterdir()) == []


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_a_quoted_word_is_one_word(word):
    assert shlex.split(quoted(word)) == [word]
