"""The time that a step may take. Celery's `solo` pool ignores time limits, so every step checks its deadline."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rollout.agent.failure import CanceledError, Failure
from rollout.messages import Reason

#: The longest time of one operation, whatever its command says, seconds. Below the broker's visibility timeout.
LONGEST_OPERATION = 3000.0


class Deadline:
    """Ends `seconds` from now, or as soon as `is_given_up` returns True."""

    def __init__(self, seconds: float, *, is_given_up: Callable[[], bool], step: str = "The operation") -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._is_given_up = is_given_up
        self._step = step

    def remaining(self) -> float:
        """Return the seconds left, more than 0. Raises: `CanceledError`; `Failure` (node_deadline) if there are none."""
        if self._is_given_up():
            raise CanceledError
        left = self._end - time.monotonic()
        if left <= 0:
            raise Failure(Reason.NODE_DEADLINE, f"{self._step} took longer than {self._seconds:g} s on the node.")
        return left

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the clock: what the block waits for may take as long as it makes progress."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._end += time.monotonic() - began

    def step(self, name: str, seconds: float) -> "Deadline":
        """Return the deadline of one step: `seconds` from now, but never later than this deadline."""
        left = self.remaining()
        return Deadline(seconds, is_given_up=self._is_given_up, step=name) if seconds < left else self
