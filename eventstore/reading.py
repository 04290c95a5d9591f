"""Reading the log: one stream, many streams, or all events in the order of the commits."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Q, QuerySet, TextField
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast

from eventstore.actors import person
from eventstore.database import read_tails, utc
from eventstore.envelope import RecordedEvent, Row, from_row, time_of
from eventstore.models import StoredEvent
from eventstore.registry import stored_names_of

STREAMS_PER_QUERY = 500
_BATCH = 1000
# As text: every command reads a stream, most are short, and building the query took longer than running it.
_STREAM = """
    SELECT position, stream, version, type, data, metadata,
        CAST(event_id AS text), CAST(recorded_at AS text), hash, format
    FROM eventstore_event WHERE stream = %s AND version >= %s ORDER BY version"""
# Positions have no gaps and times never go back, so bisection finds a time without an index.
_POSITION_AT = """
    WITH RECURSIVE bisect(low, high) AS (
        SELECT CAST(0 AS bigint), coalesce(max(position), 0) + 1 FROM eventstore_event
        UNION ALL
        SELECT
            CASE WHEN recorded_at <= %s THEN position ELSE low END,
            CASE WHEN recorded_at <= %s THEN high ELSE position END
        FROM bisect JOIN eventstore_event ON position = (low + high) / 2 WHERE high - low > 1
    ) SELECT max(low) FROM bisect"""


#: The request of an event. The index `events_by_request` has the same expression.
REQUEST = {
    "postgresql": "coalesce(metadata::jsonb ->> 'correlation_id', metadata::jsonb ->> 'request_id')",
    "sqlite": "coalesce(json_extract(metadata, '$.correlation_id'), json_extract(metadata, '$.request_id'))",
}
_ACTOR = {"postgresql": "(metadata::jsonb ->> 'actor')", "sqlite": "json_extract(metadata, '$.actor')"}


def load(stream: str, *, from_version: int = 1) -> tuple[RecordedEvent, ...]:
    """Return the events of a stream in order, from a version on. Empty if there is no such stream. One query."""
    with connection.cursor() as cursor:
        cursor.execute(_STREAM, [stream, from_version])
        return tuple(from_row(_row(columns)) for columns in cursor.fetchall())


def load_many(streams: Iterable[str], *, up_to: int | None = None) -> dict[str, tuple[RecordedEvent, ...]]:
    """Return the events of each stream in order, optionally up to a position. One query for 500 streams.

    Each stream has an entry, an empty one if it has no events.
    """
    names = sorted(set(streams))
    found: dict[str, tuple[RecordedEvent, ...]] = dict.fromkeys(names, ())
    for start in range(0, len(names), STREAMS_PER_QUERY):
        query = StoredEvent.objects.filter(stream__in=names[start : start + STREAMS_PER_QUERY])
        if up_to is not None:
            query = query.filter(position__lte=up_to)
        for stream, rows in groupby(_rows(query.order_by("stream", "version")), key=lambda row: row.stream):
            found[stream] = tuple(from_row(row) for row in rows)
    return found


def load_tails(versions: Mapping[str, int]) -> dict[str, tuple[RecordedEvent, ...]]:
    """Return the events of each stream from its own version on. One query for 500 streams. Each stream has an entry."""
    asked = sorted(versions.items())
    found: dict[str, tuple[RecordedEvent, ...]] = dict.fromkeys(versions, ())
    for start in range(0, len(asked), STREAMS_PER_QUERY):
        rows = map(_row, read_tails(asked[start : start + STREAMS_PER_QUERY]))
        found |= {stream: tuple(map(from_row, tail)) for stream, tail in groupby(rows, key=lambda row: row.stream)}
    return found


def last_version(stream: str) -> int:
    """Return the version of the last event of a stream, 0 if it has none."""
    versions = StoredEvent.objects.filter(stream=stream).order_by("-version").values_list("version", flat=True)
    return versions.first() or 0


def read(
    *, after: int = 0, up_to: int | None = None, event_classes: Iterable[type] | None = None
) -> Iterator[RecordedEvent]:
    """Yield the events after a position in the order of the commits, optionally of these classes only.

    They are read 1,000 at a time, without a transaction. Raises: `UnknownEventTypeError` at an event of unknown type.
    """
    query = StoredEvent.objects.all()
    if up_to is not None:
        query = query.filter(position__lte=up_to)
    if event_classes is not None:
        query = _of_classes(query, event_classes)
    yield from map(from_row, _in_batches(query, after=after))


def all_events() -> QuerySet[Any]:
    """Return a query of all rows of the log, to be filtered and passed to `read_rows`."""
    return StoredEvent.objects.all()


def of_request(rows: QuerySet[Any], correlation_id: str) -> QuerySet[Any]:
    """Filter the rows by request. Uses an index."""
    request = RawSQL(REQUEST[connection.vendor], ())  # noqa: S611  # a constant
    found: QuerySet[Any] = rows.alias(of_request=request).filter(of_request=correlation_id)
    return found


def by_actor(rows: QuerySet[Any], actor: str) -> QuerySet[Any]:
    """Filter the rows by actor, given in the short form of `shown`. Reads all rows: there is no index.

    Older rows have no kind. They are found by the name alone.
    """
    stored = actor if ":" in actor else person(actor)
    by: Q = Q(of_actor=stored) | Q(of_actor=actor.rpartition(":")[2])
    found: QuerySet[Any] = rows.alias(of_actor=RawSQL(_ACTOR[connection.vendor], ())).filter(by)  # noqa: S611  # a constant
    return found


def newest_event(event_ids: Collection[UUID]) -> UUID | None:
    """Return which of these events was recorded last; None if none of them was."""
    found = StoredEvent.objects.filter(event_id__in=event_ids).order_by("-position")
    return found.values_list("event_id", flat=True).first()


def newest_of(stream: str, *, limit: int) -> list[RecordedEvent]:
    """Return the last events of a stream, at most `limit`, the newest first."""
    return [from_row(row) for row in _rows(StoredEvent.objects.filter(stream=stream).order_by("-version")[:limit])]


def read_rows(query: QuerySet[Any]) -> list[RecordedEvent]:
    """Return the events of a query of rows, in its order. Raises: `UnknownEventTypeError`."""
    return [from_row(row) for row in _rows(query)]


def load_positions(
    positions: Sequence[int] | QuerySet[Any, Any], *, event_classes: Iterable[type] | None = None
) -> list[RecordedEvent]:
    """Return the events at these positions in order, optionally of these classes only. One query.

    `positions` may be a query with one column.
    """
    query = StoredEvent.objects.filter(position__in=positions)
    if event_classes is not None:
        query = _of_classes(query, event_classes)
    return [from_row(row) for row in _rows(query.order_by("position"))]


def head() -> int:
    """Return the position of the newest event, 0 for an empty log."""
    # As text: on SQLite this is asked 50 times a second while a thread waits for the log to grow.
    with connection.cursor() as cursor:
        cursor.execute("SELECT max(position) FROM eventstore_event")
        (position,) = cursor.fetchone()
    return position or 0


def newest_time() -> datetime | None:
    """Return when the newest event was recorded, None for an empty log."""
    row = StoredEvent.objects.order_by("-position").values_list("metadata", "recorded_at").first()
    return None if row is None else time_of(*row)


def position_at(moment: datetime) -> int:
    """Return the position of the newest event that was recorded at or before a time, 0 if there is none. One query."""
    asked = connection.ops.adapt_datetimefield_value(moment)
    with connection.cursor() as cursor:
        cursor.execute(_POSITION_AT, [asked, asked])
        (position,) = cursor.fetchone()
    return int(position)


def read_stored_rows(*, after: int = 0, up_to: int | None = None) -> Iterator[Row]:
    """Yield the rows after a position as they are stored, in the order of positions."""
    query = StoredEvent.objects.all()
    yield from _in_batches(query if up_to is None else query.filter(position__lte=up_to), after=after)


def _of_classes(query: QuerySet[StoredEvent], event_classes: Iterable[type]) -> QuerySet[StoredEvent]:
    return query.filter(type__in=[name for each in event_classes for name in stored_names_of(each)])


def _in_batches(query: QuerySet[StoredEvent], *, after: int) -> Iterator[Row]:
    """Yield the rows in the order of positions. Many short queries, so that a long log keeps no transaction open."""
    ordered = query.order_by("position")
    while batch := list(_rows(ordered.filter(position__gt=after)[:_BATCH])):
        yield from batch
        after = batch[-1].position


def _rows(query: QuerySet[StoredEvent]) -> Iterator[Row]:
    """Yield the rows of a query. Two columns come as text, because Django's converters take most of a replay's time."""
    as_text = (Cast(each, TextField()) for each in ("event_id", "recorded_at"))
    columns = query.values_list(*Row._fields[:6], *as_text, "hash", "format")
    yield from map(_row, columns)


def _row(columns: Sequence[Any]) -> Row:
    position, stream, version, name, data, metadata, event_id, recorded_at, digest, form = columns
    return Row(position, stream, version, name, data, metadata, UUID(event_id), utc(recorded_at), digest, form)
