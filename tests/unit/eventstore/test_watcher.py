"""The races of the thread that watches the log, without a log."""

import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import OperationalError

from eventstore import follow
from tests.waiting import PATIENCE


class Log:
    """Stands for the database: `positions` are what the thread sees, one a look."""

    def __init__(self) -> None:
        self.positions: queue.Queue[int | Exception] = queue.Queue()
        self.closing = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def look(self):
        while True:
            seen = self.positions.get(timeout=PATIENCE)
            if isinstance(seen, Exception):
                raise seen
            yield seen

    def close(self) -> None:
        self.closing.set()
        assert self.may_end.wait(timeout=PATIENCE)


@pytest.fixture
def log(monkeypatch):
    log = Log()
    monkeypatch.setattr(follow, "connection", log)
    monkeypatch.setattr(follow, "_positions", log.look)
    monkeypatch.setattr(follow, "RETRY_SECONDS", 0)
    yield log
    log.may_end.set()
    for each in threading.enumerate():
        if each.name == "log-watcher":
            log.positions.put(0)
            each.join(timeout=PATIENCE)
            assert not each.is_alive()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(16) as pool:
        yield pool


def test_a_position_never_goes_back(log, pool):
    watcher = follow.Watcher()
    last_sleeper = pool.submit(watcher.wait, 100, 10)
    while not watcher._sleepers:
        time.sleep(0.01)
    watcher.publish(9)
    log.positions.put(8)  # read before, told after
    log.positions.put(8)

    assert watcher.wait(7, 10) == 9
    watcher.publish(5)
    assert watcher.wait(7, 10) == 9
    watcher.publish(101)
    assert last_sleeper.result() == 101


def test_a_sleeper_that_comes_while_the_thread_ends_gets_a_new_one(log, pool):
    watcher = follow.Watcher()
    log.may_end.clear()
    log.positions.put(1)
    assert watcher.wait(0, 10) == 1
    log.positions.put(1)
    assert log.closing.wait(timeout=PATIENCE)  # decided to end, and has not yet

    sleeper = pool.submit(watcher.wait, 1, 10)
    log.positions.put(2)

    assert sleeper.result() == 2


def test_what_was_known_before_anyone_slept_is_forgotten(log):
    watcher = follow.Watcher()
    watcher.publish(99)
    log.positions.put(2)

    assert watcher.wait(1, 10) == 2


def test_sleepers_outlast_a_database_that_does_not_answer(log, pool):
    watcher = follow.Watcher()
    sleeper = pool.submit(watcher.wait, 0, 10)
    for _ in range(3):
        log.positions.put(OperationalError("gone"))
    log.positions.put(1)

    assert sleeper.result() == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_replaced(log):
    watcher = follow.Watcher()
    log.positions.put(ZeroDivisionError("a mistake of ours"))
    watcher.wait(0, 0.2)
    log.positions.put(1)

    assert watcher.wait(0, 10) == 1


def test_no_sleeper_hangs_however_they_come_and_go(log, pool, monkeypatch):
    head = 0

    def look():
        while True:
            yield head

    monkeypatch.setattr(follow, "_positions", look)
    watcher = follow.Watcher()
    for head in range(1, 60):  # read by `look`
        sleepers = [pool.submit(watcher.wait, head - 1, 10) for _ in range(4)]
        assert all(each.result() >= head for each in sleepers)
