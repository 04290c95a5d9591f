"""Intervals of time, merged where they touch, so that each question takes a binary search."""

from bisect import bisect_right
from collections.abc import Iterable


class Windows:
    """All times in seconds. Both ends of an interval belong to it."""

    def __init__(self, intervals: Iterable[tuple[float, float]]) -> None:
        self._starts: list[float] = []
        self._ends: list[float] = []
        for start, end in sorted(intervals):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def touches(self, start: float, end: float) -> bool:
        """Return True if an interval has a moment in common with the one given."""
        return self.last_end(end) >= start

    def last_end(self, moment: float) -> float:
        """Return the end of the last interval that starts at the moment or before; minus infinity if there is none."""
        number = bisect_right(self._starts, moment)
        return self._ends[number - 1] if number else float("-inf")
