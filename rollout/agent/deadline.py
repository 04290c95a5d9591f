"""Time that a step may take. The pool `solo` ignores Celery's time limits, so every step asks here."""

import time
from collections.abc import Callable

from rollout.agent.failure import CanceledError, Failure
from rollout.messages import Reason

#: Longest that one operation may take whatever its command says, in seconds: below the broker's visibility timeout.
LONGEST_OPERATION = 3000.0


class Deadline:
    """A moment `seconds` from now; sooner when `is_given_up` says that nobody wants the work any more."""

    def __init__(self, seconds: float, *, is_given_up: Callable[[], bool], step: str = "The operation") -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._is_given_up = is_given_up
        self._step = step

    def remaining(self) -> float:
        """Seconds left, more than 0. Raises: `CanceledError`; `Failure` (node_deadline) when none are."""
        if self._is_given_up():
            raise CanceledError
        left = self._end - time.monotonic()
        if left <= 0:
            raise Failure(Reason.NODE_DEADLINE, f"{self._step} took longer than {self._seconds:g} s on the node.")
        return left

    def step(self, name: str, seconds: float) -> "Deadline":
        """Deadline of one step: `seconds` from now, but never later than this one."""
        left = self.remaining()
        return Deadline(seconds, is_given_up=self._is_given_up, step=name) if seconds < left else self
