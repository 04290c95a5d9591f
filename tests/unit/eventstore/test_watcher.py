"""The races of the thread that watches the log, without a log."""

import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import OperationalError

from eventstore import waiting
from tests.waiting import PATIENCE, wait_for


class Log:
    """Stands for the database: `positions` are what the thread sees, one a look; `news` is the newest about each key."""

    in_atomic_block = True  # nobody has a connection to give back

    def __init__(self) -> None:
        self.positions: queue.Queue[int | Exception] = queue.Queue()
        self.news: dict[str, int] = {}
        self.asked: list[set[str]] = []
        self.failures: list[Exception] = []
        self.closing = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def look(self):
        while True:
            seen = self.positions.get(timeout=PATIENCE)
            if isinstance(seen, Exception):
                raise seen
            yield seen

    def newest(self, keys):
        self.asked.append(set(keys))
        if self.failures:
            raise self.failures.pop()
        return {key: self.news[key] for key in keys if key in self.news}

    def close(self) -> None:
        self.closing.set()
        assert self.may_end.wait(timeout=PATIENCE)


@pytest.fixture
def log(monkeypatch):
    log = Log()
    monkeypatch.setattr(waiting, "connection", log)
    monkeypatch.setattr(waiting, "_positions", log.look)
    monkeypatch.setattr(waiting, "RETRY_SECONDS", 0)
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
    watcher = waiting.Watcher()
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


@pytest.mark.parametrize("lost", [[], [OperationalError("restarted")]])
def test_after_a_restore_everybody_looks_anew(log, pool, lost):
    watcher = waiting.Watcher()
    log.news = {"a": 9}
    sleeper = pool.submit(wait_for_news, watcher, log, "a", 9)
    wait_for(lambda: watcher._sleepers)
    for each in (9, *lost, 4):
        log.positions.put(each)
    assert sleeper.result()
    log.positions.put(5)
    assert watcher.wait(4, PATIENCE) == 5


def test_a_sleeper_that_comes_while_the_thread_ends_gets_a_new_one(log, pool):
    watcher = waiting.Watcher()
    log.may_end.clear()
    log.positions.put(1)
    assert watcher.wait(0, 10) == 1
    log.positions.put(1)
    assert log.closing.wait(timeout=PATIENCE)  # decided to end, and has not yet

    sleeper = pool.submit(watcher.wait, 1, 10)
    log.positions.put(2)

    assert sleeper.result() == 2


def test_what_was_known_before_anyone_slept_is_forgotten(log):
    watcher = waiting.Watcher()
    watcher.publish(99)
    log.positions.put(2)

    assert watcher.wait(1, 10) == 2


def test_sleepers_outlast_a_database_that_does_not_answer(log, pool):
    watcher = waiting.Watcher()
    sleeper = pool.submit(watcher.wait, 0, 10)
    for _ in range(3):
        log.positions.put(OperationalError("gone"))
    log.positions.put(1)

    assert sleeper.result() == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_replaced(log):
    watcher = waiting.Watcher()
    log.positions.put(ZeroDivisionError("a mistake of ours"))
    watcher.wait(0, 0.2)
    log.positions.put(1)

    assert watcher.wait(0, 10) == 1


def test_no_sleeper_hangs_however_they_come_and_go(log, pool, monkeypatch):
    head = 0

    def look():
        while True:
            yield head

    monkeypatch.setattr(waiting, "_positions", look)
    watcher = waiting.Watcher()
    for head in range(1, 60):  # read by `look`
        sleepers = [pool.submit(watcher.wait, head - 1, 10) for _ in range(4)]
        assert all(each.result() >= head for each in sleepers)


def wait_for_news(watcher, log, key, after=0):
    with watcher.waiter(key, after, log.newest) as mine:
        return mine.wait(PATIENCE)


def test_one_question_is_asked_for_all_that_wait_for_news(log, pool):
    watcher = waiting.Watcher()
    sleepers = {key: pool.submit(wait_for_news, watcher, log, key) for key in "abc"}
    wait_for(lambda: watcher._sleepers == 3)
    log.asked.clear()
    for position in (1, 1, 2):
        log.positions.put(position)
    wait_for(lambda: len(log.asked) == 2)  # the log has grown twice
    log.news = {"a": 3, "x": 3}
    log.positions.put(3)
    assert sleepers["a"].result()
    assert log.asked == [{"a", "b", "c"}] * 3
    log.news |= {"b": 4, "c": 4}
    log.positions.put(4)
    assert all(each.result() for each in sleepers.values())
    assert log.asked[3:] == [{"b", "c"}]


def test_news_from_before_it_slept_is_news(log):
    watcher = waiting.Watcher()
    log.news = {"a": 3}

    assert wait_for_news(watcher, log, "a", after=2)


def test_news_while_no_thread_looked_is_seen_by_the_next(log):
    watcher = waiting.Watcher()
    with watcher.waiter("a", 2, log.newest) as mine:
        log.positions.put(2)
        assert not mine.wait(0.01)
        log.positions.put(2)
        wait_for(lambda: watcher._thread is None)
        log.news = {"a": 3}
        log.positions.put(3)
        assert mine.wait(PATIENCE)


def test_news_that_could_not_be_asked_for_is_asked_for_again(log, pool):
    watcher = waiting.Watcher()
    sleeper = pool.submit(wait_for_news, watcher, log, "a")
    wait_for(lambda: watcher._sleepers == 1)
    log.failures = [OperationalError("gone")]
    log.news = {"a": 1}
    log.positions.put(1)
    log.positions.put(1)
    assert sleeper.result()
    assert log.failures == []
