"""Sends a heartbeat at every interval, also while an operation runs."""

import logging
import threading
import time
from collections.abc import Callable

from rollout.agent.control_plane.publisher import Publisher
from rollout.messages import HEARTBEATS, Heartbeat

log = logging.getLogger(__name__)

#: Seconds until the next attempt if a heartbeat could not be sent.
RETRY_SECONDS = 1.0
#: How often the server is asked between two heartbeats if it still answers, seconds.
WATCH_SECONDS = 2.5


class Heartbeats:
    """A thread that sends what `compose(hello)` returns, through a connection of its own.

    If `is_silent` returns True, the next heartbeat does not wait for the end of the interval.
    """

    def __init__(
        self,
        compose: Callable[[bool], Heartbeat],
        publisher: Publisher,
        *,
        interval: float,
        is_silent: Callable[[], bool] = lambda: False,
    ) -> None:
        self._compose = compose
        self._is_silent = is_silent
        self._publisher = publisher
        self._interval = interval
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)

    def start(self) -> None:
        """Start the thread. The first heartbeat, the hello, is sent at once."""
        self._thread.start()

    def soon(self) -> None:
        """Send the next heartbeat now instead of at the end of the interval."""
        self._wake.set()

    def stop(self) -> None:
        """Stop the thread."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        hello = True
        while not self._stopping.is_set():
            sent = self._send(hello)
            if hello and sent:
                hello = False
                continue  # the next heartbeat, which starts the doctor, follows the hello at once
            self._wait(self._interval if sent else min(RETRY_SECONDS, self._interval))
            self._wake.clear()
        self._publisher.close()

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._wake.wait(min(left, WATCH_SECONDS)):
                return
            if left > WATCH_SECONDS and self._is_silent():
                return

    def _send(self, hello: bool) -> bool:
        try:
            return self._publisher.send(self._compose(hello), queue=HEARTBEATS, patience=0, expires=self._interval)
        except Exception:  # the thread's outermost loop: a node without heartbeats counts as offline
            log.exception("A heartbeat could not be sent")
            return False
