"""Versions appear and disappear whole, whatever a crash left behind."""

import pytest

from rollout.agent.folder import ModulesFolder


@pytest.fixture
def folder(tmp_path):
    return ModulesFolder(tmp_path / "modules", tmp_path / "seen")


def place(folder, text):
    fresh = folder.scratch("greet", 1)
    fresh.mkdir()
    (fresh / "file").write_text(text)
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
    assert (content(folder), names(folder)) == ("one", ["1"])
    assert not folder.put_back("greet", 1)


def test_the_first_of_two_replacements_is_put_back(folder):
    for text in ("one", "two", "three"):
        place(folder, text)
    folder.put_back("greet", 1)
    assert (content(folder), names(folder)) == ("one", ["1"])


@pytest.mark.parametrize("unfinished", [True, False])
def test_a_crash_between_the_renames_is_undone(folder, unfinished):
    place(folder, "one")
    folder.path("greet", 1).rename(folder.root / "greet/.1.former")
    folder.recover("greet", unfinished=unfinished)
    assert (content(folder), names(folder)) == ("one", ["1"])


@pytest.mark.parametrize(("unfinished", "left"), [(True, [".1.former", "1"]), (False, ["1"])])
def test_what_an_unfinished_operation_set_aside_stays(folder, unfinished, left):
    place(folder, "one")
    place(folder, "two")
    folder.scratch("greet", 1).mkdir()
    folder.recover("greet", unfinished=unfinished)
    assert (content(folder), names(folder)) == ("two", left)


@pytest.mark.parametrize(("path", "ours"), [("greet/1/x.so", True), ("../seen2/x.so", False), ("../other/x.so", False)])
def test_ours_is_what_lies_below(folder, tmp_path, path, ours):
    assert folder.is_ours(f"{tmp_path}/seen/{path}") is ours
    assert not folder.is_ours("")
