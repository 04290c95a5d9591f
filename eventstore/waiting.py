"""Waiting until the log grows, or until there is an event about one key.

One thread per process watches the log while any thread waits. Waiting threads use no database connection. When the log
has grown, the watching thread asks once for all waiters of the same kind. A waiter may wake too early: it has to read what
has changed.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from django.db import Error, connection

from eventstore.conf import conf
from eventstore.database import leave_the_pool
from eventstore.reading import head

#: SQLite has no notifications: how often a process with waiters asks for the newest position, in seconds.
POLL_SECONDS = 0.02
#: PostgreSQL: how long to wait for a notification before asking for the newest position anyway, in seconds.
LISTEN_SECONDS = 1.0
#: How long to wait before the next attempt after a database error, in seconds.
RETRY_SECONDS = 0.5

#: Returns the position of the newest event about each key, in one query. The caller decides what a key is.
Newest = Callable[[Collection[str]], Mapping[str, int]]

logger = logging.getLogger(__name__)


def announce(position: int) -> None:
    """Wake the waiters of this process: `position` is committed. The database notifies other processes."""
    watcher.publish(position)


def wait_for_growth(after: int, *, timeout: float) -> int:
    """Wait until the newest position is above `after`, and return it; return `after` after `timeout` seconds.

    Closes the connection of this thread first, unless a transaction is open.
    """
    _close_connection()
    return watcher.wait(after, timeout)


def wait_for_news(key: str, *, after: int, newest: Newest, timeout: float, ends_early: bool = False) -> bool:
    """Wait until there is an event about `key` after a position. Return False after `timeout` seconds without one.

    Events that are already in the log count. Closes the connection of this thread first, unless a transaction is open.
    With `ends_early`, also return when the process is about to end (`is_ending`).
    """
    with watcher.waiter(key, after, newest, ends_early=ends_early) as waiter:
        return waiter.wait(timeout)


def end_waits() -> None:
    """Wake all waiters that end early, now and from now on: the process is about to end."""
    watcher.end_waits()


def is_ending() -> bool:
    """Return True after `end_waits`."""
    return watcher.is_ending


class Waiter:
    """A thread that waits for an event about one key after a position."""

    def __init__(self, watcher: "Watcher", key: str, after: int, newest: Newest, *, ends_early: bool) -> None:
        self.key = key
        self.newest = newest
        self.ends_early = ends_early
        self._watcher = watcher
        self._after = after
        self._has_news = threading.Event()

    @property
    def has_news(self) -> bool:
        """Return True once there is such an event."""
        return self._has_news.is_set()

    def notify(self, position: int) -> None:
        """Wake the thread if the position, that of the newest event about the key, is after its own."""
        if position > self._after:
            self.wake()

    def wake(self) -> None:
        """Wake the thread."""
        self._has_news.set()

    def wait(self, timeout: float) -> bool:
        """Wait as `wait_for_news` does. May be called again."""
        _close_connection()
        with self._watcher.sleeper():
            return self._has_news.wait(timeout)


def _close_connection() -> None:
    if not connection.in_atomic_block:
        connection.close()


class Watcher:
    """Knows the newest position of the log while any thread waits for it, and only then."""

    def __init__(self) -> None:
        #: True if the process is about to end.
        self.is_ending = False
        self._condition = threading.Condition()
        self._position = 0
        self._sleepers = 0
        self._waiters: set[Waiter] = set()
        self._thread: threading.Thread | None = None

    def publish(self, position: int) -> None:
        """Wake the threads in `wait` if this is a newer position. Both the watching thread and local commits call it."""
        with self._condition:
            if position > self._position:
                self._position = position
                self._condition.notify_all()

    def wait(self, after: int, timeout: float) -> int:
        """Wait as `wait_for_growth` does."""
        with self.sleeper(), self._condition:
            self._condition.wait_for(lambda: self._position > after, timeout)
            return max(after, self._position)

    @contextmanager
    def sleeper(self) -> Iterator[None]:
        """Keep the log watched: a thread sleeps inside."""
        with self._condition:
            self._sleepers += 1
            self._start_if_needed()
        try:
            yield
        finally:
            with self._condition:
                self._sleepers -= 1

    @contextmanager
    def waiter(self, key: str, after: int, newest: Newest, *, ends_early: bool = False) -> Iterator[Waiter]:
        """Return a waiter that gets all news of the key while inside, and those from before."""
        waiter = Waiter(self, key, after, newest, ends_early=ends_early)
        with self._condition:
            self._waiters.add(waiter)
            if self.is_ending and ends_early:
                waiter.wake()
        try:
            _notify([waiter])  # once it is in the set: the thread sees what is committed from now on
            yield waiter
        finally:
            with self._condition:
                self._waiters.discard(waiter)

    def end_waits(self) -> None:
        """Wake all waiters that end early, now and from now on."""
        with self._condition:
            self.is_ending = True
            for each in self._waiters:
                if each.ends_early:
                    each.wake()

    def _notify_waiters(self) -> None:
        with self._condition:
            waiting = [each for each in self._waiters if not each.has_news]
        _notify(waiting)

    def _start_if_needed(self) -> None:
        """Start the watching thread unless it runs. Called with the lock held."""
        # `is_alive`, because a thread does not survive a fork.
        if self._thread is not None and self._thread.is_alive():
            return
        self._position = 0  # the database may have been restored since the last thread ended
        self._thread = threading.Thread(target=self._watch, name="log-watcher", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        leave_the_pool()
        newest = 0
        while True:
            notified = -1
            try:
                for position in _positions():
                    if position < newest:
                        self._go_back_to(position)
                    newest = position
                    self.publish(position)
                    if position != notified:
                        self._notify_waiters()
                        notified = position
                    if not self._goes_on():
                        return
            except Error as error:
                if not self._goes_on():
                    return
                logger.warning("cannot read the log, trying again: %s", error)
                time.sleep(RETRY_SECONDS)
            finally:
                connection.close()

    def _go_back_to(self, position: int) -> None:
        """Wake all waiters: the database was restored, so the events that they wait for may never come."""
        with self._condition:
            self._position = position
            for each in self._waiters:
                each.wake()

    def _goes_on(self) -> bool:
        """Return True if any thread sleeps. Otherwise this thread ends, and the next sleeper starts another."""
        with self._condition:
            if not self._sleepers:
                self._thread = None
            return self._sleepers > 0


def _notify(waiters: Collection[Waiter]) -> None:
    """Ask for news, with one query for all waiters that have the same `newest`."""
    for newest in {each.newest for each in waiters}:
        asking = [each for each in waiters if each.newest == newest]
        positions = newest({each.key for each in asking})
        for each in asking:
            each.notify(positions.get(each.key, 0))


watcher = Watcher()


def _positions() -> Iterator[int]:
    """Yield the newest position again and again: at each notification, or at each poll on SQLite."""
    if connection.vendor == "postgresql":
        yield from _notified_positions()
    while True:
        yield head()
        time.sleep(POLL_SECONDS)


def _notified_positions() -> Iterator[int]:
    connection.ensure_connection()
    with connection.wrap_database_errors:
        connection.connection.execute(f"LISTEN {connection.ops.quote_name(conf().channel)}")
    while True:
        yield head()
        with connection.wrap_database_errors:
            # To the end of the generator: many commits at once lead to one query.
            for _ in connection.connection.notifies(timeout=LISTEN_SECONDS, stop_after=1):
                pass
