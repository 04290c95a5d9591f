"""What the two databases say differently: the lock, the clock, the end of the log, the insert."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.db import DEFAULT_DB_ALIAS, close_old_connections, connection, connections, transaction
from django.db.models import QuerySet
from msgspec import json

from eventstore.envelope import GENESIS_HASH, Row

#: Any constant will do, as long as nothing else in the database uses it.
APPEND_LOCK = 0x6D6F6466
#: PostgreSQL's channel that tells other processes of a commit.
CHANNEL = "modfleet_log"

#: Rows that `delete_unlocked` deletes in one transaction.
DELETED_AT_ONCE = 1000

_CLOCK = {
    "postgresql": "SELECT clock_timestamp()",
    "sqlite": "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')",
}
# The inner queries are correlated: a join would be planned as a scan of the table while it is small. Whether a type has
# grown is asked by comparing rows, in the order of the index: for `type = ? AND position > ? LIMIT 1` PostgreSQL expects
# to meet a match soon, and would read the whole table.
_TIP = {
    "postgresql": """
        SELECT clock_timestamp(), last.position, last.hash, last.recorded_at, (
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
            SELECT position, hash, recorded_at FROM eventstore_event ORDER BY position DESC LIMIT 1
        ) AS last ON true""",
    "sqlite": """
        SELECT strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now'), last.position, last.hash, last.recorded_at, (
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
            SELECT position, hash, recorded_at FROM eventstore_event ORDER BY position DESC LIMIT 1
        ) AS last ON true""",
}

# With the columns as `reading` wants them. Correlated too: each stream is found by the index.
_TAILS = {
    "postgresql": """
        SELECT tail.* FROM json_array_elements(%s::json) AS wanted(pair) CROSS JOIN LATERAL (
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
    """Where the log ends, how many of the expected versions stand in it, and whether anything that was read has grown."""

    position: int
    hash: str
    now: datetime
    found: int
    has_grown: bool


#: The name of a stream or of an event type, and a number: the position after which nothing may have been added to it, or
#: the version from which on it is read.
Growth = tuple[str, int]


def give_connection_back() -> None:
    """To the pool, before something that may take long and asks nothing. It is kept in a transaction, and where there is
    no pool."""
    if not connection.in_atomic_block:
        close_old_connections()


def leave_the_pool() -> None:
    """Give this thread a connection of its own, which is closed when it has done with it: for one that listens, or that
    asks how the database is, whatever the pool's connections are busy with."""
    own = connection.copy()
    own.settings_dict["OPTIONS"].pop("pool", None)
    connections[DEFAULT_DB_ALIAS] = own


@contextmanager
def snapshot() -> Iterator[None]:
    """All queries inside see the database as it was at the first of them. Nothing is written inside, and nothing is yielded
    (`tests/unit/test_snapshots.py`): the caller of a generator may do anything before it goes on.

    Inside of a transaction it does nothing: the last attempt of a decision holds the append lock, so that nothing that is
    read from the log changes.
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
    """On SQLite transactions begin as readers do, which wait for no writer; and what is written is refused."""
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
    """Nothing is appended by others until this transaction ends; then followers in other processes are woken.

    SQLite's transactions are `IMMEDIATE`: there is one writer anyway. The notification shares the lock's round trip.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s), pg_notify(%s, '')", [APPEND_LOCK, CHANNEL])


def read_tip(expected: Mapping[str, int], streams: Collection[Growth] = (), types: Collection[Growth] = ()) -> Tip:
    """The end of the log as it is under the lock, in one query for any number of `expected` versions by stream, and of
    streams and types that must not have grown.

    On PostgreSQL it must not be the statement that takes the lock: that one's snapshot is older than the lock.
    """
    with connection.cursor() as cursor:
        cursor.execute(_TIP[connection.vendor], [_as_json(each) for each in (expected.items(), streams, types)])
        now, position, last_hash, recorded_at, found, has_grown = cursor.fetchone()
    if position is None:
        return Tip(0, GENESIS_HASH, utc(now), found, has_grown=False)
    # A clock that was set back must not order an event before the one it follows.
    return Tip(position, last_hash, max(utc(now), utc(recorded_at)), found, bool(has_grown))


def read_tails(versions: Collection[Growth]) -> list[tuple[Any, ...]]:
    """The columns of events by stream and version: of each stream those from a version on."""
    with connection.cursor() as cursor:
        cursor.execute(_TAILS[connection.vendor], [_as_json(versions)])
        return list(cursor.fetchall())


def _as_json(pairs: Collection[Growth]) -> str:
    return json.encode(list(pairs)).decode()


def insert(rows: Sequence[Row]) -> None:
    """Add the rows in one statement, the quickest that each driver has.

    PostgreSQL takes them as one JSON text: three times as many a second as by `bulk_create` or `executemany`.
    """
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(_INSERT["postgresql"], [json.encode([row._asdict() for row in rows]).decode()])
        else:
            cursor.executemany(_INSERT["sqlite"], [_as_sqlite_stores(row) for row in rows])


def _as_sqlite_stores(row: Row) -> tuple[str | int | None, ...]:
    """As Django writes and reads a UUID and a date there."""
    recorded_at = str(row.recorded_at.replace(tzinfo=None))
    return (*row[:6], row.event_id.hex, recorded_at, row.hash, row.format)


def database_now() -> datetime:
    """The database's clock, UTC."""
    with connection.cursor() as cursor:
        cursor.execute(_CLOCK[connection.vendor])
        return utc(cursor.fetchone()[0])


def utc(value: datetime | str) -> datetime:
    """SQLite answers text, in UTC and without saying so."""
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def delete_unlocked(rows: QuerySet[Any]) -> int:
    """Delete the rows, but for those that another process has locked. Returns how many were deleted.

    Waits for nobody, so that two who delete the same rows in different orders do not wait for each other.
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
    """What the log takes on disk, with its indexes; on SQLite what the whole database does."""
    with connection.cursor() as cursor:
        cursor.execute(_SIZE[connection.vendor])
        return int(cursor.fetchone()[0])
