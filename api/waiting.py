"""Limits the requests that wait for a change, in total and per user: each blocks a thread."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.conf import settings

from api.rate_limits import too_many
from api.slots import Slots
from eventstore import current_actor

_slots = Slots()
_ALL = object()


def take_place() -> Callable[[], None]:
    """Take a place. Return the function that releases it, to be called once. Raises: `TooManyRequestsError`."""
    limits = settings.ENVIRONMENT
    for_user = _slots.take(current_actor(), limits.waiting_requests_per_user)
    if for_user is None:
        raise too_many("requests that wait", 1.0)
    for_all = _slots.take(_ALL, limits.waiting_requests)
    if for_all is None:
        for_user()
        raise too_many("requests that wait", 1.0)

    def give_back() -> None:
        for_user()
        for_all()

    return give_back


@contextmanager
def waiting() -> Iterator[None]:
    """Have a place in the block. Raises: `TooManyRequestsError`."""
    give_back = take_place()
    try:
        yield
    finally:
        give_back()


class WaitingStream:
    """An answer that is streamed while things happen. It has a place until it is closed."""

    def __init__(self, parts: Iterator[str]) -> None:
        self._parts = parts
        self._give_back: Callable[[], None] | None = take_place()

    def __iter__(self) -> Iterator[str]:
        return self._parts

    def close(self) -> None:
        if self._give_back is not None:
            self._give_back()
            self._give_back = None
