"""Reading the log: one stream, many, or all events in the order of commits."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import QuerySet, TextField
from django.db.models.functions import Cast
from msgspec import json

from eventstore.database import utc
from eventstore.models import StoredEvent
from eventstore.recorded import GENESIS_HASH, RecordedEvent, Row, chained_hash, recorded
from eventstore.registry import stored_names_of

_BATCH = 1000
_STREAMS_PER_QUERY = 500
# As text, for every command reads a stream and most are short: building the query took longer than running it.
_STREAM = """
    SELECT position, stream, version, type, data,
        CAST(metadata AS text), CAST(event_id AS text), CAST(recorded_at AS text), hash
    FROM eventstore_event WHERE stream = %s AND version >= %s ORDER BY version"""
# Positions have no gaps, and times never go back: a moment is found by halving, without an index of its own.
_POSITION_AT = """
    WITH RECURSIVE bisect(low, high) AS (
        SELECT CAST(0 AS bigint), coalesce(max(position), 0) + 1 FROM eventstore_event
        UNION ALL
        SELECT
            CASE WHEN recorded_at <= %s THEN position ELSE low END,
            CASE WHEN recorded_at <= %s THEN high ELSE position END
        FROM bisect JOIN eventstore_event ON position = (low + high) / 2 WHERE high - low > 1
    ) SELECT max(low) FROM bisect"""


class BrokenLogError(Exception):
    """A row of the log is not what was appended."""


def load(stream: str, *, from_version: int = 1) -> tuple[RecordedEvent, ...]:
    """The events of one stream in order, from `from_version` on."""
    with connection.cursor() as cursor:
        cursor.execute(_STREAM, [stream, from_version])
        return tuple(recorded(_row(columns)) for columns in cursor.fetchall())


def load_many(
    streams: Iterable[str], *, from_position: int = 1, up_to: int | None = None
) -> dict[str, tuple[RecordedEvent, ...]]:
    """The events of many streams from a position of the log on, up to another; an entry for each name asked for.

    One query per 500 streams.
    """
    names = sorted(set(streams))
    found: dict[str, tuple[RecordedEvent, ...]] = dict.fromkeys(names, ())
    for start in range(0, len(names), _STREAMS_PER_QUERY):
        query = StoredEvent.objects.filter(
            stream__in=names[start : start + _STREAMS_PER_QUERY], position__gte=from_position
        )
        if up_to is not None:
            query = query.filter(position__lte=up_to)
        for stream, rows in groupby(_rows(query.order_by("stream", "version")), key=lambda row: row.stream):
            found[stream] = tuple(recorded(row) for row in rows)
    return found


def read(
    *, after: int = 0, up_to: int | None = None, event_classes: Iterable[type] | None = None
) -> Iterator[RecordedEvent]:
    """All events in the order of commits, after a position; of the given classes only, if any are given."""
    query = StoredEvent.objects.all()
    if up_to is not None:
        query = query.filter(position__lte=up_to)
    if event_classes is not None:
        query = query.filter(type__in=[name for each in event_classes for name in stored_names_of(each)])
    yield from map(recorded, _in_batches(query, after=after))


def read_page(*, after: int, limit: int) -> list[RecordedEvent]:
    """The first `limit` events after a position."""
    return [recorded(row) for row in _rows(StoredEvent.objects.filter(position__gt=after).order_by("position")[:limit])]


def newest_of(stream: str, *, limit: int) -> list[RecordedEvent]:
    """The last events of a stream, the newest first."""
    return [recorded(row) for row in _rows(StoredEvent.objects.filter(stream=stream).order_by("-version")[:limit])]


def load_positions(positions: Sequence[int] | QuerySet[Any, Any]) -> list[RecordedEvent]:
    """The events at these positions, in order; one query for any number of them that a query names."""
    return [recorded(row) for row in _rows(StoredEvent.objects.filter(position__in=positions).order_by("position"))]


def head() -> int:
    """Position of the newest event, 0 for an empty log. Asked fifty times a second while anyone waits on SQLite."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT max(position) FROM eventstore_event")
        (position,) = cursor.fetchone()
    return position or 0


def position_at(moment: datetime) -> int:
    """Position of the newest event that was recorded at or before `moment`, 0 if there is none. One query."""
    asked = connection.ops.adapt_datetimefield_value(moment)
    with connection.cursor() as cursor:
        cursor.execute(_POSITION_AT, [asked, asked])
        (position,) = cursor.fetchone()
    return int(position)


def verify() -> int:
    """Number of events, after checking each position and hash. Raises: `BrokenLogError` naming the first bad one.

    Events cut off at the end leave a shorter log that is whole: only a copy of the newest hash kept elsewhere tells.
    """
    position, last_hash = 0, GENESIS_HASH
    for row in _in_batches(StoredEvent.objects.all(), after=0):
        position += 1
        if row.position != position:
            raise BrokenLogError(f"position {position} is missing")
        if row.hash != (last_hash := chained_hash(last_hash, row)):
            raise BrokenLogError(f"position {position} is not what was appended: its hash does not match")
    return position


def _in_batches(query: QuerySet[StoredEvent], *, after: int) -> Iterator[Row]:
    """In the order of positions, by many short queries: no transaction is held open while a long log is read."""
    ordered = query.order_by("position")
    while batch := list(_rows(ordered.filter(position__gt=after)[:_BATCH])):
        yield from batch
        after = batch[-1].position


def _rows(query: QuerySet[StoredEvent]) -> Iterator[Row]:
    """Three columns are read as text and converted here: Django's own converters take most of a replay's time."""
    as_text = (Cast(each, TextField()) for each in ("metadata", "event_id", "recorded_at"))
    columns = query.values_list(*Row._fields[:5], *as_text, "hash")
    yield from map(_row, columns)


def _row(columns: Sequence[Any]) -> Row:
    position, stream, version, name, data, metadata, event_id, recorded_at, digest = columns
    return Row(position, stream, version, name, data, json.decode(metadata), UUID(event_id), utc(recorded_at), digest)
