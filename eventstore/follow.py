"""Waiting for the log to grow: one thread per process looks, any number of requests sleep on one condition.

What wakes a sleeper is a hint only: it reads the log, and what stands there is what counts.
"""

import logging
import threading
import time
from collections.abc import Iterator

from django.db import Error, connection

from eventstore.database import CHANNEL, leave_the_pool
from eventstore.reading import head

#: SQLite has no notifications: how often, in seconds, a process with sleepers looks whether another one wrote.
POLL_SECONDS = 0.02
#: PostgreSQL: longest time, in seconds, between two looks when no notification arrives.
LISTEN_SECONDS = 1.0
#: How long, in seconds, to leave a database alone that could not be asked.
RETRY_SECONDS = 0.5

logger = logging.getLogger(__name__)


def announce(position: int) -> None:
    """Wake this process's sleepers: `position` is committed. The database wakes those of other processes."""
    watcher.publish(position)


def wait_for_growth(after: int, *, timeout: float) -> int:
    """The newest position, as soon as it is above `after`; `after` itself when `timeout` seconds have passed.

    The caller's database connection is given back while it sleeps.
    """
    if not connection.in_atomic_block:
        connection.close()
    return watcher.wait(after, timeout)


class Watcher:
    """Knows the newest position of the log while anyone waits for it, and only then."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._position = 0
        self._sleepers = 0
        self._thread: threading.Thread | None = None

    def publish(self, position: int) -> None:
        """Positions come from two sides, the thread and local commits, and only the newest counts."""
        with self._condition:
            if position > self._position:
                self._position = position
                self._condition.notify_all()

    def wait(self, after: int, timeout: float) -> int:
        with self._condition:
            self._sleepers += 1
            try:
                self._watch_if_nobody_does()
                self._condition.wait_for(lambda: self._position > after, timeout)
                return max(after, self._position)
            finally:
                self._sleepers -= 1

    def _watch_if_nobody_does(self) -> None:
        """Called with the lock held. A thread does not outlive a fork: it is asked, not only looked up."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._position = 0  # what was known before may be of a database that has been restored since
        self._thread = threading.Thread(target=self._watch, name="log-watcher", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        leave_the_pool()
        while True:
            try:
                for position in _positions():
                    self.publish(position)
                    if not self._wanted():
                        return
            except Error as error:
                if not self._wanted():
                    return
                logger.warning("cannot follow the log, trying again: %s", error)
                time.sleep(RETRY_SECONDS)
            finally:
                connection.close()

    def _wanted(self) -> bool:
        """Whether anyone sleeps; if not, the next sleeper starts a thread of its own, from this moment on."""
        with self._condition:
            if not self._sleepers:
                self._thread = None
            return self._sleepers > 0


watcher = Watcher()


def _positions() -> Iterator[int]:
    """The newest position, again and again: at once when the database says so, else at each look."""
    if connection.vendor == "postgresql":
        yield from _positions_told()
    while True:
        yield head()
        time.sleep(POLL_SECONDS)


def _positions_told() -> Iterator[int]:
    connection.ensure_connection()
    with connection.wrap_database_errors:
        connection.connection.execute(f"LISTEN {CHANNEL}")
    while True:
        yield head()
        with connection.wrap_database_errors:
            # To the end of the generator, so that many commits at once are one look.
            for _ in connection.connection.notifies(timeout=LISTEN_SECONDS, stop_after=1):
                pass
