"""Versions appear and disappear whole, whatever a crash left behind."""

import pytest

from rollout.agent.module_files import module_store
from rollout.agent.module_files.module_store import ModuleStore, exchange_names


@pytest.fixture
def store(tmp_path):
    return ModuleStore(tmp_path / "modules", tmp_path / "seen")


def place(store, text):
    fresh = store.scratch("greet", 1)
    fresh.mkdir()
    (fresh / "file").write_text(text)
    store.set_aside("greet", 1)
    store.place(fresh, "greet", 1)


def content(store):
    return (store.path("greet", 1) / "file").read_text()


def names(store):
    return sorted(each.name for each in (store.root / "greet").iterdir())


def test_it_works(store):
    place(store, "one")
    place(store, "two")
    assert content(store) == "two"
    store.settle("greet", 1)
    assert names(store) == ["1"]
    assert [each[:2] for each in store.versions()] == [("greet", 1)]
    store.drop("greet", 1)
    assert list(store.root.iterdir()) == []


def test_names_are_exchanged_in_one_step(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.write_text("x")
    assert exchange_names(one, other)
    assert (one.is_file(), other.is_dir()) == (True, True)
    assert not exchange_names(one, tmp_path / "missing")


@pytest.mark.parametrize("can_exchange", [True, False])
def test_files_are_replaced_also_where_names_cannot_be_exchanged(store, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(module_store, "exchange_names", lambda *_: False)
    place(store, "one")
    place(store, "two")
    store.settle("greet", 1)
    assert (content(store), names(store)) == ("two", ["1"])


def test_what_was_set_aside_is_restored(store):
    place(store, "one")
    place(store, "two")
    assert store.restore("greet", 1)
    assert (content(store), names(store)) == ("one", [".1.former", "1"])
    store.settle("greet", 1)
    assert not store.restore("greet", 1)


def test_the_first_of_two_replacements_is_restored(store):
    for text in ("one", "two", "three"):
        place(store, text)
    store.restore("greet", 1)
    assert content(store) == "one"


def test_the_files_are_in_both_places(store):
    place(store, "one")
    assert store.former("greet", 1) is None
    assert store.set_aside("greet", 1)
    assert names(store) == [".1.former", "1"]
    assert str(store.former("greet", 1)).endswith("/seen/greet/.1.former")


def test_a_crash_between_the_renames_is_undone(store):
    place(store, "one")
    store.path("greet", 1).rename(store.root / "greet/.1.former")
    assert store.recover("greet") == [1]
    assert (content(store), names(store)) == ("one", [".1.former", "1"])


def test_what_was_set_aside_stays(store):
    place(store, "one")
    place(store, "two")
    store.scratch("greet", 1).mkdir()
    assert store.recover("greet") == [1]
    assert (content(store), names(store)) == ("two", [".1.former", "1"])


@pytest.mark.parametrize(("path", "ours"), [("greet/1/x.so", True), ("../seen2/x.so", False), ("../other/x.so", False)])
def test_ours_is_what_lies_below(store, tmp_path, path, ours):
    assert store.is_ours(f"{tmp_path}/seen/{path}") is ours
    assert not store.is_ours("")
