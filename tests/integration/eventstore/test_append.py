"""What an append promises, one writer at a time."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction

from eventstore import (
    Append,
    ConcurrencyError,
    Metadata,
    acting_as,
    append,
    database,
    database_now,
    head,
    load,
    load_many,
    projections,
    read,
    verify,
)
from eventstore.envelope import Row, chained_hash
from tests.ledger import Closed, Deposited, Opened

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("ledger")]

ALICE = Opened(owner="alice")


def test_it_works():
    recorded = append(Append("account:1", 0, [ALICE, Deposited(cents=5)]))

    assert [(each.position, each.version, each.event) for each in recorded] == [
        (1, 1, ALICE),
        (2, 2, Deposited(cents=5)),
    ]
    assert load("account:1") == recorded == tuple(read())
    assert load("account:1", from_version=2) == recorded[1:]


def test_no_events_are_no_append(django_assert_num_queries):
    with django_assert_num_queries(0):
        assert append(Append("account:1", 0, []), Append("account:2", 7)) == ()


def test_what_appends_nothing_leads_to_nothing():
    first = Append("a", 0, [ALICE])
    append(first, Append("b", 0, [ALICE], first.leads_to))
    assert load("b")[0].metadata.causation_id == load("a")[0].event_id.hex
    with pytest.raises(ValueError, match="nothing is appended to a"):
        _ = Append("a", 1, []).leads_to


def test_many_streams_in_one_append():
    append(Append("a", 0, [ALICE]))
    recorded = append(Append("a", 1, [Deposited(cents=1)]), Append("b", 0, [ALICE]), Append("c", 0, [ALICE, Closed()]))

    assert [(each.position, each.stream, each.version) for each in recorded] == [
        (2, "a", 2), (3, "b", 1), (4, "c", 1), (5, "c", 2),
    ]  # fmt: skip
    assert [len(each) for each in load_many(["c", "a", "none"]).values()] == [2, 2, 0]


def test_one_stream_may_be_named_twice_in_one_append():
    append(Append("a", 0, [ALICE]), Append("b", 0, [ALICE]), Append("a", 1, [Closed()]))

    assert [each.version for each in load("a")] == [1, 2]
    with pytest.raises(ValueError, match="do not follow each other"):
        append(Append("a", 2, [ALICE]), Append("a", 2, [ALICE]))


@pytest.mark.parametrize("expected", [0, 1, 3, 99])
def test_a_wrong_expected_version_is_a_conflict_and_nothing_is_written(expected):
    append(Append("a", 0, [ALICE, Deposited(cents=1)]))

    with pytest.raises(ConcurrencyError, match="b, a"):
        append(Append("b", 0, [ALICE]), Append("a", expected, [Closed()]))
    assert head() == 2
    assert load("b") == ()


def test_after_a_conflict_the_outer_transaction_goes_on():
    append(Append("a", 0, [ALICE]))

    with transaction.atomic():
        append(Append("b", 0, [ALICE]))
        with pytest.raises(ConcurrencyError):
            append(Append("a", 0, [ALICE]))
        append(Append("c", 0, [ALICE]))
    assert [each.stream for each in read()] == ["a", "b", "c"]
    assert verify() == 3


def test_a_projection_that_raises_takes_the_events_with_it(balances, monkeypatch):
    def fail(_batch):
        raise IntegrityError("UNIQUE constraint failed: builds.version")

    monkeypatch.setattr(balances, "apply", fail)

    with pytest.raises(IntegrityError):  # and no conflict, although its text names a version
        append(Append("a", 0, [Deposited(cents=1)]))
    assert head() == 0


def test_metadata_says_who_acted_in_answer_to_what():
    with acting_as("user:alice", correlation_id="r-1"):
        append(Append("a", 0, [ALICE]))

    (event,) = load("a")
    assert event.metadata == Metadata(actor="user:alice", requested_by="user:alice", correlation_id="r-1")
    assert event.actor == "user:alice"


def test_recorded_at_is_the_clock_of_the_database():
    before = database_now()
    (event,) = append(Append("a", 0, [ALICE]))

    assert before <= event.recorded_at <= database_now()
    assert load("a")[0].recorded_at == event.recorded_at
    assert abs(event.recorded_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_recorded_at_never_goes_back_although_the_clock_does(monkeypatch):
    (first,) = append(Append("a", 0, [ALICE]))
    past = database._TIP[connection.vendor].replace("clock_timestamp()", "clock_timestamp() - interval '1 hour'")
    monkeypatch.setitem(database._TIP, connection.vendor, past.replace("'now')", "'now', '-1 hour')"))

    (second,) = append(Append("b", 0, [ALICE]))

    assert second.recorded_at == first.recorded_at
    assert verify() == 2


def test_names_and_values_of_any_script_are_kept():
    odd = Opened(owner='Zoë "☃" \x00 \\ %s 𝄞')

    append(Append("a:ä%s'", 0, [odd]))

    assert [each.event for each in load("a:ä%s'")] == [odd]
    assert verify() == 1


def test_old_names_are_found_by_the_current_class():
    (first,) = append(Append("a", 0, [ALICE]))
    _store_as_v1(first.hash)

    assert [each.event for each in read(event_classes=[Deposited])] == [Deposited(cents=700)]
    assert [each.type for each in read(event_classes=[Deposited])] == ["ledger.deposited.v1"]
    assert [each.event for each in read(event_classes=[Opened])] == [ALICE]


def _store_as_v1(last_hash: str) -> None:
    row = Row(2, "a", 2, "ledger.deposited.v1", '{"amount":7}', "{}", uuid4(), database_now())
    database.insert([row._replace(hash=chained_hash(last_hash, row))])


def test_read_answers_a_part():
    append(Append("a", 0, [Deposited(cents=each) for each in range(2500)]))

    assert [each.position for each in read(after=2498)] == [2499, 2500]
    assert [each.position for each in read(after=1, up_to=3)] == [2, 3]
    assert sum(1 for _ in read()) == 2500


@pytest.mark.parametrize("count", [1, 1000])
def test_the_queries_of_an_append_are_counted(count, django_assert_num_queries):
    lock = 1 if connection.vendor == "postgresql" else 0

    with django_assert_num_queries(lock + 2 + 2):  # end of the log, insert; savepoint, release
        append(Append("a", 0, [ALICE] * count), Append("b", 0, [ALICE]))


def test_streams_are_loaded_500_at_a_time(django_assert_num_queries):
    with django_assert_num_queries(2):
        assert len(load_many(str(each) for each in range(1000))) == 1000


def test_thousands_of_streams_fit_into_one_append():
    append(*(Append(f"s{each}", 0, [ALICE]) for each in range(3_000)))
    append(*(Append(f"s{each}", 1, [Closed()]) for each in range(3_000)))

    assert head() == 6_000


def test_a_projection_name_is_not_registered_twice(balances):
    with pytest.raises(ValueError, match="registered twice"):
        projections.register_projection(balances)
