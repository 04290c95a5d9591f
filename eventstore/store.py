"""The append-only log: append with expected versions, load a stream, read in the order of commits.

Positions have no gaps and their order is the order of commits: on PostgreSQL an advisory lock is taken before they are
assigned and held to the end of the transaction (SQLite has one writer anyway). So whoever follows positions misses
nothing. The lock is the last thing a command takes: load and decide first, touch rows of other tables after.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from uuid import UUID, uuid4

from django.db import IntegrityError, transaction

from eventstore import projections
from eventstore.context import Metadata, current_metadata
from eventstore.database import database_now, hold_append_lock, insert, read_tip
from eventstore.envelope import RecordedEvent, Row, chained_hash, recorded
from eventstore.observe import Appended, tell_observers
from eventstore.reading import (
    BrokenLogError,
    all_events,
    by_actor,
    head,
    load,
    load_many,
    load_positions,
    load_tails,
    newest_event,
    newest_of,
    of_request,
    position_at,
    read,
    read_rows,
    verify,
)
from eventstore.registry import encode, name_of, stored_names_of
from eventstore.subscription import announce

__all__ = [
    "Append",
    "BrokenLogError",
    "ConcurrencyError",
    "Condition",
    "RecordedEvent",
    "all_events",
    "append",
    "by_actor",
    "database_now",
    "head",
    "load",
    "load_many",
    "load_positions",
    "load_tails",
    "newest_event",
    "newest_of",
    "of_request",
    "position_at",
    "read",
    "read_rows",
    "verify",
]


class ConcurrencyError(Exception):
    """Another writer appended to something that this decision has read: read it again and decide anew."""


@dataclass(frozen=True, slots=True)
class Append:
    """Events for one stream, whose last version must be `expected_version` (0: the stream must not exist).

    `metadata` is theirs: the context's, unless it is given. `last_event_id` is known before they are appended: what they
    lead to in the same append names it.
    """

    stream: str
    expected_version: int
    events: Sequence[object] = field(default_factory=tuple)
    metadata: Metadata = field(default_factory=current_metadata)
    last_event_id: UUID = field(default_factory=uuid4)

    @property
    def leads_to(self) -> Metadata:
        """Of what follows from its last event, by the same actor and for the same request.

        Raises: `ValueError` without events: a cause has to be in the log.
        """
        if not self.events:
            raise ValueError(f"nothing is appended to {self.stream} that could lead to anything")
        return self.metadata.because_of(self.last_event_id)

    def with_metadata(self, metadata: Metadata) -> "Append":
        """The same, come about in another way."""
        return replace(self, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What a decision has read beside the streams that it appends to. It holds while none of `streams` and no event of
    `event_types`, under any of their stored names, has been added after the position `after`.

    Take `after` with `head()` before the first row is read: rows are as new as that position at least. Never name a type
    that reports append: those are added all the time.
    """

    after: int
    streams: Collection[str] = ()
    event_types: Collection[type] = ()


def append(*appends: Append, unless: Sequence[Condition] = ()) -> tuple[RecordedEvent, ...]:
    """Add events to one or many streams in one transaction, and project them. All or nothing.

    `unless`: conditions that do not hold any more refuse it, as a version does that is not the expected one.
    Raises: `ConcurrencyError`; nothing is written then, and an outer transaction may go on.
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


def _committed(added: Sequence[RecordedEvent], began: float, projection_seconds: float) -> None:
    position = added[-1].position
    announce(position)
    seconds = time.perf_counter() - began
    tell_observers(
        Appended(position=position, events=len(added), seconds=seconds, projection_seconds=projection_seconds)
    )


def _insert(
    appends: Sequence[Append], expected: Mapping[str, int], unless: Sequence[Condition]
) -> tuple[RecordedEvent, ...]:
    hold_append_lock()
    tip = read_tip(expected, _streams_read(unless), _types_read(unless))
    # Fewer were found: decided on a version that was rolled back. The unique index would let a gap in.
    if tip.found < len(expected) or tip.has_grown:
        raise ConcurrencyError(_names(appends))
    position, last_hash = tip.position, tip.hash
    rows, added = [], []
    for each in appends:
        text, last_version = encode(each.metadata), each.expected_version + len(each.events)
        for version, event in enumerate(each.events, start=each.expected_version + 1):
            position += 1
            event_id = each.last_event_id if version == last_version else uuid4()
            row = Row(position, each.stream, version, name_of(type(event)), encode(event), text, event_id, tip.now)
            row = row._replace(hash=(last_hash := chained_hash(last_hash, row)))
            rows.append(row)
            added.append(recorded(row, event, each.metadata))
    try:
        insert(rows)
    except IntegrityError as error:
        # PostgreSQL names the constraint, SQLite the columns.
        if "one_event_per_version" in str(error) or "eventstore_event.version" in str(error):
            raise ConcurrencyError(_names(appends)) from error
        raise
    return tuple(added)


def _expected_versions(appends: Iterable[Append]) -> dict[str, int]:
    """The version that must stand in the log already, for each stream that is continued."""
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
