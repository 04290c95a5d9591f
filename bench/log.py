"""The log's speed as a share of a floor: the same rows, ready made, by a bare `executemany` on one connection.

python bench/log.py                                             SQLite
python -m tests.postgres --durable python bench/log.py          PostgreSQL
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

BATCH = 1000
SINGLES = 300
ROUNDS = 5
#: Streams that are loaded together, and how often all but one of them have grown since that one was loaded.
STREAMS = 200
GROWN = 20
INDEXES = ("position", "stream, version", "event_id", "type, position")


def seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main() -> None:
    """Each round measures the floor beside the log, so that a busy machine slows both."""
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    from tests.ledger import register_events

    register_events()
    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE bench_floor AS SELECT * FROM eventstore_event")
        for columns in INDEXES:
            cursor.execute(f"CREATE UNIQUE INDEX floor_{columns[:4]} ON bench_floor ({columns})")
    measured = [measure() for _ in range(ROUNDS)]
    print(f"{connection.vendor}, median of {ROUNDS} rounds")
    for name in measured[0]:
        floor = statistics.median(each[name][0] for each in measured)
        ours = statistics.median(each[name][1] for each in measured)
        print(f"{name:32} {ours:10,.0f}/s   {ours / floor:6.2f} of the floor's {floor:10,.0f}/s")


def measure() -> dict[str, tuple[float, float]]:
    """Floor's and log's events per second."""
    from django.db import connection

    from eventstore import Append, append, head, read, verify
    from tests.ledger import Opened

    event = Opened(owner="alice")
    states = measure_states(event)
    before = head()
    batch = seconds(lambda: append(Append(f"batch:{before}", 0, [event] * BATCH)))

    def append_singles() -> None:
        for each in range(SINGLES):
            append(Append(f"single:{before}", each, [event]))

    def write_singles() -> None:
        for row in rows[BATCH:]:
            write_floor([row])

    def replay_floor() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM eventstore_event WHERE position > %s ORDER BY position", [before])
            cursor.fetchall()

    singles, count = seconds(append_singles), BATCH + SINGLES
    rows = stored_rows(after=before)
    return {
        "append of 1,000": (BATCH / seconds(lambda: write_floor(rows[:BATCH])), BATCH / batch),
        "append of 1, each committed": (SINGLES / seconds(write_singles), SINGLES / singles),
        "replay": (count / seconds(replay_floor), count / seconds(lambda: list(read(after=before)))),
        "states, one of 200 is stale": states,
        "verify": (count / seconds(replay_floor), head() / seconds(verify)),
    }


def measure_states(event: object) -> tuple[float, float]:
    """States per second of streams that were all loaded a moment ago, and with one among them that was not."""
    from eventstore import Append, Decider, append, head, load_states

    counter: Decider[int, object] = Decider(0, lambda *_: [], lambda count, _: count + 1)
    names = [f"state:{head()}:{number}" for number in range(STREAMS)]
    append(*(Append(name, 0, [event]) for name in names))
    load_states(names, counter)
    for version in range(1, GROWN):
        append(*(Append(name, version, [event]) for name in names[1:]))
        load_states(names[1:], counter)
    fresh = seconds(lambda: load_states(names[1:], counter))
    return (STREAMS - 1) / fresh, STREAMS / seconds(lambda: load_states(names, counter))


def stored_rows(after: int) -> list[tuple[Any, ...]]:
    """As the driver wants them back."""
    import json

    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM eventstore_event WHERE position > %s ORDER BY position", [after])
        return [
            tuple(json.dumps(value) if isinstance(value, dict) else value for value in row) for row in cursor.fetchall()
        ]


def write_floor(rows: list[tuple[Any, ...]]) -> None:
    from django.db import connection, transaction

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO bench_floor VALUES ({', '.join(['%s'] * len(rows[0]))})", rows)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("MODFLEET_DATA_DIR", folder)
        os.environ.setdefault("MODFLEET_DATABASE_URL", f"sqlite:///{folder}/log.sqlite3")
        main()
