"""The rule `restart`."""

import pytest

from modfleet.proof.checker import Limits
from modfleet.proof.history import FINAL, RESTARTED, Dump

KEYS = {"k": (1, 2, 3)}


@pytest.fixture
def loaded(proof):
    """The clean proof, with the module `m` on the master `s`."""
    proof.server("s", KEYS, modules={"m": "2 limit=5"})
    return proof


def restarted(proof, keys=KEYS, **fields):
    fields = {"server": "s", "modules": {"m": "2 limit=5"}, **fields}
    proof.dumps[RESTARTED]["s"] = Dump(**fields), keys


def test_a_server_is_the_same_after_its_restart(loaded):
    assert loaded.rules() == []


@pytest.mark.parametrize(
    "modules",
    [{}, {"m": "2"}, {"m": "1 limit=5"}, {"m": "2 limit=5", "n": "1"}],
    ids=["none", "arguments", "version", "more"],
)
def test_a_server_has_other_modules(loaded, modules):
    restarted(loaded, modules=modules)
    assert loaded.rules() == ["restart"]


@pytest.mark.parametrize("keys", [{}, {"k": (1, 2)}, {"k": (1, 3, 2)}, {**KEYS, "other": (1,)}])
def test_a_server_has_other_data(loaded, keys):
    restarted(loaded, keys)
    assert loaded.rules() == ["restart"]


def test_another_server_may_be_the_master(loaded):
    restarted(loaded, master="r")
    loaded.dumps[RESTARTED]["r"] = Dump(server="r"), KEYS
    assert loaded.rules() == []


@pytest.mark.parametrize("moment", [FINAL, RESTARTED])
def test_a_server_does_not_answer(loaded, moment):
    loaded.change(4.0, 5.0, servers=("s", "r"))
    del loaded.dumps[moment]["r"]
    assert [(each.rule, each.server) for each in loaded.check().violations] == [("restart", "r")]


def test_the_messages_say_what_is_different(loaded):
    restarted(loaded, {}, modules={})
    assert [each.message for each in loaded.check().violations] == [
        "s had m '2 limit=5' before its restart, and has no m after it.",
        "s had [1, 2, 3] at k before its restart, and has nothing after it.",
    ]


def test_servers_that_were_not_restarted(loaded):
    loaded.dumps[RESTARTED].clear()
    assert loaded.rules(Limits(restarted=False)) == []
    assert loaded.rules() == ["restart"] * 3
