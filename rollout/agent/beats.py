"""Tells the control plane at every interval that this node lives, also while an operation runs."""

import logging
import threading
from collections.abc import Callable

from rollout.agent.carrier import Carrier
from rollout.messages import BEATS, Beat

log = logging.getLogger(__name__)

#: Seconds until the next try when a beat could not be sent.
RETRY_SECONDS = 1.0


class Beats:
    """A thread that sends what `compose(hello)` answers through a connection of its own."""

    def __init__(self, compose: Callable[[bool], Beat], carrier: Carrier, *, interval: float) -> None:
        self._compose = compose
        self._carrier = carrier
        self._interval = interval
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beats", daemon=True)

    def start(self) -> None:
        """The first beat, the hello, leaves at once."""
        self._thread.start()

    def soon(self) -> None:
        """The next beat leaves now instead of at the end of the interval."""
        self._wake.set()

    def stop(self) -> None:
        """No beat is sent any more."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        hello = True
        while not self._stopping.is_set():
            sent = self._send(hello)
            hello = hello and not sent
            self._wake.wait(self._interval if sent else min(RETRY_SECONDS, self._interval))
            self._wake.clear()
        self._carrier.close()

    def _send(self, hello: bool) -> bool:
        try:
            return self._carrier.send(self._compose(hello), queue=BEATS, patience=0, expires=self._interval)
        except Exception:  # the thread's outermost loop: a node that stops beating is taken for dead
            log.exception("A beat could not be sent")
            return False
