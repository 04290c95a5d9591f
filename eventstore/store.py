"""Appending to the log, with expected versions and conditions.

Positions have no gaps, and their order is the order of the commits. On PostgreSQL an advisory lock is taken before
positions are given, and held to the end of the transaction; SQLite has one writer anyway. So a reader that continues
after a position misses no event. To keep the lock short, a command loads and decides first, then appends, and changes
rows of other tables last.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from uuid import UUID, uuid4

from django.db import IntegrityError, transaction

from eventstore import projections
from eventstore.clock import CLOCK_STREAM, JUMP_SECONDS, ClockSetBack
from eventstore.context import Metadata, current_metadata
from eventstore.database import database_now, hold_append_lock, insert, read_tip
from eventstore.envelope import RecordedEvent, Row, chained_hash, from_row, stored_metadata
from eventstore.observe import Appended, notify_observers
from eventstore.reading import last_version, newest_time
from eventstore.registry import encode, name_of, stored_names_of
from eventstore.waiting import announce


class ConcurrencyError(Exception):
    """Another writer appended to something that this decision has read. Read and decide again: see `retry_on_conflict`."""


@dataclass(frozen=True, slots=True)
class Append:
    """Events to append to one stream."""

    #: The stream's name, at most 300 characters.
    stream: str
    #: The version of the stream's last event that the decision has seen; 0 if the stream must not exist.
    expected_version: int
    events: Sequence[object] = field(default_factory=tuple)
    #: By default that of the context.
    metadata: Metadata = field(default_factory=current_metadata)
    #: The id that the last event will have, so that other events of the same append can name it as their cause.
    last_event_id: UUID = field(default_factory=uuid4)

    @property
    def leads_to(self) -> Metadata:
        """Return the metadata for events that the last of these events causes.

        Raises: `ValueError` without events, because a cause has to be in the log.
        """
        if not self.events:
            raise ValueError(f"nothing is appended to {self.stream} that could be a cause")
        return self.metadata.because_of(self.last_event_id)

    def with_metadata(self, metadata: Metadata) -> "Append":
        """Return the same append with other metadata."""
        return replace(self, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What a decision has read besides the streams that it appends to. The append fails if any of it has grown.

    Something has grown if an event was added after a position: to one of the streams, or of one of the types. Do not name
    a type that is appended all the time, because then the append fails all the time.
    """

    #: The position `head()` before the first read of the decision.
    after: int
    streams: Collection[str] = ()
    #: Event classes. Events under an old name of the class count too.
    event_types: Collection[type] = ()


def append(*appends: Append, unless: Sequence[Condition] = ()) -> tuple[RecordedEvent, ...]:
    """Append events to one or many streams and update the projections, in one transaction. Return the events.

    `unless` names what else the decision has read. Raises: `ConcurrencyError` if a stream does not have its expected
    version, or if something in `unless` has grown. Nothing is written then, and an outer transaction may continue.
    `ValueError` if two appends to one stream do not follow each other.
    """
    given = [each for each in appends if each.events]
    if not given:
        return ()
    expected = _expected_versions(given)
    began = time.perf_counter()
    with transaction.atomic():
        added = _insert(given, expected, unless)
        inserted = time.perf_counter()
        projections.project(added)
        projection_seconds = time.perf_counter() - inserted
        transaction.on_commit(partial(_committed, added, began, projection_seconds))
    return added


def follow_clock() -> bool:
    """If the database's clock was set back, record that, so that the times of events follow it again. Return True then.

    Raises: `ConcurrencyError` if another process has just recorded it.
    """
    version, newest, now = last_version(CLOCK_STREAM), newest_time(), database_now()
    seconds = 0.0 if newest is None else (newest - now).total_seconds()
    if seconds < JUMP_SECONDS:
        return False
    append(Append(CLOCK_STREAM, version, [ClockSetBack(seconds=seconds)]))
    return True


def _committed(added: Sequence[RecordedEvent], began: float, projection_seconds: float) -> None:
    position = added[-1].position
    announce(position)
    seconds = time.perf_counter() - began
    notify_observers(
        Appended(position=position, events=len(added), seconds=seconds, projection_seconds=projection_seconds)
    )


def _insert(
    appends: Sequence[Append], expected: Mapping[str, int], unless: Sequence[Condition]
) -> tuple[RecordedEvent, ...]:
    hold_append_lock()
    tip = read_tip(expected, _streams_read(unless), _types_read(unless))
    # Fewer versions than expected: decided on a version that was rolled back. The unique index would allow the gap.
    if tip.found < len(expected) or tip.has_grown:
        raise ConcurrencyError(_names(appends))
    position, last_hash = tip.position, tip.hash
    is_followed = any(isinstance(event, ClockSetBack) for each in appends for event in each.events)
    now = tip.now if is_followed else max(tip.now, tip.newest)
    column = max(now, tip.newest_column)
    rows, added = [], []
    for each in appends:
        text, newest = stored_metadata(each.metadata, now, column), each.expected_version + len(each.events)
        for version, event in enumerate(each.events, start=each.expected_version + 1):
            position += 1
            event_id = each.last_event_id if version == newest else uuid4()
            row = Row(position, each.stream, version, name_of(type(event)), encode(event), text, event_id, column)
            row = row._replace(hash=(last_hash := chained_hash(last_hash, row)))
            rows.append(row)
            added.append(from_row(row, event, each.metadata))
    try:
        insert(rows)
    except IntegrityError as error:
        # PostgreSQL names the constraint, SQLite the columns.
        if "one_event_per_version" in str(error) or "eventstore_event.version" in str(error):
            raise ConcurrencyError(_names(appends)) from error
        raise
    return tuple(added)


def _expected_versions(appends: Iterable[Append]) -> dict[str, int]:
    """Return the version that each stream must have. New streams (0) are left out: the unique index refuses a second one."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for each in appends:
        first.setdefault(each.stream, each.expected_version)
        if last.get(each.stream, each.expected_version) != each.expected_version:
            raise ValueError(f"two appends to {each.stream} that do not follow each other")
        last[each.stream] = each.expected_version + len(each.events)
    return {stream: version for stream, version in first.items() if version}


def _streams_read(conditions: Iterable[Condition]) -> list[tuple[str, int]]:
    return [(stream, each.after) for each in conditions for stream in each.streams]


def _types_read(conditions: Iterable[Condition]) -> list[tuple[str, int]]:
    return [
        (name, each.after)
        for each in conditions
        for event_class in each.event_types
        for name in stored_names_of(event_class)
    ]


def _names(appends: Sequence[Append]) -> str:
    more = f" and {len(appends) - 3} more" if len(appends) > 3 else ""
    return ", ".join(each.stream for each in appends[:3]) + more
