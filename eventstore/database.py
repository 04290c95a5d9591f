"""What the two databases say differently: the lock, the clock, the newest row."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from django.db import connection

from eventstore.recorded import GENESIS_HASH

#: Any constant will do, as long as nothing else in the database uses it.
APPEND_LOCK = 0x6D6F6466
#: PostgreSQL's channel that tells other processes of a commit.
CHANNEL = "modfleet_log"

_CLOCK = {
    "postgresql": "SELECT clock_timestamp()",
    "sqlite": "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')",
}
# The inner count is a correlated subquery: a join would be planned as a scan of the table while it is small.
_TIP = {
    "postgresql": """
        SELECT clock_timestamp(), last.position, last.hash, last.recorded_at, (
            SELECT count((
                SELECT 1 FROM eventstore_event WHERE stream = pair ->> 0 AND version = (pair ->> 1)::int
            )) FROM json_array_elements(%s::json) AS expected(pair)
        ) FROM (SELECT 1) AS one LEFT JOIN (
            SELECT position, hash, recorded_at FROM eventstore_event ORDER BY position DESC LIMIT 1
        ) AS last ON true""",
    "sqlite": """
        SELECT strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now'), last.position, last.hash, last.recorded_at, (
            SELECT count((
                SELECT 1 FROM eventstore_event
                WHERE stream = json_extract(value, '$[0]') AND version = json_extract(value, '$[1]')
            )) FROM json_each(%s)
        ) FROM (SELECT 1) AS one LEFT JOIN (
            SELECT position, hash, recorded_at FROM eventstore_event ORDER BY position DESC LIMIT 1
        ) AS last ON true""",
}


class Tip(NamedTuple):
    """Where the log ends, and how many of the expected versions stand in it."""

    position: int
    hash: str
    now: datetime
    found: int


def hold_append_lock() -> None:
    """Nothing is appended by others until this transaction ends; then followers in other processes are woken.

    SQLite's transactions are `IMMEDIATE`: there is one writer anyway. The notification shares the lock's round trip.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s), pg_notify(%s, '')", [APPEND_LOCK, CHANNEL])


def read_tip(expected: Mapping[str, int]) -> Tip:
    """The end of the log as it is under the lock, in one query for any number of `expected` versions by stream.

    On PostgreSQL it must not be the statement that takes the lock: that one's snapshot is older than the lock.
    """
    with connection.cursor() as cursor:
        cursor.execute(_TIP[connection.vendor], [json.dumps(list(expected.items()))])
        now, position, last_hash, recorded_at, found = cursor.fetchone()
    if position is None:
        return Tip(0, GENESIS_HASH, _utc(now), found)
    # A clock that was set back must not order an event before the one it follows.
    return Tip(position, last_hash, max(_utc(now), _utc(recorded_at)), found)


def database_now() -> datetime:
    """The database's clock, UTC."""
    with connection.cursor() as cursor:
        cursor.execute(_CLOCK[connection.vendor])
        return _utc(cursor.fetchone()[0])


def _utc(value: datetime | str) -> datetime:
    """SQLite answers text, in UTC and without saying so."""
    if isinstance(value, str):
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    return value.astimezone(UTC)
