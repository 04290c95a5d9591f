"""The SQL that differs between PostgreSQL and SQLite: the append lock, the clock, the end of the log, the insert.

On SQLite the database needs `"transaction_mode": "IMMEDIATE"` among its `OPTIONS`, so that one transaction writes at a
time, and `PRAGMA recursive_triggers=ON`, so that the log's triggers see what REPLACE removes.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.db import DEFAULT_DB_ALIAS, close_old_connections, connection, connections, transaction
from django.db.models import QuerySet
from msgspec import json

from eventstore.conf import conf
from eventstore.envelope import GENESIS_HASH, Row, time_of

#: How many rows `delete_unlocked` deletes in one transaction.
DELETED_AT_ONCE = 1000

_CLOCK = {
    "postgresql": "SELECT clock_timestamp()",
    "sqlite": "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')",
}
# The inner queries are correlated: while the table is small, a join would be planned as a scan of it. The test of whether
# a type has grown compares rows in the order of the index: for `type = ? AND position > ? LIMIT 1` PostgreSQL expects an
# early match and would read the whole table.
_TIP = {
    "postgresql": """
        SELECT clock_timestamp(), last.position, last.hash, last.recorded_at, last.metadata, (
            SELECT count((
                SELECT 1 FROM eventstore_event WHERE stream = pair ->> 0 AND version = (pair ->> 1)::int
            )) FROM json_array_elements(%s::json) AS expected(pair)
        ), EXISTS (
            SELECT 1 FROM json_array_elements(%s::json) AS read(pair) WHERE (
                SELECT position FROM eventstore_event WHERE stream = pair ->> 0 ORDER BY version DESC LIMIT 1
            ) > (pair ->> 1)::bigint
        ) OR EXISTS (
            SELECT 1 FROM json_array_elements(%s::json) AS read(pair) WHERE (
                SELECT type FROM eventstore_event WHERE (type, position) > (pair ->> 0, (pair ->> 1)::bigint)
                ORDER BY type, position LIMIT 1
            ) = pair ->> 0
        ) FROM (SELECT 1) AS one LEFT JOIN (
            SELECT position, hash, recorded_at, metadata FROM eventstore_event ORDER BY position DESC LIMIT 1
        ) AS last ON true""",
    "sqlite": """
        SELECT strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now'), last.position, last.hash, last.recorded_at, last.metadata, (
            SELECT count((
                SELECT 1 FROM eventstore_event
                WHERE stream = json_extract(value, '$[0]') AND version = json_extract(value, '$[1]')
            )) FROM json_each(%s)
        ), EXISTS (
            SELECT 1 FROM json_each(%s) WHERE (
                SELECT position FROM eventstore_event WHERE stream = json_extract(value, '$[0]')
                ORDER BY version DESC LIMIT 1
            ) > json_extract(value, '$[1]')
        ) OR EXISTS (
            SELECT 1 FROM json_each(%s) WHERE (
                SELECT type FROM eventstore_event
                WHERE (type, position) > (json_extract(value, '$[0]'), json_extract(value, '$[1]'))
                ORDER BY type, position LIMIT 1
            ) = json_extract(value, '$[0]')
        ) FROM (SELECT 1) AS one LEFT JOIN (
            SELECT position, hash, recorded_at, metadata FROM eventstore_event ORDER BY position DESC LIMIT 1
        ) AS last ON true""",
}

# The columns in the order of `Row`. Correlated too: each stream is found by the index.
_TAILS = {
    "postgresql": """
        SELECT tail.* FROM json_array_elements(%s::json) AS asked(pair) CROSS JOIN LATERAL (
            SELECT position, stream, version, type, data, metadata,
                CAST(event_id AS text), CAST(recorded_at AS text), hash, format
            FROM eventstore_event WHERE stream = pair ->> 0 AND version >= (pair ->> 1)::int OFFSET 0
        ) AS tail ORDER BY stream, version""",
    "sqlite": """
        SELECT position, stream, version, type, data, metadata,
            CAST(event_id AS text), CAST(recorded_at AS text), hash, format
        FROM (SELECT json_extract(value, '$[0]') AS name, json_extract(value, '$[1]') AS least FROM json_each(%s))
        CROSS JOIN eventstore_event WHERE stream = name AND version >= least ORDER BY stream, version""",
}

_INSERT = {
    "postgresql": "INSERT INTO eventstore_event SELECT * FROM json_populate_recordset(NULL::eventstore_event, %s)",
    "sqlite": """
        INSERT INTO eventstore_event
        (position, stream, version, type, data, metadata, event_id, recorded_at, hash, format)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
}

_SIZE = {
    "postgresql": "SELECT pg_total_relation_size('eventstore_event')",
    "sqlite": "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
}


class Tip(NamedTuple):
    """The end of the log, and what an append has to know about it."""

    #: The newest position, 0 for an empty log.
    position: int
    #: The hash at this position.
    hash: str
    #: The database's clock.
    now: datetime
    #: The time of the newest event, and that in its column: see `eventstore.clock`. For an empty log as `now`.
    newest: datetime
    newest_column: datetime
    #: How many of the expected versions are in the log.
    found: int
    #: True if a stream or a type has grown that must not have grown.
    has_grown: bool


#: A stream with a version or a position, or an event type with a position.
Growth = tuple[str, int]


def give_connection_back() -> None:
    """Give this thread's connection back to the pool, before long work that needs no database.

    Like Django between two requests, it keeps a connection whose `CONN_MAX_AGE` has not passed. Inside a transaction it
    does nothing.
    """
    if not connection.in_atomic_block:
        close_old_connections()


def leave_the_pool() -> None:
    """Give this thread a connection of its own, outside of the pool. The caller closes it.

    For a thread that listens for notifications, or that must reach the database while the pool is busy.
    """
    own = connection.copy()
    own.settings_dict["OPTIONS"].pop("pool", None)
    connections[DEFAULT_DB_ALIAS] = own


@contextmanager
def snapshot() -> Iterator[None]:
    """Let all queries inside see the database as it is at the first of them.

    Write nothing inside. Do not yield inside a generator either: its caller may do anything before it continues.

    Inside a transaction this does nothing. `retry_on_conflict` holds the append lock in its last attempt, so the log does
    not change then.
    """
    if connection.in_atomic_block:
        yield
        return
    connection.ensure_connection()  # which sets SQLite's `transaction_mode`
    with _read_only(), transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:  # holds for this transaction alone
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


@contextmanager
def _read_only() -> Iterator[None]:
    """On SQLite, begin transactions as a reader, which does not wait for a writer, and refuse writes."""
    if connection.vendor != "sqlite":
        yield
        return
    sqlite: Any = connection
    mode, sqlite.transaction_mode = sqlite.transaction_mode, "DEFERRED"
    try:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA query_only = ON")
        yield
    finally:
        sqlite.transaction_mode = mode
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA query_only = OFF")


def hold_append_lock() -> None:
    """Keep all others from appending until this transaction ends. Its commit wakes the waiters of other processes.

    SQLite needs no lock: its transactions are `IMMEDIATE`, so there is one writer. The notification is sent in the same
    statement as the lock to save a round trip.
    """
    if connection.vendor == "postgresql":
        names = conf()
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s), pg_notify(%s, '')", [names.append_lock, names.channel])


def read_tip(expected: Mapping[str, int], streams: Collection[Growth] = (), types: Collection[Growth] = ()) -> Tip:
    """Return the end of the log. Call it with the append lock held. One query, however many names are given.

    `expected`: versions by stream that must be in the log. `streams`, `types`: names that must not have grown after a
    position.

    On PostgreSQL this cannot be the statement that takes the lock: the snapshot of that statement is older than the lock.
    """
    with connection.cursor() as cursor:
        cursor.execute(_TIP[connection.vendor], [_as_json(each) for each in (expected.items(), streams, types)])
        now, position, last_hash, recorded_at, metadata, found, has_grown = cursor.fetchone()
    if position is None:
        return Tip(0, GENESIS_HASH, utc(now), utc(now), utc(now), found, has_grown=False)
    column = utc(recorded_at)
    return Tip(position, last_hash, utc(now), time_of(metadata, column), column, found, bool(has_grown))


def read_tails(versions: Collection[Growth]) -> list[tuple[Any, ...]]:
    """Return the rows of each stream from a version on, ordered by stream and version."""
    with connection.cursor() as cursor:
        cursor.execute(_TAILS[connection.vendor], [_as_json(versions)])
        return list(cursor.fetchall())


def _as_json(pairs: Collection[Growth]) -> str:
    return json.encode(list(pairs)).decode()


def insert(rows: Sequence[Row]) -> None:
    """Add the rows in one statement.

    PostgreSQL takes them as one JSON text: three times as many rows a second as `bulk_create` or `executemany`.
    """
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(_INSERT["postgresql"], [json.encode([row._asdict() for row in rows]).decode()])
        else:
            cursor.executemany(_INSERT["sqlite"], [_as_sqlite_stores(row) for row in rows])


def _as_sqlite_stores(row: Row) -> tuple[str | int | None, ...]:
    """Return the columns as Django writes them on SQLite: a UUID as hex, a time without its zone."""
    recorded_at = str(row.recorded_at.replace(tzinfo=None))
    return (*row[:6], row.event_id.hex, recorded_at, row.hash, row.format)


def database_now() -> datetime:
    """Return the time by the database's clock, in UTC. It is the one clock that all processes share."""
    with connection.cursor() as cursor:
        cursor.execute(_CLOCK[connection.vendor])
        return utc(cursor.fetchone()[0])


def utc(value: datetime | str) -> datetime:
    """Return the time in UTC. SQLite returns a text in UTC that does not name its zone."""
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def delete_unlocked(rows: QuerySet[Any]) -> int:
    """Delete the rows that no other transaction has locked, 1,000 in a transaction. Return how many were deleted.

    Locked rows are skipped. So two processes that delete the same rows in different orders never wait for each other.
    """
    count = 0
    while True:
        with transaction.atomic():
            unlocked = rows.select_for_update(skip_locked=True).values_list("pk", flat=True)
            keys = list(unlocked[:DELETED_AT_ONCE])
            if not keys:
                return count
            rows.model._default_manager.filter(pk__in=keys).delete()  # noqa: SLF001  # public to Django's users
        count += len(keys)


def size_bytes() -> int:
    """Return the size of the log on disk with its indexes, in bytes. On SQLite: of the whole database."""
    with connection.cursor() as cursor:
        cursor.execute(_SIZE[connection.vendor])
        return int(cursor.fetchone()[0])
