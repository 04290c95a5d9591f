"""Threads that answer requests: started on demand, and ended after some idle time."""

import threading
from collections import deque
from collections.abc import Callable

from django.db import connections

#: How long an idle thread is kept, seconds.
IDLE_SECONDS = 30.0


class Threads:
    """At most `limit` threads at once; more work waits in a queue. They do not delay the end of the process."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._ready = threading.Condition()
        self._work: deque[Callable[[], None]] = deque()
        self._running = 0
        self._idle = 0

    def submit(self, work: Callable[[], None]) -> None:
        """Run `work` in one of the threads. It must not raise."""
        with self._ready:
            self._work.append(work)
            if len(self._work) <= self._idle:
                self._ready.notify()
                return
            if self._running >= self._limit:
                return
            self._running += 1
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        try:
            while self._run_next():
                pass
        finally:
            # Otherwise the database and its files stay open until they are garbage-collected.
            connections.close_all()

    def _run_next(self) -> bool:
        """Run the next work in its own frame, so that a waiting thread keeps no objects of its last work."""
        work = self._next()
        if work is None:
            return False
        work()
        return True

    def _next(self) -> Callable[[], None] | None:
        with self._ready:
            self._idle += 1
            self._ready.wait_for(lambda: self._work, timeout=IDLE_SECONDS)
            self._idle -= 1
            if self._work:
                return self._work.popleft()
            self._running -= 1
            return None
