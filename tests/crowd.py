"""Many clients of one server at once, and how many connections its database has meanwhile."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg


def ask_all(port: int, paths: list[str], *, token: str) -> Counter[int]:
    """How often each status was answered to `paths`, all asked at once, each over a connection of its own."""

    async def ask_at_once() -> list[int]:
        return await asyncio.gather(*(_status(port, path, token) for path in paths))

    return Counter(asyncio.run(ask_at_once()))


async def _status(port: int, path: str, token: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        answer = await reader.read()
        return int(answer.split(b" ", 2)[1]) if answer else 0
    finally:
        writer.close()


@dataclass
class Activity:
    """Connections to the database, the watching one aside: the most at a time, of each `application_name`."""

    most: Counter[str] = field(default_factory=Counter)
    now: Counter[str] = field(default_factory=Counter)

    def look(self, database: psycopg.Connection) -> None:
        rows = database.execute(
            "SELECT application_name, count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() GROUP BY 1"
        )
        self.now = Counter(dict(rows.fetchall()))
        self.most |= self.now


@contextmanager
def watched(url: str) -> Iterator[Activity]:
    """What `pg_stat_activity` shows while the block runs, looked at all the time."""
    activity, done = Activity(), threading.Event()

    def watch(database: psycopg.Connection) -> None:
        while not done.wait(0.01):
            activity.look(database)

    with psycopg.connect(url, autocommit=True) as database:
        thread = threading.Thread(target=watch, args=(database,))
        thread.start()
        try:
            yield activity
        finally:
            done.set()
            thread.join()
