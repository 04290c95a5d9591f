"""Waiting for the log to grow, or for news of one thing: one thread per process looks, any number of others sleep.

Who waits for news of a key sleeps through everything else, and asks the database nothing meanwhile: when the log has
grown, the one thread asks once for all of them. What wakes a sleeper is a hint only: what it reads then is what counts.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from django.db import Error, connection

from eventstore.database import CHANNEL, leave_the_pool
from eventstore.reading import head

#: SQLite has no notifications: how often, in seconds, a process with sleepers looks whether another one wrote.
POLL_SECONDS = 0.02
#: PostgreSQL: longest time, in seconds, between two looks when no notification arrives.
LISTEN_SECONDS = 1.0
#: How long, in seconds, to leave a database alone that could not be asked.
RETRY_SECONDS = 0.5

#: Answers the position of the newest event about each of some keys, in one query. What a key is only its caller knows.
Newest = Callable[[Collection[str]], Mapping[str, int]]

logger = logging.getLogger(__name__)


def announce(position: int) -> None:
    """Wake this process's sleepers: `position` is committed. The database wakes those of other processes."""
    watcher.publish(position)


def wait_for_growth(after: int, *, timeout: float) -> int:
    """The newest position, as soon as it is above `after`; `after` itself when `timeout` seconds have passed.

    The caller's database connection is given back while it sleeps.
    """
    _give_back()
    return watcher.wait(after, timeout)


def wait_for_news(key: str, *, after: int, newest: Newest, timeout: float) -> bool:
    """Whether there is an event about `key` after that position, as soon as there is; False when `timeout` seconds have
    passed. The caller's database connection is given back while it sleeps."""
    with watcher.subscribed(key, after, newest) as subscription:
        return subscription.wait(timeout)


class Subscription:
    """Of one sleeper to the news of one key after a position."""

    def __init__(self, watcher: "Watcher", key: str, after: int, newest: Newest) -> None:
        self.key = key
        self.newest = newest
        self._watcher = watcher
        self._after = after
        self._has_news = threading.Event()

    @property
    def has_news(self) -> bool:
        return self._has_news.is_set()

    def tell(self, position: int) -> None:
        """The newest event about the key is at this position."""
        if position > self._after:
            self.wake()

    def wake(self) -> None:
        self._has_news.set()

    def wait(self, timeout: float) -> bool:
        """As `wait_for_news`; may be called again."""
        _give_back()
        with self._watcher.sleeper():
            return self._has_news.wait(timeout)


def _give_back() -> None:
    if not connection.in_atomic_block:
        connection.close()


class Watcher:
    """Knows the newest position of the log while anyone waits for it, and only then."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._position = 0
        self._sleepers = 0
        self._subscriptions: set[Subscription] = set()
        self._thread: threading.Thread | None = None

    def publish(self, position: int) -> None:
        """Positions come from two sides, the thread and local commits, and only the newest counts."""
        with self._condition:
            if position > self._position:
                self._position = position
                self._condition.notify_all()

    def wait(self, after: int, timeout: float) -> int:
        with self.sleeper(), self._condition:
            self._condition.wait_for(lambda: self._position > after, timeout)
            return max(after, self._position)

    @contextmanager
    def sleeper(self) -> Iterator[None]:
        """Inside, somebody sleeps: the log is watched."""
        with self._condition:
            self._sleepers += 1
            self._watch_if_nobody_does()
        try:
            yield
        finally:
            with self._condition:
                self._sleepers -= 1

    @contextmanager
    def subscribed(self, key: str, after: int, newest: Newest) -> Iterator[Subscription]:
        """Inside, the subscription is told of news of the key, also of what was recorded before it began."""
        mine = Subscription(self, key, after, newest)
        with self._condition:
            self._subscriptions.add(mine)
        try:
            _tell([mine])  # after it is listed: the thread sees what is committed from now on
            yield mine
        finally:
            with self._condition:
                self._subscriptions.discard(mine)

    def _tell_of_growth(self) -> None:
        with self._condition:
            sleeping = [each for each in self._subscriptions if not each.has_news]
        _tell(sleeping)

    def _watch_if_nobody_does(self) -> None:
        """Called with the lock held. A thread does not outlive a fork: it is asked, not only looked up."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._position = 0  # what was known before may be of a database that has been restored since
        self._thread = threading.Thread(target=self._watch, name="log-watcher", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        leave_the_pool()
        newest = 0
        while True:
            told = -1
            try:
                for position in _positions():
                    if position < newest:
                        self._go_back_to(position)
                    newest = position
                    self.publish(position)
                    if position != told:
                        self._tell_of_growth()
                        told = position
                    if not self._wanted():
                        return
            except Error as error:
                if not self._wanted():
                    return
                logger.warning("cannot follow the log, trying again: %s", error)
                time.sleep(RETRY_SECONDS)
            finally:
                connection.close()

    def _go_back_to(self, position: int) -> None:
        """The database was restored: what was waited for may never come, so everybody looks anew."""
        with self._condition:
            self._position = position
            for each in self._subscriptions:
                each.wake()

    def _wanted(self) -> bool:
        """Whether anyone sleeps; if not, the next sleeper starts a thread of its own, from this moment on."""
        with self._condition:
            if not self._sleepers:
                self._thread = None
            return self._sleepers > 0


def _tell(subscriptions: Collection[Subscription]) -> None:
    """One query for those that ask in the same way."""
    for newest in {each.newest for each in subscriptions}:
        asking = [each for each in subscriptions if each.newest == newest]
        positions = newest({each.key for each in asking})
        for each in asking:
            each.tell(positions.get(each.key, 0))


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
