"""The append-only log: append with expected versions, load a stream, read in the order of commits.

Positions have no gaps and their order is the order of commits: on PostgreSQL an advisory lock is taken before they are
assigned and held to the end of the transaction (SQLite has one writer anyway). So whoever follows positions misses
nothing. The lock is the last thing a command takes: load and decide first, touch rows of other tables after.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from django.db import IntegrityError, connection, transaction

from eventstore import projections
from eventstore.context import current_metadata
from eventstore.follow import announce
from eventstore.models import StoredEvent
from eventstore.registry import decode, encode, name_of, stored_names_of

#: Any constant will do, as long as nothing else in the database uses it.
APPEND_LOCK = 0x6D6F6466
GENESIS_HASH = "0" * 64
_BATCH = 1000


class ConcurrencyError(Exception):
    """Another writer appended to one of the streams since it was loaded: load it again and decide anew."""


class BrokenLogError(Exception):
    """A row of the log is not what was appended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event as it stands in the log; `event` is the typed, upcast dataclass."""

    position: int
    stream: str
    version: int
    type: str
    event: Any
    metadata: dict[str, str]
    event_id: uuid.UUID
    recorded_at: datetime
    hash: str

    @property
    def actor(self) -> str:
        return self.metadata.get("actor", "")


@dataclass(frozen=True, slots=True)
class Append:
    """Events for one stream, whose last version must be `expected_version` (0: the stream must not exist)."""

    stream: str
    expected_version: int
    events: Sequence[object] = field(default_factory=tuple)


def append(*appends: Append) -> tuple[RecordedEvent, ...]:
    """Add events to one or many streams in one transaction, and project them. All or nothing.

    Raises: `ConcurrencyError`; nothing is written then, and an outer transaction may go on.
    """
    if not any(each.events for each in appends):
        return ()
    try:
        with transaction.atomic():
            recorded = _insert(appends)
            projections.project(recorded)
    except IntegrityError as error:
        if "version" in str(error):  # SQLite names the columns, PostgreSQL the constraint: both say "version"
            raise ConcurrencyError(", ".join(each.stream for each in appends[:3])) from error
        raise
    transaction.on_commit(lambda: announce(recorded[-1].position))
    return recorded


def _insert(appends: Iterable[Append]) -> tuple[RecordedEvent, ...]:
    position, last_hash, now = _lock_and_read_head()
    metadata = current_metadata()
    rows, recorded = [], []
    for each in appends:
        for version, event in enumerate(each.events, start=each.expected_version + 1):
            position += 1
            row = StoredEvent(
                position=position,
                stream=each.stream,
                version=version,
                type=name_of(type(event)),
                data=encode(event),
                metadata=metadata,
                event_id=uuid.uuid4(),
                recorded_at=now,
            )
            row.hash = last_hash = _hash(last_hash, row)
            rows.append(row)
            recorded.append(_recorded(row, event))
    StoredEvent.objects.bulk_create(rows, batch_size=_BATCH)
    return tuple(recorded)


def _lock_and_read_head() -> tuple[int, str, datetime]:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [APPEND_LOCK])
        now = database_now()
        cursor.execute("SELECT position, hash FROM eventstore_event ORDER BY position DESC LIMIT 1")
        head = cursor.fetchone()
    position, last_hash = head or (0, GENESIS_HASH)
    return position, last_hash, now


def database_now() -> datetime:
    """The database's clock, UTC."""
    postgresql = connection.vendor == "postgresql"
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()" if postgresql else "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')")
        (now,) = cursor.fetchone()
    if isinstance(now, str):
        return datetime.fromisoformat(now).replace(tzinfo=UTC)
    return now.astimezone(UTC)  # type: ignore[no-any-return]  # a cursor's values are untyped


def _hash(previous: str, row: StoredEvent) -> str:
    content = [
        row.position,
        row.stream,
        row.version,
        row.type,
        row.data,
        row.metadata,
        row.event_id.hex,
        row.recorded_at.astimezone(UTC).isoformat(timespec="microseconds"),
    ]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{previous}{canonical}".encode()).hexdigest()


def _recorded(row: StoredEvent, event: object) -> RecordedEvent:
    return RecordedEvent(
        position=row.position,
        stream=row.stream,
        version=row.version,
        type=row.type,
        event=event,
        metadata=row.metadata,
        event_id=row.event_id,
        recorded_at=row.recorded_at,
        hash=row.hash,
    )


def load(stream: str, *, from_version: int = 1) -> tuple[RecordedEvent, ...]:
    """The events of one stream in order, from `from_version` on."""
    rows = StoredEvent.objects.filter(stream=stream, version__gte=from_version).order_by("version")
    return tuple(_recorded(row, decode(row.type, row.data)) for row in rows)


def load_many(streams: Iterable[str]) -> dict[str, tuple[RecordedEvent, ...]]:
    """The events of many streams, an entry for each name asked for; a constant number of queries per 500 streams."""
    names = sorted(set(streams))
    found: dict[str, tuple[RecordedEvent, ...]] = dict.fromkeys(names, ())
    for start in range(0, len(names), 500):
        rows = StoredEvent.objects.filter(stream__in=names[start : start + 500]).order_by("stream", "version")
        for stream, group in groupby(rows, key=lambda row: row.stream):
            found[stream] = tuple(_recorded(row, decode(row.type, row.data)) for row in group)
    return found


def read_page(*, after: int, limit: int) -> list[RecordedEvent]:
    """The first `limit` events after a position."""
    rows = StoredEvent.objects.filter(position__gt=after).order_by("position")[:limit]
    return [_recorded(row, decode(row.type, row.data)) for row in rows]


def read(
    *, after: int = 0, up_to: int | None = None, event_classes: Iterable[type] | None = None
) -> Iterator[RecordedEvent]:
    """All events in the order of commits, after a position; of the given classes only, if any are given."""
    query = StoredEvent.objects.filter(position__gt=after).order_by("position")
    if up_to is not None:
        query = query.filter(position__lte=up_to)
    if event_classes is not None:
        query = query.filter(type__in=[name for each in event_classes for name in stored_names_of(each)])
    while rows := list(query[:_BATCH]):
        for row in rows:
            yield _recorded(row, decode(row.type, row.data))
        query = query.filter(position__gt=rows[-1].position)


def head() -> int:
    """Position of the newest event, 0 for an empty log."""
    return StoredEvent.objects.order_by("-position").values_list("position", flat=True).first() or 0


def verify() -> int:
    """Number of events, after checking each position and hash. Raises: `BrokenLogError` naming the first bad one."""
    position, last_hash = 0, GENESIS_HASH
    for row in StoredEvent.objects.order_by("position").iterator(chunk_size=_BATCH):
        position += 1
        if row.position != position:
            raise BrokenLogError(f"position {position} is missing")
        if row.hash != (last_hash := _hash(last_hash, row)):
            raise BrokenLogError(f"position {position} is not what was appended: its hash does not match")
    return position


def load_positions(positions: Sequence[int]) -> list[RecordedEvent]:
    """The events at these positions, in order."""
    rows = StoredEvent.objects.filter(position__in=positions).order_by("position")
    return [_recorded(row, decode(row.type, row.data)) for row in rows]
