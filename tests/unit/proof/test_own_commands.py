"""What the clients do with a user's own commands."""

from itertools import pairwise
from random import Random

import pytest

from modfleet.proof.history import Kind
from modfleet.proof.own_commands import Commands, OwnCommands


@pytest.fixture
def steps():
    """A thousand commands of one client."""

    def of(kind):
        commands = Commands(
            module="m",
            prefix="p:",
            kind=kind,
            write=("W", "{key}", "{entry}"),
            get=("R", "{key}"),
            delete=("D", "{key}"),
        )
        client = OwnCommands(commands, client="a", random=Random(1))
        client.use(["m"])
        return [client.next() for _ in range(1000)]

    return of


@pytest.mark.parametrize("kind", [Kind.ADD, Kind.SET])
def test_the_entries_of_each_key_are_in_order(steps, kind):
    entries: dict[str, int] = {}
    for each in steps(kind):
        if each.kind is kind:
            assert each.entry == entries.get(each.key, 0) + 1
            entries[each.key] = each.entry
    assert len(entries) > 8
    assert all(entry <= 50 for entry in entries.values())


def test_a_value_is_read_before_another_one_replaces_it(steps):
    """Without that read, the loss of a value would not be seen."""
    for former, step in pairwise(steps(Kind.SET)):
        if step.entry > 1:
            assert (former.kind, former.key) == (Kind.GET, step.key)


def test_a_list_is_written_twice_as_often_as_it_is_read(steps):
    reads = sum(each.kind is Kind.GET for each in steps(Kind.ADD))
    assert 280 < reads < 380
