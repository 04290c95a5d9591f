"""Many writers and a reader that follows positions, all of them really committing."""

import threading
from contextlib import suppress

import pytest
from django.db import transaction

from eventstore import Append, Decider, append, head, load, read, transact, verify
from tests.ledger import Deposited, Opened, evolve
from tests.plugins.databases import at_once
from tests.waiting import PATIENCE

pytestmark = pytest.mark.usefixtures("ledger", "committed_db")

WRITERS = 8
TURNS = 16
EVENT = Opened(owner="alice")


class _ChangedItsMindError(Exception):
    pass


def write_and_sometimes_roll_back(stream: str) -> None:
    version = 0
    for turn in range(TURNS):
        with suppress(_ChangedItsMindError), transaction.atomic():
            append(Append(stream, version, [EVENT]))
            if turn % 4 == 0:
                raise _ChangedItsMindError
            version += 1


def test_a_follower_misses_nothing_although_writers_roll_back_and_one_commits_slowly():
    holding, looked, written = threading.Event(), threading.Event(), threading.Barrier(WRITERS + 2)
    seen: list[int] = []

    def write(stream: str) -> None:
        write_and_sometimes_roll_back(stream)
        written.wait(timeout=PATIENCE)

    def commit_slowly() -> None:
        with transaction.atomic():
            append(Append("slow", 0, [EVENT]))
            holding.set()
            assert looked.wait(timeout=PATIENCE)
        written.wait(timeout=PATIENCE)

    def follow() -> None:
        while written.n_waiting != WRITERS + 1 and not written.broken:
            slow_is_in_between = holding.is_set()
            seen.extend(each.position for each in read(after=seen[-1] if seen else 0))
            if slow_is_in_between:
                looked.set()
            threading.Event().wait(0.002)  # let the writers run
        written.wait(timeout=PATIENCE)
        seen.extend(each.position for each in read(after=seen[-1]))

    at_once(commit_slowly, follow, *(lambda name=f"s{each}": write(name) for each in range(WRITERS)))

    assert seen == list(range(1, WRITERS * TURNS * 3 // 4 + 2))
    assert verify() == len(seen) == head()


def test_times_are_in_the_order_of_positions():
    at_once(*(lambda name=f"s{each}": write_and_sometimes_roll_back(name) for each in range(4)))

    times = [each.recorded_at for each in read()]
    assert times == sorted(times)


def test_one_of_many_writers_wins_each_version_and_the_others_decide_anew():
    counter: Decider[int, int] = Decider(initial=0, decide=lambda _, cents: [Deposited(cents=cents)], evolve=evolve)

    at_once(*[lambda: [transact("one", counter, 1) for _ in range(5)]] * WRITERS)

    assert [each.version for each in load("one")] == list(range(1, WRITERS * 5 + 1))
    assert verify() == WRITERS * 5
