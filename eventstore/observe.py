"""Hooks that are called after each committed append. Needs no Django."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """A committed append, and how long it took."""

    #: The position of its last event.
    position: int
    #: How many events it added.
    events: int
    #: From the start of the append to the commit, with the wait for the lock, in seconds.
    seconds: float
    #: The part of `seconds` that the projections took.
    projection_seconds: float


Observer = Callable[[Appended], None]

_observers: list[Observer] = []


def observe_appends(observer: Observer) -> None:
    """Call `observer` after each commit, in the thread that appended. It must be quick and must not raise."""
    _observers.append(observer)


def notify_observers(appended: Appended) -> None:
    """Call all observers."""
    for observer in _observers:
        observer(appended)
