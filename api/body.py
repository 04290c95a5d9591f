"""The body of a request, as a bounded stream with which a slow client cannot block a thread.

Nearly every body is complete before its thread starts (`api.front`). A longer one has few threads and little time until
its credentials are verified, and after that a minimum rate.
"""

import io
import math
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from django.conf import settings

from api.errors import ApiError, BodyTooSlowError, TooManyBodiesError
from api.rate_limits import too_many
from api.slots import Slots
from eventstore import current_actor, is_person

#: How much longer a multipart body may be than its largest allowed file, bytes.
ENVELOPE_BYTES = 100_000
_slots = Slots()


class Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


@runtime_checkable
class TimedSource(Source, Protocol):
    """A source that says if a read must wait, and can wait with a timeout."""

    @property
    def is_at_hand(self) -> bool: ...

    def read_within(self, size: int, seconds: float, /) -> bytes: ...


class RefusedBodyError(OSError):
    """The rest of the body is not read; `BodyStream.refusal` says why. To Django it is a closed connection."""


class BodyStream(io.IOBase):
    """Reads at most `length` bytes of `source`. `before` is called once, before the first read that must wait."""

    def __init__(self, source: Source, length: int, *, before: Callable[[], None] = lambda: None) -> None:
        self._before = before
        self._source = source
        self._left = length
        #: Seconds waited and bytes read in the current window of the rate.
        self._waited = 0.0
        self._received = 0
        self._release_slot: Callable[[], None] | None = None
        #: Why the rest of the body was refused. This is the answer, even if the view handles the error.
        self.refusal: ApiError | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes. Raises: `RefusedBodyError`."""
        most = self._left if size is None or size < 0 else min(size, self._left)
        if not most:
            return b""
        data = self._read(most)
        self._left = self._left - len(data) if data else 0
        return data

    def release(self) -> None:
        """Release the slot: no more is read."""
        if self._release_slot is not None:
            self._release_slot()
            self._release_slot = None

    def _read(self, most: int) -> bytes:
        if not isinstance(self._source, TimedSource) or self._source.is_at_hand:
            return self._source.read(most)
        if self._release_slot is None:
            self._release_slot = self._slot()
            self._before()
        while True:
            window, least = _limits()
            began = time.monotonic()
            try:
                data = self._source.read_within(most, window - self._waited)
            except TimeoutError:
                data = None
            self._waited += time.monotonic() - began
            self._received += len(data or b"")
            if self._waited >= window:
                if self._received < least:
                    raise self._refused(BodyTooSlowError())
                self._waited, self._received = 0.0, 0
            if data is not None:
                return data

    def _slot(self) -> Callable[[], None]:
        """Take a slot for a slow body. Return the function that releases it. Raises: `RefusedBodyError`."""
        actor, limits = current_actor(), settings.ENVIRONMENT
        if not is_person(actor):
            slot = _slots.take(actor, limits.anonymous_bodies)
            if slot is None:
                raise self._refused(TooManyBodiesError())
        else:
            slot = _slots.take(actor, limits.bodies_per_user)
            if slot is None:
                raise self._refused(too_many("slow bodies at once", 1.0))
        return slot

    def _refused(self, error: ApiError) -> RefusedBodyError:
        self.refusal = error
        return RefusedBodyError(error.description)


def _limits() -> tuple[float, float]:
    """Return a window in seconds, and how many bytes must arrive in it. Without credentials, the whole body must."""
    limits = settings.ENVIRONMENT
    if not is_person(current_actor()):
        return limits.anonymous_body_seconds, math.inf
    return limits.slow_client_seconds, limits.slow_client_seconds * limits.body_bytes_per_second
