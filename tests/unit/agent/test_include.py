"""The include file of the server's configuration."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.agent.inspection.configuration import split_words
from rollout.agent.module_files.include import IncludeFile, _sorted, load_line

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


def test_a_directory_with_a_blank_is_found_again(path):
    folder = PurePosixPath("/my modules/greet")
    IncludeFile(path).remember(folder, folder / "1/greet.so", [])
    assert lines(path) == ['loadmodule "/my modules/greet/1/greet.so"']
    IncludeFile(path).forget(folder / "1")
    assert lines(path) == []


def test_a_file_with_a_blank_is_found_again(path):
    IncludeFile(path).remember(GREET, GREET / "1/my greet.so", [])
    IncludeFile(path).forget(GREET / "1")
    assert lines(path) == []


def names(path):
    return [line.split("/")[2] for line in lines(path)]


def test_a_line_keeps_its_place(path):
    path.write_text("".join(f"loadmodule /m/{name}/1/x.so\n" for name in ("a", "greet", "b")))
    IncludeFile(path).remember(GREET, GREET / "2/x.so", [])
    assert lines(path)[1] == "loadmodule /m/greet/2/x.so"
    assert names(path) == ["a", "greet", "b"]


def test_only_what_the_order_names_changes_places(path):
    path.write_text("".join(f"loadmodule /m/{name}/1/x.so\n" for name in ("z", "needs", "y", "base", "x")))
    base = PurePosixPath("/m/base")
    IncludeFile(path).remember(base, base / "2/x.so", [], [base, PurePosixPath("/m/needs")])
    assert names(path) == ["z", "base", "y", "needs", "x"]


@given(st.permutations("abcdef"), st.lists(st.sampled_from("abcdefg"), unique=True))
def test_any_order_is_kept_and_no_line_is_lost(had, order):
    folders = [PurePosixPath(f"/m/{name}") for name in order]
    found = _sorted([f"loadmodule /m/{name}/1/x.so" for name in had], folders)
    after = [line.split("/")[2] for line in found]
    assert [name for name in after if name in order] == [name for name in order if name in had]
    assert all(mine == theirs for mine, theirs in zip(after, had, strict=True) if theirs not in order)


def test_a_parked_line_is_no_line_until_it_is_back(path):
    include = IncludeFile(path)
    include.remember(GREET, GREET / "1/greet.so", [])
    with pytest.raises(RuntimeError), include.parked(GREET / "1"):  # noqa: PT012 - looked at in between
        assert not any(line.startswith("loadmodule") for line in path.read_text().splitlines())
        raise RuntimeError
    assert names(path) == ["greet"]
    with include.parked(GREET / "1"):
        pass
    assert lines(path) == []
    IncludeFile(path).ensure()
    assert names(path) == ["greet"]
    with include.parked(GREET / "1"):
        include.forget(GREET / "1")
    IncludeFile(path).ensure()
    assert lines(path) == []


def test_a_line_of_the_release_before_is_read(path):
    path.write_text("# Written by Modfleet after each probe. Include it.\nloadmodule /m/greet/1/greet.so\n")
    IncludeFile(path).redirect(GREET / "1", GREET / ".1.former")
    assert lines(path) == ["loadmodule /m/greet/.1.former/greet.so"]


def test_nothing_is_written_when_nothing_changes(path):
    include = IncludeFile(path)
    include.remember(GREET, GREET / "1/greet.so", [])
    inode = path.stat().st_ino
    include.remember(GREET, GREET / "1/greet.so", [])
    assert path.stat().st_ino == inode


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=4))
def test_the_server_reads_the_words_that_were_written(args):
    assert split_words(load_line("/m/x.so", args)) == ("loadmodule", "/m/x.so", *args)
