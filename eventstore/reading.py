"""Reading the log: one stream, many, or all events in the order of commits."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby, islice
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection
from django.db.models import Max, Q, QuerySet, TextField
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast

from eventstore.actors import person
from eventstore.database import read_tails, utc
from eventstore.envelope import FORMAT, GENESIS_HASH, RecordedEvent, Row, chained_hash, recorded
from eventstore.models import StoredEvent
from eventstore.registry import stored_names_of

_BATCH = 1000
_STREAMS_PER_QUERY = 500
# As text, for every command reads a stream and most are short: building the query took longer than running it.
_STREAM = """
    SELECT position, stream, version, type, data, metadata,
        CAST(event_id AS text), CAST(recorded_at AS text), hash, format
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


_FORMATS = (None, FORMAT)
#: The request of an event; the index has the very same words.
REQUEST = {
    "postgresql": "coalesce(metadata::jsonb ->> 'correlation_id', metadata::jsonb ->> 'request_id')",
    "sqlite": "coalesce(json_extract(metadata, '$.correlation_id'), json_extract(metadata, '$.request_id'))",
}
_ACTOR = {"postgresql": "(metadata::jsonb ->> 'actor')", "sqlite": "json_extract(metadata, '$.actor')"}


class BrokenLogError(Exception):
    """A row of the log is not what was appended; `position` is that of the first such row."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


class Head(NamedTuple):
    """A position of the log and the hash of its event."""

    position: int
    hash: str


def load(stream: str, *, from_version: int = 1) -> tuple[RecordedEvent, ...]:
    """The events of one stream in order, from `from_version` on."""
    with connection.cursor() as cursor:
        cursor.execute(_STREAM, [stream, from_version])
        return tuple(recorded(_row(columns)) for columns in cursor.fetchall())


def load_many(streams: Iterable[str], *, up_to: int | None = None) -> dict[str, tuple[RecordedEvent, ...]]:
    """The events of many streams, up to a position of the log; an entry for each name asked for. One query per 500
    streams."""
    names = sorted(set(streams))
    found: dict[str, tuple[RecordedEvent, ...]] = dict.fromkeys(names, ())
    for start in range(0, len(names), _STREAMS_PER_QUERY):
        query = StoredEvent.objects.filter(stream__in=names[start : start + _STREAMS_PER_QUERY])
        if up_to is not None:
            query = query.filter(position__lte=up_to)
        for stream, rows in groupby(_rows(query.order_by("stream", "version")), key=lambda row: row.stream):
            found[stream] = tuple(recorded(row) for row in rows)
    return found


def load_tails(versions: Mapping[str, int]) -> dict[str, tuple[RecordedEvent, ...]]:
    """The events of many streams, of each from its own version on; an entry for each. One query per 500 streams."""
    wanted = sorted(versions.items())
    found: dict[str, tuple[RecordedEvent, ...]] = dict.fromkeys(versions, ())
    for start in range(0, len(wanted), _STREAMS_PER_QUERY):
        rows = map(_row, read_tails(wanted[start : start + _STREAMS_PER_QUERY]))
        found |= {stream: tuple(map(recorded, tail)) for stream, tail in groupby(rows, key=lambda row: row.stream)}
    return found


def read(
    *, after: int = 0, up_to: int | None = None, event_classes: Iterable[type] | None = None
) -> Iterator[RecordedEvent]:
    """All events in the order of commits, after a position; of the given classes only, if any are given."""
    query = StoredEvent.objects.all()
    if up_to is not None:
        query = query.filter(position__lte=up_to)
    if event_classes is not None:
        query = _of_classes(query, event_classes)
    yield from map(recorded, _in_batches(query, after=after))


def all_events() -> QuerySet[Any]:
    """A query of the log's rows, for `read_rows`."""
    return StoredEvent.objects.all()


def of_request(rows: QuerySet[Any], correlation_id: str) -> QuerySet[Any]:
    """Those of the events that one request has led to; by an index."""
    request = RawSQL(REQUEST[connection.vendor], ())  # noqa: S611  # a constant
    found: QuerySet[Any] = rows.alias(of_request=request).filter(of_request=correlation_id)
    return found


def by_actor(rows: QuerySet[Any], actor: str) -> QuerySet[Any]:
    """Those of the events that were done by `actor`, given as it is shown. What an older version has recorded is found by
    its name, for no kind was stored. All rows are looked through."""
    stored = actor if ":" in actor else person(actor)
    by: Q = Q(of_actor=stored) | Q(of_actor=actor.rpartition(":")[2])
    found: QuerySet[Any] = rows.alias(of_actor=RawSQL(_ACTOR[connection.vendor], ())).filter(by)  # noqa: S611  # a constant
    return found


def newest_event(event_ids: Collection[UUID]) -> UUID | None:
    """Which of these events was recorded last; None if none of them was."""
    found = StoredEvent.objects.filter(event_id__in=event_ids).order_by("-position")
    return found.values_list("event_id", flat=True).first()


def newest_of(stream: str, *, limit: int) -> list[RecordedEvent]:
    """The last events of a stream, the newest first."""
    return [recorded(row) for row in _rows(StoredEvent.objects.filter(stream=stream).order_by("-version")[:limit])]


def read_rows(query: QuerySet[Any]) -> list[RecordedEvent]:
    """The events that a query means, in its order."""
    return [recorded(row) for row in _rows(query)]


def load_positions(
    positions: Sequence[int] | QuerySet[Any, Any], *, event_classes: Iterable[type] | None = None
) -> list[RecordedEvent]:
    """The events at these positions, in order, of the given classes only if any are given; one query for any number of
    them that a query names."""
    query = StoredEvent.objects.filter(position__in=positions)
    if event_classes is not None:
        query = _of_classes(query, event_classes)
    return [recorded(row) for row in _rows(query.order_by("position"))]


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


def verify(*, after: int = 0, heads: Iterable[Head] = (), told: Callable[[int], None] = lambda _: None) -> int:
    """Return the number of events after a position, once each was checked: position, hash, version in its stream.

    `heads` were noted at earlier times and kept outside of the database: they show that the end of the log was cut off,
    or that the log was written anew from some position on. `told` is called with the position now and then.
    Raises: `BrokenLogError` for the first fault.
    """
    position = after
    for position in verified_positions(after=after):
        if position % _BATCH == 0:
            told(position)
    for each in heads:
        if hash_at(each.position) != each.hash:
            raise BrokenLogError(
                each.position, f"position {each.position} has another hash than was noted: the log was written anew"
            )
    return position - after


def verified_positions(*, after: int) -> Iterator[int]:
    """Each position after one whose hash is trusted, once it is checked. Raises: `BrokenLogError`."""
    _refuse_rows_before_the_first()
    position, last_hash = after, hash_at(after)
    versions: dict[str, int] = {}
    for batch in batched(_in_batches(StoredEvent.objects.all(), after=after)):
        if after:
            versions |= _versions_up_to(after, {row.stream for row in batch} - versions.keys())
        for row in batch:
            position, last_hash = checked(row, position, last_hash)
            expected = versions.get(row.stream, 0) + 1
            if row.version != expected:
                raise BrokenLogError(
                    position, f"position {position} is version {row.version} of {row.stream}, and not {expected}"
                )
            versions[row.stream] = expected
            yield position


def _refuse_rows_before_the_first() -> None:
    """Nothing reads them in the order of positions, but a stream or a list by type would show them."""
    first = StoredEvent.objects.filter(position__lt=1).order_by("position").values_list("position", flat=True).first()
    if first is not None:
        raise BrokenLogError(first, f"position {first} was not appended: positions begin at 1")


def checked(row: Row, position: int, last_hash: str) -> tuple[int, str]:
    """The row's own position and hash, which must continue those given. Raises: `BrokenLogError`."""
    if row.position != position + 1:
        raise BrokenLogError(position + 1, f"position {position + 1} is missing")
    if row.format not in _FORMATS:
        raise BrokenLogError(row.position, f"position {row.position} has the format {row.format}, which is unknown")
    if row.hash != chained_hash(last_hash, row):
        raise BrokenLogError(row.position, f"position {row.position} is not what was appended: its hash does not match")
    return row.position, row.hash


def hash_at(position: int) -> str:
    """What the hash of the next position is chained to. Raises: `BrokenLogError` if there is no such position."""
    if not position:
        return GENESIS_HASH
    found = StoredEvent.objects.filter(position=position).values_list("hash", flat=True).first()
    if found is None:
        raise BrokenLogError(position, f"position {position} is missing")
    return found


def read_stored_rows(*, up_to: int) -> Iterator[Row]:
    """The rows as they are stored, from the first on."""
    yield from _in_batches(StoredEvent.objects.filter(position__lte=up_to), after=0)


def batched(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows, many at a time."""
    iterator = iter(rows)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _versions_up_to(position: int, streams: set[str]) -> dict[str, int]:
    """The newest version of each of the streams by then, in one query per 500 of them."""
    names = sorted(streams)
    found: dict[str, int] = {}
    for start in range(0, len(names), _STREAMS_PER_QUERY):
        rows = StoredEvent.objects.filter(
            stream__in=names[start : start + _STREAMS_PER_QUERY], position__lte=position
        ).order_by("stream")
        found.update(rows.values_list("stream").annotate(Max("version")))
    return found


def _of_classes(query: QuerySet[StoredEvent], event_classes: Iterable[type]) -> QuerySet[StoredEvent]:
    return query.filter(type__in=[name for each in event_classes for name in stored_names_of(each)])


def _in_batches(query: QuerySet[StoredEvent], *, after: int) -> Iterator[Row]:
    """In the order of positions, by many short queries: no transaction is held open while a long log is read."""
    ordered = query.order_by("position")
    while batch := list(_rows(ordered.filter(position__gt=after)[:_BATCH])):
        yield from batch
        after = batch[-1].position


def _rows(query: QuerySet[StoredEvent]) -> Iterator[Row]:
    """Two columns are read as text and converted here: Django's own converters take most of a replay's time."""
    as_text = (Cast(each, TextField()) for each in ("event_id", "recorded_at"))
    columns = query.values_list(*Row._fields[:6], *as_text, "hash", "format")
    yield from map(_row, columns)


def _row(columns: Sequence[Any]) -> Row:
    position, stream, version, name, data, metadata, event_id, recorded_at, digest, form = columns
    return Row(position, stream, version, name, data, metadata, UUID(event_id), utc(recorded_at), digest, form)
