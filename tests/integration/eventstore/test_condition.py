"""An append that is refused when anything that its decision has read has grown."""

import json
import statistics
import time
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from eventstore import (
    Append,
    ConcurrencyError,
    Condition,
    append,
    database,
    database_now,
    head,
    load,
    read,
    retry_on_conflict,
)
from eventstore.database import read_tip
from eventstore.envelope import Row
from tests.ledger import Closed, Deposited, Opened
from tests.plugins.databases import at_once

ALICE = Opened(owner="alice")
MILLION = 1_000_000


@pytest.fixture
def log(ledger, db):
    append(Append("a", 0, [ALICE, Deposited(cents=1)]), Append("b", 0, [ALICE]))


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize(
    ("streams", "event_types", "holds"),
    [
        ((), (), True),
        (("b",), (), True),
        (("nothing",), (), True),
        (("b", "a"), (), False),
        ((), (Closed,), True),
        ((), (Opened, Closed), True),
        ((), (Closed, Deposited), False),
        (("b",), (Closed,), True),
        (("a",), (Closed,), False),
    ],
)
def test_what_was_read_must_not_have_grown(streams, event_types, holds):
    condition = Condition(after=head(), streams=streams, event_types=event_types)
    append(Append("a", 2, [Deposited(cents=2)]))
    before = head()
    if holds:
        append(Append("c", 0, [ALICE]), unless=[condition])
        return
    with pytest.raises(ConcurrencyError):
        append(Append("c", 0, [ALICE]), unless=[condition])
    assert (head(), load("c")) == (before, ())


@pytest.mark.usefixtures("log")
def test_what_was_there_at_the_position_does_not_count():
    append(Append("c", 0, [ALICE]), unless=[Condition(after=head(), streams=["a", "b"], event_types=[Opened])])


@pytest.mark.usefixtures("log")
def test_each_condition_has_a_position_of_its_own():
    first = Condition(after=head(), streams=["a"])
    append(Append("b", 1, [Closed()]))
    append(Append("c", 0, [ALICE]), unless=[first, Condition(after=head(), streams=["b"])])
    with pytest.raises(ConcurrencyError):
        append(Append("d", 0, [ALICE]), unless=[first, Condition(after=first.after, streams=["b"])])


@pytest.mark.usefixtures("log")
def test_events_under_a_former_name_count():
    condition = Condition(after=head(), event_types=[Deposited])
    database.insert([Row(head() + 1, "z", 1, "ledger.deposited.v1", "{}", "{}", uuid4(), database_now())])
    with pytest.raises(ConcurrencyError):
        append(Append("c", 0, [ALICE]), unless=[condition])


@pytest.mark.usefixtures("log")
def test_an_outer_transaction_goes_on_after_a_refusal():
    before = head()
    append(Append("b", 1, [Closed()]))
    with pytest.raises(ConcurrencyError):
        append(Append("c", 0, [ALICE]), unless=[Condition(after=before, streams=["b"])])
    append(Append("c", 0, [ALICE]))
    assert [each.stream for each in read(after=before)] == ["b", "c"]


@pytest.mark.usefixtures("log")
def test_it_costs_no_query_of_its_own():
    def count(**more):
        with CaptureQueriesContext(connection) as asked:
            append(Append(f"s{head()}", 0, [ALICE]), **more)
        return len(asked)

    assert count() == count(unless=[Condition(after=head(), streams=["a"], event_types=[Closed])])


def test_two_that_read_each_other_never_both_write(ledger, committed_db):
    """The textbook's case: each may only act while the other has not."""

    def act(own, other):
        @retry_on_conflict
        def attempt():
            after = head()
            if load(other):
                return False
            append(Append(own, 0, [ALICE]), unless=[Condition(after=after, streams=[other])])
            return True

        return attempt()

    for number in range(20):
        one, two = f"one-{number}", f"two-{number}"
        assert sorted(at_once(lambda: act(one, two), lambda: act(two, one))) == [False, True]  # noqa: B023


# --- What it costs ----------------------------------------------------------------------------------------------------


FILL = {
    "postgresql": """
        INSERT INTO eventstore_event (position, stream, version, type, data, metadata, event_id, recorded_at, hash)
        SELECT n, 's' || (n / 10), n %% 10 + 1, 'type.' || n %% 40, '{}', '{}', gen_random_uuid(), now(), 'h'
        FROM generate_series(%s::bigint, %s::bigint) AS n""",
    "sqlite": """
        WITH RECURSIVE counted(n) AS (SELECT %s UNION ALL SELECT n + 1 FROM counted WHERE n < %s)
        INSERT INTO eventstore_event (position, stream, version, type, data, metadata, event_id, recorded_at, hash)
        SELECT n, 's' || (n / 10), n %% 10 + 1, 'type.' || n %% 40, '{}', '{}', lower(hex(randomblob(16))),
            '2026-01-01 00:00:00', 'h' FROM counted""",
}
ANALYZE = {"postgresql": "ANALYZE eventstore_event", "sqlite": "ANALYZE"}
EXPLAIN = {"postgresql": "EXPLAIN (ANALYZE, FORMAT JSON) ", "sqlite": "EXPLAIN QUERY PLAN "}
#: Some rare, some frequent, some that nobody ever appended.
TYPES = [f"type.{number}" for number in range(0, 60, 3)]
STREAMS = [f"s{number}" for number in range(0, 2000, 40)]


def fill(start, end, *, analyze=True):
    with connection.cursor() as cursor:
        cursor.execute(FILL[connection.vendor], [start, end])
        if analyze:
            cursor.execute(ANALYZE[connection.vendor])


def plan_of_the_question(after):
    """As text. The types are asked for at the end of the log, where there is no match: the worst case of a scan."""
    reads = [[(name, after) for name in names] for names in (STREAMS, TYPES)]
    with connection.cursor() as cursor:
        parameters = [database._as_json(each) for each in ([("s1", 10)], *reads)]
        cursor.execute(EXPLAIN[connection.vendor] + database._TIP[connection.vendor], parameters)
        return json.dumps(cursor.fetchall())


def milliseconds_of_the_question(after, *, rounds=200):
    reads = [[(name, after) for name in names] for names in (STREAMS, TYPES)]

    def once():
        began = time.perf_counter()
        assert not read_tip({"s1": 10}, *reads).has_grown
        return 1000 * (time.perf_counter() - began)

    return statistics.median(once() for _ in range(rounds))


def assert_is_indexed(plan):
    if connection.vendor == "postgresql":
        assert "Seq Scan" not in plan
        assert "Sort" not in plan
        assert "events_by_type" in plan
        assert "one_event_per_version" in plan
    else:
        assert 'SCAN eventstore_event"' not in plan
        assert "TEMP B-TREE" not in plan
        assert "events_by_type" in plan


@pytest.mark.django_db
@pytest.mark.parametrize("analyze", [True, False])
@pytest.mark.parametrize("count", [300, 20_000])
def test_the_question_is_answered_from_indexes(count, analyze):
    fill(1, count, analyze=analyze)
    assert_is_indexed(plan_of_the_question(count))


@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_question_does_not_grow_with_the_log(committed_db, capsys):
    fill(1, 10_000)
    short = milliseconds_of_the_question(10_000)
    fill(10_001, MILLION)
    assert_is_indexed(plan_of_the_question(MILLION))
    long = milliseconds_of_the_question(MILLION)
    with capsys.disabled():
        print(f"\n{connection.vendor}: {short:.2f} ms at 10,000 events, {long:.2f} ms at {MILLION:,}")  # noqa: T201  # for the record
    assert long < 3 * short + 1
