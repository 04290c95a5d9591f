"""Running a decider against its stream: load, fold, decide, append; again if another writer was first."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic, ParamSpec, TypeVar

from django.db import transaction

from eventstore.database import hold_append_lock
from eventstore.decider import Command, Decider, State
from eventstore.store import Append, ConcurrencyError, RecordedEvent, append, load, load_many

Params = ParamSpec("Params")
Result = TypeVar("Result")

#: How often a command is decided before the lock is taken first.
ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Loaded(Generic[State]):
    """The state of a stream and the version it was folded up to."""

    stream: str
    version: int
    state: State

    def append(self, events: Sequence[object]) -> Append:
        """What to append so that it only succeeds if nothing came in between."""
        return Append(self.stream, self.version, events)


def load_state(stream: str, decider: Decider[State, Any]) -> Loaded[State]:
    """The stream's state; states of long streams are remembered, and only the tail is read."""
    cached = _cache.get(stream, decider)
    if cached is None:
        events = load(stream)
        state = decider.fold(_events(events))
    else:
        event_id, version, remembered = cached
        events = load(stream, from_version=version)
        if events and events[0].event_id == event_id:
            state = decider.fold(_events(events[1:]), remembered)
        else:  # what was remembered came from a transaction that was rolled back
            events = load(stream)
            state = decider.fold(_events(events))
    if not events:
        return Loaded(stream, 0, decider.initial)
    _cache.put(stream, decider, (events[-1].event_id, events[-1].version, state))
    return Loaded(stream, events[-1].version, state)


def load_states(streams: Sequence[str], decider: Decider[State, Any]) -> dict[str, Loaded[State]]:
    """The states of many streams in a constant number of queries per 500 of them."""
    return {
        stream: Loaded(stream, events[-1].version if events else 0, decider.fold(_events(events)))
        for stream, events in load_many(streams).items()
    }


class Batch:
    """Commands for many streams: each decided on the state that those before it have led to, all appended together."""

    def __init__(self) -> None:
        self._changes: dict[str, tuple[Loaded[Any], list[object]]] = {}

    def decide(self, loaded: Loaded[State], decider: Decider[State, Command], command: Command) -> None:
        """Raises what `decide` raises."""
        _, events = self._changes.setdefault(loaded.stream, (loaded, []))
        events.extend(decider.decide(decider.fold(events, loaded.state), command))

    def appends(self) -> list[Append]:
        """What to append, in the order in which the streams came up; nothing for a stream without events."""
        return [loaded.append(events) for loaded, events in self._changes.values() if events]


def transact(stream: str, decider: Decider[State, Command], command: Command) -> State:
    """The stream's state after `command`. Raises what `decide` raises; nothing is written then."""

    @retry_on_conflict
    def attempt() -> State:
        loaded = load_state(stream, decider)
        recorded = append(loaded.append(decider.decide(loaded.state, command)))
        return decider.fold(_events(recorded), loaded.state)

    return attempt()


def retry_on_conflict(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """Call `function` again, from its loading on, when another writer was first. It must have no other effect.

    The last attempt holds the lock from its loading on: however many write to one stream, each comes through.
    """

    def retrying(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        for _ in range(ATTEMPTS - 1):
            try:
                return function(*args, **kwargs)
            except ConcurrencyError:
                continue
        with transaction.atomic():
            hold_append_lock()
            return function(*args, **kwargs)

    return retrying


def _events(recorded: Sequence[RecordedEvent]) -> Iterable[object]:
    return (each.event for each in recorded)


class _StateCache:
    """The newest states, least recently used ones dropped. Safe with threads: states are immutable."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[tuple[str, Decider[Any, Any]], Any] = OrderedDict()
        self._lock = Lock()

    def get(self, stream: str, decider: Decider[Any, Any]) -> Any:
        with self._lock:
            key = (stream, decider)
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, stream: str, decider: Decider[Any, Any], entry: Any) -> None:
        with self._lock:
            self._entries[stream, decider] = entry
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)


_cache = _StateCache(size=256)
