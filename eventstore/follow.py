"""Waiting for the log to grow: one thread per process looks, any number of requests sleep on one condition.

What wakes a sleeper is a hint only: it reads the log, and what stands there is what counts.
"""

import threading
import time
from collections.abc import Iterator

from django.db import OperationalError, connection

CHANNEL = "modfleet_log"
#: SQLite has no notifications: how often, in seconds, a process with sleepers looks whether another one wrote.
POLL_SECONDS = 0.02


def announce(position: int) -> None:
    """Wake the sleepers of all processes. Called after the commit that wrote `position`."""
    watcher.publish(position)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, str(position)])


def wait_for_growth(after: int, *, timeout: float) -> int:
    """The newest position, as soon as it is above `after`, or after `timeout` seconds.

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
        with self._condition:
            if position > self._position:
                self._position = position
                self._condition.notify_all()

    def wait(self, after: int, timeout: float) -> int:
        with self._condition:
            self._sleepers += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="log-watcher", daemon=True)
                self._thread.start()
            try:
                self._condition.wait_for(lambda: self._position > after, timeout)
                return self._position
            finally:
                self._sleepers -= 1

    def _watch(self) -> None:
        try:
            for position in _positions():
                self.publish(position)
                with self._condition:
                    if not self._sleepers:
                        self._thread = None
                        return
        except OperationalError:  # the database went away: the next sleeper starts a new look
            with self._condition:
                self._thread = None
        finally:
            connection.close()


def _positions() -> Iterator[int]:
    """The newest position, again and again: at once when the database says so, else at each look."""
    from eventstore.store import head

    if connection.vendor == "postgresql":
        connection.ensure_connection()
        listener = connection.connection
        listener.execute(f"LISTEN {CHANNEL}")
        while True:
            yield head()
            next(listener.notifies(timeout=1.0, stop_after=1), None)
    while True:
        yield head()
        time.sleep(POLL_SECONDS)
