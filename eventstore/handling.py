"""Handle commands: load a stream, fold it, decide, append. Retry if another writer was first."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any, Generic, ParamSpec, TypeVar
from uuid import UUID

from django.db import transaction

from eventstore.context import Metadata, begun_by, current_metadata
from eventstore.database import hold_append_lock
from eventstore.decider import Command, Decider, State
from eventstore.envelope import RecordedEvent
from eventstore.reading import load, load_tails
from eventstore.store import Append, ConcurrencyError, append

Params = ParamSpec("Params")
Result = TypeVar("Result")

#: How many attempts a command gets. The last one takes the append lock first.
ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Loaded(Generic[State]):
    """The state of a stream, and what is known of its newest event."""

    stream: str
    #: The version of the newest event; 0 if the stream has none.
    version: int
    state: State
    #: Its position, id and metadata; 0 and None if the stream has no event.
    position: int = 0
    event_id: UUID | None = None
    metadata: Metadata | None = None

    def leads_to(self, actor: str) -> Metadata:
        """Return the metadata for events that `actor` appends because of the newest event."""
        metadata = begun_by(actor) if self.metadata is None else replace(self.metadata, actor=actor)
        return metadata.because_of(self.event_id)

    def append(self, events: Sequence[object], metadata: Metadata | None = None) -> Append:
        """Return an append of these events that fails if the stream has grown since it was loaded."""
        return Append(self.stream, self.version, events, metadata or current_metadata())


def load_state(stream: str, decider: Decider[State, Any]) -> Loaded[State]:
    """Return the state of a stream. States are cached: only the events after the cached one are read."""
    cached = _cache.get(stream, decider)
    if cached is not None:
        loaded = _continued(cached, decider, load(stream, from_version=cached.version))
        if loaded is not None:
            return loaded
    return _folded(stream, decider, load(stream))


def load_states(streams: Iterable[str], decider: Decider[State, Any]) -> dict[str, Loaded[State]]:
    """Return the states of many streams by name. One query for 500 streams; cached states are used as in `load_state`.

    A second query reads the streams whose cached state came from a transaction that was rolled back.
    """
    known = {name: _cache.get(name, decider) for name in streams}
    tails = load_tails({name: 1 if each is None else each.version for name, each in known.items()})
    found = {
        name: _folded(name, decider, tails[name]) if each is None else _continued(each, decider, tails[name])
        for name, each in known.items()
    }
    whole = load_tails({name: 1 for name, loaded in found.items() if loaded is None})
    return {name: loaded or _folded(name, decider, whole[name]) for name, loaded in found.items()}


@dataclass(frozen=True, slots=True)
class _Cached(Generic[State]):
    """A state, and the last event that it was folded from."""

    stream: str
    version: int
    event_id: UUID
    state: State


def _continued(
    cached: _Cached[State], decider: Decider[State, Any], tail: Sequence[RecordedEvent]
) -> Loaded[State] | None:
    """Return the state after `tail`, whose first event must be the last one of the cached state.

    Return None if it is another event: the cached state came from a transaction that was rolled back.
    """
    if not tail or tail[0].event_id != cached.event_id:
        return None
    return _loaded(cached.stream, decider, tail, decider.fold(_events(tail[1:]), cached.state))


def _folded(stream: str, decider: Decider[State, Any], events: Sequence[RecordedEvent]) -> Loaded[State]:
    if not events:
        return Loaded(stream, 0, decider.initial)
    return _loaded(stream, decider, events, decider.fold(_events(events)))


def _loaded(stream: str, decider: Decider[State, Any], events: Sequence[RecordedEvent], state: State) -> Loaded[State]:
    last = events[-1]
    _cache.put(decider, _Cached(stream, last.version, last.event_id, state))
    return Loaded(stream, last.version, state, last.position, last.event_id, last.metadata)


@dataclass(slots=True)
class _Changes:
    """What was decided on one stream: `state` is the state after it. It is kept, so that each event is folded once."""

    loaded: Loaded[Any]
    state: Any
    decided: list[tuple[Sequence[object], Metadata]] = field(default_factory=list)


class Batch:
    """Commands for many streams. Each is decided on the state after the commands before it. All are appended together."""

    def __init__(self) -> None:
        self._changes: dict[str, _Changes] = {}

    def decide(
        self,
        loaded: Loaded[State],
        decider: Decider[State, Command],
        command: Command,
        metadata: Metadata | None = None,
    ) -> bool:
        """Decide a command and keep its events. Return True if there are any.

        `metadata` is for these events; None stands for that of the context. Raises what the decider raises.
        """
        changes = self._changes.setdefault(loaded.stream, _Changes(loaded, loaded.state))
        if events := decider.decide(changes.state, command):
            changes.decided.append((events, metadata or current_metadata()))
            changes.state = decider.fold(events, changes.state)
        return bool(events)

    def appends(self) -> list[Append]:
        """Return one append for each command with events, grouped by stream, in the order of each stream's first command."""
        found = []
        for changes in self._changes.values():
            version = changes.loaded.version
            for events, metadata in changes.decided:
                found.append(Append(changes.loaded.stream, version, events, metadata))
                version += len(events)
        return found


def transact(stream: str, decider: Decider[State, Command], command: Command) -> State:
    """Run a command: load, decide, append. Return the state of the stream after it.

    Raises what the decider raises; nothing is written then.
    """

    @retry_on_conflict
    def attempt() -> State:
        loaded = load_state(stream, decider)
        added = append(loaded.append(decider.decide(loaded.state, command)))
        return decider.fold(_events(added), loaded.state)

    return attempt()


def retry_on_conflict(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """Decorate a function that reads, decides and appends: on `ConcurrencyError` it is called again, 4 times in all.

    The function must have no other effect than its append. The last attempt takes the append lock at the start, so no
    other writer can be first.
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


def _events(envelopes: Sequence[RecordedEvent]) -> Iterable[object]:
    return (each.event for each in envelopes)


class _StateCache:
    """The states that were used last. Threads may share it: states are immutable."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[tuple[str, Decider[Any, Any]], _Cached[Any]] = OrderedDict()
        self._lock = Lock()

    def get(self, stream: str, decider: Decider[State, Any]) -> _Cached[State] | None:
        with self._lock:
            key = (stream, decider)
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, decider: Decider[State, Any], cached: _Cached[State]) -> None:
        with self._lock:
            self._entries[cached.stream, decider] = cached
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)


#: An entry takes about a kilobyte: 10 MB in all.
_cache = _StateCache(size=10_000)
