"""Sleepers wake when the log grows, whichever process let it grow."""

import os
import subprocess
import sys
import threading
import time

import pytest
from django.db import connection, transaction

from eventstore import Append, append, end_waits, is_ending, wait_for_growth, wait_for_news, waiting
from tests.ledger import Opened
from tests.plugins.databases import at_once
from tests.waiting import PATIENCE

pytestmark = pytest.mark.usefixtures("ledger", "committed_db")

EVENT = Opened(owner="alice")
APPEND_ELSEWHERE = """
import sys, time, django
django.setup()
from eventstore import Append, append
from tests.ledger import Opened, register_events
register_events()
print("ready", flush=True)
sys.stdin.readline()
began = time.time()
append(Append("elsewhere", 0, [Opened(owner="alice")]))
print(began, flush=True)
"""


@pytest.fixture
def other_process(request):
    with subprocess.Popen(
        [sys.executable, "-c", APPEND_ELSEWHERE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=request.config.rootpath,
        env=dict(os.environ),
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process


def test_an_append_by_another_process_wakes(other_process, monkeypatch):
    monkeypatch.setattr(waiting, "LISTEN_SECONDS", 3600)  # so that it is the notification which wakes

    def append_there() -> float:
        time.sleep(0.3)
        other_process.stdin.write("\n")
        other_process.stdin.flush()
        return float(other_process.stdout.readline())

    def sleep_here() -> float:
        assert wait_for_growth(0, timeout=3600) == 1
        return time.time()

    appended, woken = at_once(append_there, sleep_here)
    assert woken >= appended


def test_it_returns_at_the_timeout():
    append(Append("a", 0, [EVENT]))
    began = time.monotonic()

    assert wait_for_growth(1, timeout=0.2) == 1
    assert wait_for_growth(9, timeout=0.2) == 9  # and never less than what the caller has seen
    assert time.monotonic() - began >= 0.4


def test_what_is_there_already_is_answered_at_once():
    append(Append("a", 0, [EVENT] * 3))

    assert wait_for_growth(0, timeout=20) == 3


def test_many_sleepers_wake():
    def append_soon() -> int:
        time.sleep(0.2)
        return append(Append("a", 0, [EVENT]))[0].position

    assert at_once(append_soon, *[lambda: wait_for_growth(0, timeout=20)] * 30) == [1] * 31


def test_the_connection_is_given_back_while_asleep():
    append(Append("a", 0, [EVENT]))
    wait_for_growth(1, timeout=0.05)

    assert connection.connection is None


def test_the_watcher_ends_when_nobody_waits():
    wait_for_growth(0, timeout=0.05)

    (thread,) = [each for each in threading.enumerate() if each.name == "log-watcher"]
    thread.join(timeout=waiting.LISTEN_SECONDS + 2)
    assert not thread.is_alive()
    assert waiting.watcher._thread is None
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
            assert cursor.fetchone() == (1,)


def test_the_end_of_the_process_ends_the_waits_that_allow_it(monkeypatch):
    monkeypatch.setattr(waiting.watcher, "is_ending", False)

    def wait(ends_early: bool, timeout: float) -> bool:
        return wait_for_news("a", after=0, newest=lambda _: {}, timeout=timeout, ends_early=ends_early)

    def end() -> bool:
        end_waits()
        return is_ending()

    assert at_once(lambda: wait(True, 3600), lambda: wait(False, 0.3), end) == [True, False, True]
    assert wait(True, 3600)  # and those that begin later
    assert not wait(False, 0.05)


def test_an_append_is_announced_after_the_outer_commit():
    appended, looked = threading.Event(), threading.Event()

    def append_and_hold() -> None:
        with transaction.atomic():
            append(Append("a", 0, [EVENT]))
            appended.set()
            assert looked.wait(timeout=PATIENCE)

    def sleep() -> tuple[int, int]:
        assert appended.wait(timeout=PATIENCE)
        before = wait_for_growth(0, timeout=0.3)
        looked.set()
        return before, wait_for_growth(0, timeout=20)

    assert at_once(append_and_hold, sleep)[1] == (0, 1)


def test_what_is_rolled_back_is_not_announced():
    with transaction.atomic():
        append(Append("a", 0, [EVENT]))
        transaction.set_rollback(True)

    assert wait_for_growth(0, timeout=0.2) == 0


def test_a_lost_connection_is_replaced(monkeypatch):
    if connection.vendor != "postgresql":
        pytest.skip("nothing to lose: SQLite's connection is a file")
    monkeypatch.setattr(waiting, "RETRY_SECONDS", 0.05)

    def cut_and_append() -> None:
        time.sleep(0.5)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            assert cursor.fetchall() == [(True,)]
        append(Append("a", 0, [EVENT]))

    assert at_once(cut_and_append, lambda: wait_for_growth(0, timeout=20))[1] == 1
