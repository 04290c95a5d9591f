"""Limits how many do something at once, counted in the memory of this process: for requests that block a thread."""

from collections import Counter
from collections.abc import Callable, Hashable
from threading import Lock


class Slots:
    """Counts the slots of each key. Threads may share one object."""

    def __init__(self) -> None:
        self._taken: Counter[Hashable] = Counter()
        self._lock = Lock()

    def take(self, key: Hashable, limit: int) -> Callable[[], None] | None:
        """Take a slot. Return the function that releases it, to be called once. None if `limit` slots are taken."""
        with self._lock:
            if self._taken[key] >= limit:
                return None
            self._taken[key] += 1
        return lambda: self._give_back(key)

    def _give_back(self, key: Hashable) -> None:
        with self._lock:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]
