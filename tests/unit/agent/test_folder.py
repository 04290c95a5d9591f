"""Versions appear and disappear whole, whatever a crash left behind."""

import pytest

from rollout.agent.module_store import ModuleStore


@pytest.fixture
def folder(tmp_path):
    return ModuleStore(tmp_path / "modules", tmp_path / "seen")


def place(folder, text):
    fresh = folder.scratch("greet", 1)
    fresh.mkdir()
    (fresh / "file").write_text(text)
    folder.set_aside("greet", 1)
    folder.place(fresh, "greet", 1)


def content(folder):
    return (folder.path("greet", 1) / "file").read_text()


def names(folder):
    return sorted(each.name for each in (folder.root / "greet").iterdir())


def test_it_works(folder):
    place(folder, "one")
    place(folder, "two")
    assert content(folder) == "two"
    folder.settle("greet", 1)
    assert names(folder) == ["1"]
    assert [each[:2] for each in folder.versions()] == [("greet", 1)]
    folder.drop("greet", 1)
    assert list(folder.root.iterdir()) == []


def test_what_was_set_aside_is_put_back(folder):
    place(folder, "one")
    place(folder, "two")
    assert folder.put_back("greet", 1)
    assert (content(folder), names(folder)) == ("one", [".1.former", "1"])
    folder.settle("greet", 1)
    assert not folder.put_back("greet", 1)


def test_the_first_of_two_replacements_is_put_back(folder):
    for text in ("one", "two", "three"):
        place(folder, text)
    folder.put_back("greet", 1)
    assert content(folder) == "one"


def test_the_files_are_in_both_places(folder):
    place(folder, "one")
    assert folder.former("greet", 1) is None
    assert folder.set_aside("greet", 1)
    assert names(folder) == [".1.former", "1"]
    assert str(folder.former("greet", 1)).endswith("/seen/greet/.1.former")


def test_a_crash_between_the_renames_is_undone(folder):
    place(folder, "one")
    folder.path("greet", 1).rename(folder.root / "greet/.1.former")
    assert folder.recover("greet") == [1]
    assert (content(folder), names(folder)) == ("one", [".1.former", "1"])


def test_what_was_set_aside_stays(folder):
    place(folder, "one")
    place(folder, "two")
    folder.scratch("greet", 1).mkdir()
    assert folder.recover("greet") == [1]
    assert (content(folder), names(folder)) == ("two", [".1.former", "1"])


@pytest.mark.parametrize(("path", "ours"), [("greet/1/x.so", True), ("../seen2/x.so", False), ("../other/x.so", False)])
def test_ours_is_what_lies_below(folder, tmp_path, path, ours):
    assert folder.is_ours(f"{tmp_path}/seen/{path}") is ours
    assert not folder.is_ours("")
