"""Who is told what an append cost: measured here, counted by whoever wants to. Knows no Django."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """An append that is committed. `seconds` from the wait for the lock to the commit; those of the projections are part
    of it."""

    position: int
    events: int
    seconds: float
    projection_seconds: float


Observer = Callable[[Appended], None]

_observers: list[Observer] = []


def observe_appends(observer: Observer) -> None:
    """`observer` is called after each commit, in the thread that appended. It must be quick, and never raise."""
    _observers.append(observer)


def tell_observers(appended: Appended) -> None:
    for observer in _observers:
        observer(appended)
