"""Running a decider against its stream: load, fold, decide, append; again if another writer was first."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Generic, ParamSpec, TypeVar
from uuid import UUID

from django.db import transaction

from eventstore.context import Metadata, begun_by, current_metadata
from eventstore.database import hold_append_lock
from eventstore.decider import Command, Decider, State
from eventstore.store import Append, ConcurrencyError, RecordedEvent, append, load, load_tails

Params = ParamSpec("Params")
Result = TypeVar("Result")

#: How often a command is decided before the lock is taken first.
ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Loaded(Generic[State]):
    """The state of a stream and the version it was folded up to. Its newest event is at `position`, and has this id and
    `metadata`; 0 and None if there is none."""

    stream: str
    version: int
    state: State
    position: int = 0
    event_id: UUID | None = None
    metadata: Metadata | None = None

    def leads_to(self, actor: str) -> Metadata:
        """Metadata of what `actor` does because of the newest event."""
        metadata = begun_by(actor) if self.metadata is None else replace(self.metadata, actor=actor)
        return metadata.because_of(self.event_id)

    def append(self, events: Sequence[object], metadata: Metadata | None = None) -> Append:
        """What to append so that it only succeeds if nothing came in between."""
        return Append(self.stream, self.version, events, metadata or current_metadata())


def load_state(stream: str, decider: Decider[State, Any]) -> Loaded[State]:
    """The stream's state. States are remembered, and only the tail of a stream is read."""
    remembered = _cache.get(stream, decider)
    if remembered is not None:
        loaded = _continued(remembered, decider, load(stream, from_version=remembered.version))
        if loaded is not None:
            return loaded
    return _folded(stream, decider, load(stream))


def load_states(streams: Iterable[str], decider: Decider[State, Any]) -> dict[str, Loaded[State]]:
    """The states of many streams, in one query per 500 of them. Only tails are read of those remembered; a second query
    reads the whole of those whose memory came from a transaction that was rolled back."""
    known = {name: _cache.get(name, decider) for name in streams}
    tails = load_tails({name: 1 if each is None else each.version for name, each in known.items()})
    found = {
        name: _folded(name, decider, tails[name]) if each is None else _continued(each, decider, tails[name])
        for name, each in known.items()
    }
    unlike = load_tails({name: 1 for name, loaded in found.items() if loaded is None})
    return {name: loaded or _folded(name, decider, unlike[name]) for name, loaded in found.items()}


@dataclass(frozen=True, slots=True)
class _Remembered(Generic[State]):
    """A state, and the event that it was folded up to."""

    stream: str
    version: int
    event_id: UUID
    state: State


def _continued(
    remembered: _Remembered[State], decider: Decider[State, Any], tail: Sequence[RecordedEvent]
) -> Loaded[State] | None:
    """The state after `tail`, whose first event must be the remembered one.

    None if it is not: what was remembered came from a transaction that was rolled back.
    """
    if not tail or tail[0].event_id != remembered.event_id:
        return None
    return _loaded(remembered.stream, decider, tail, decider.fold(_events(tail[1:]), remembered.state))


def _folded(stream: str, decider: Decider[State, Any], events: Sequence[RecordedEvent]) -> Loaded[State]:
    if not events:
        return Loaded(stream, 0, decider.initial)
    return _loaded(stream, decider, events, decider.fold(_events(events)))


def _loaded(stream: str, decider: Decider[State, Any], events: Sequence[RecordedEvent], state: State) -> Loaded[State]:
    last = events[-1]
    _cache.put(decider, _Remembered(stream, last.version, last.event_id, state))
    return Loaded(stream, last.version, state, last.position, last.event_id, last.metadata)


class Batch:
    """Commands for many streams: each decided on the state that those before it have led to, all appended together."""

    def __init__(self) -> None:
        self._changes: dict[str, tuple[Loaded[Any], list[tuple[Sequence[object], Metadata]]]] = {}

    def decide(
        self,
        loaded: Loaded[State],
        decider: Decider[State, Command],
        command: Command,
        metadata: Metadata | None = None,
    ) -> bool:
        """Return True if there are events. `metadata` is theirs, None for the context's. Raises what `decide` raises."""
        _, decided = self._changes.setdefault(loaded.stream, (loaded, []))
        state = decider.fold((event for events, _ in decided for event in events), loaded.state)
        if events := decider.decide(state, command):
            decided.append((events, metadata or current_metadata()))
        return bool(events)

    def appends(self) -> list[Append]:
        """What to append, in the order in which the streams came up; one for each command that led to events."""
        found = []
        for loaded, decided in self._changes.values():
            version = loaded.version
            for events, metadata in decided:
                found.append(Append(loaded.stream, version, events, metadata))
                version += len(events)
        return found


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
        self._entries: OrderedDict[tuple[str, Decider[Any, Any]], _Remembered[Any]] = OrderedDict()
        self._lock = Lock()

    def get(self, stream: str, decider: Decider[State, Any]) -> _Remembered[State] | None:
        with self._lock:
            key = (stream, decider)
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, decider: Decider[State, Any], remembered: _Remembered[State]) -> None:
        with self._lock:
            self._entries[remembered.stream, decider] = remembered
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)


#: A fleet of some thousand nodes; an entry takes about a kilobyte.
_cache = _StateCache(size=10_000)
