"""Rate limits, counted in the memory of this process: a token bucket (GCRA) for each key.

A bucket has tokens for a minute and fills evenly: with 10 per minute, ten requests may come at once, then one every 6 s.
"""

import time
from collections import OrderedDict
from collections.abc import Hashable
from math import ceil
from threading import Lock

from api.errors import TooManyRequestsError

_SECOND = 1_000_000_000
_MINUTE = 60 * _SECOND
#: How many keys one limit keeps: at most 2 MB.
_KEYS_AT_MOST = 10_000


class RateLimit:
    """Keeps the keys that were counted last. A dropped key starts again with a full bucket. Threads may share one object.

    With a `per_minute` of 0 there is no limit. Each call takes microseconds.
    """

    def __init__(self, size: int = _KEYS_AT_MOST) -> None:
        self._size = size
        #: When the bucket of each key is full again, nanoseconds of the monotonic clock.
        self._full_at: OrderedDict[Hashable, int] = OrderedDict()
        self._lock = Lock()

    def seconds_to_wait(self, key: Hashable, *, per_minute: int) -> float:
        """Return the seconds until the key may be counted again; 0.0 if it may now."""
        with self._lock:
            return self._wait(key, per_minute)

    def count(self, key: Hashable, *, per_minute: int) -> None:
        """Count the key, even over the limit: for something that has already happened."""
        with self._lock:
            self._count(key, per_minute)

    def take(self, key: Hashable, what: str, *, per_minute: int) -> None:
        """Count the key. Raises: `TooManyRequestsError`. Then it is not counted: more requests do not make the wait longer."""
        with self._lock:
            seconds = self._wait(key, per_minute)
            if not seconds:
                self._count(key, per_minute)
        if seconds:
            raise too_many(what, seconds)

    def clear(self) -> None:
        with self._lock:
            self._full_at.clear()

    def _wait(self, key: Hashable, per_minute: int) -> float:
        if per_minute <= 0:
            return 0.0
        now = time.monotonic_ns()
        full_at = max(now, self._full_at.get(key, 0)) + _MINUTE // per_minute
        return max(0, full_at - now - _MINUTE) / _SECOND

    def _count(self, key: Hashable, per_minute: int) -> None:
        if per_minute <= 0:
            return
        self._full_at[key] = max(time.monotonic_ns(), self._full_at.get(key, 0)) + _MINUTE // per_minute
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._size:
            self._full_at.popitem(last=False)


def too_many(what: str, seconds: float) -> TooManyRequestsError:
    """Return the error. `what` is a plural, such as `requests`."""
    return TooManyRequestsError(f"Too many {what}: try again in {max(1, ceil(seconds))} s.", seconds=seconds)
