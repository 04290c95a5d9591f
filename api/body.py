"""The body of a request as a stream that is bounded, and that a slow client cannot hold a thread with.

Nearly every body is whole before its thread starts (`api.front`). For what comes later there are few threads and little
time while nobody knows who sends it, and a least rate once the credentials are verified.
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

#: What a multipart body may be longer than the largest file that it may carry, bytes.
ENVELOPE_BYTES = 100_000
_slots = Slots()


class Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


@runtime_checkable
class TimedSource(Source, Protocol):
    """One that says whether a read waits, and does not wait for ever."""

    @property
    def is_at_hand(self) -> bool: ...

    def read_within(self, size: int, seconds: float, /) -> bytes: ...


class RefusedBodyError(OSError):
    """The rest of the body is not read; `BodyStream.refusal` says why. Django takes it for a client that has gone."""


class BodyStream(io.IOBase):
    """At most `length` bytes of `source`. `before` is called once, before the first byte is waited for."""

    def __init__(self, source: Source, length: int, *, before: Callable[[], None] = lambda: None) -> None:
        self._before = before
        self._source = source
        self._left = length
        #: Time waited and bytes read in the present window of the rate.
        self._waited = 0.0
        self._came = 0
        self._give_back: Callable[[], None] | None = None
        #: Why the body was not read to its end: the answer, whatever the view makes of the error.
        self.refusal: ApiError | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises: `RefusedBodyError`."""
        wanted = self._left if size is None or size < 0 else min(size, self._left)
        if not wanted:
            return b""
        data = self._read(wanted)
        self._left = self._left - len(data) if data else 0
        return data

    def release(self) -> None:
        """Nothing is read any more."""
        if self._give_back is not None:
            self._give_back()
            self._give_back = None

    def _read(self, wanted: int) -> bytes:
        if not isinstance(self._source, TimedSource) or self._source.is_at_hand:
            return self._source.read(wanted)
        if self._give_back is None:
            self._give_back = self._slot()
            self._before()
        while True:
            window, least = _limits()
            began = time.monotonic()
            try:
                data = self._source.read_within(wanted, window - self._waited)
            except TimeoutError:
                data = None
            self._waited += time.monotonic() - began
            self._came += len(data or b"")
            if self._waited >= window:
                if self._came < least:
                    raise self._refused(BodyTooSlowError())
                self._waited, self._came = 0.0, 0
            if data is not None:
                return data

    def _slot(self) -> Callable[[], None]:
        """What gives it back. Raises: `RefusedBodyError`."""
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
    """A window, seconds, and how many bytes have to come in it. Without credentials the whole body has to."""
    limits = settings.ENVIRONMENT
    if not is_person(current_actor()):
        return limits.anonymous_body_seconds, math.inf
    return limits.slow_client_seconds, limits.slow_client_seconds * limits.body_bytes_per_second
