"""A clock that stands still while something happens, and jumps to what is due next."""

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = EPOCH
        self._due: list[tuple[datetime, int, Callable[..., object], tuple[Any, ...]]] = []
        self._numbers = 0

    def after(self, seconds: float, function: Callable[..., object], *args: Any) -> None:
        self._at(self.now + timedelta(seconds=seconds), function, *args)

    def _at(self, moment: datetime, function: Callable[..., object], *args: Any) -> None:
        self._numbers += 1
        heapq.heappush(self._due, (moment, self._numbers, function, args))

    def run(self, seconds: float | None = None, *, until: Callable[[], bool] | None = None) -> None:
        """All that is due for so long, or as long as anything is; stops once `until` is true."""
        end = None if seconds is None else self.now + timedelta(seconds=seconds)
        while self._due and (end is None or self._due[0][0] <= end):
            if until is not None and until():
                return
            self.now, _, function, args = heapq.heappop(self._due)
            function(*args)
        if end is not None:
            self.now = end
