"""Load, fold, decide, append."""

import re

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from eventstore import (
    Append,
    Batch,
    ConcurrencyError,
    Decider,
    append,
    head,
    load,
    load_state,
    load_states,
    reading,
    transact,
)
from eventstore.envelope import from_row
from tests.ledger import Deposited, Opened, OverdrawnError, decide_deposit_once, evolve

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("ledger")]


STREAMS = [f"s{number}" for number in range(200)]


@pytest.fixture
def account():
    return Decider(initial=0, decide=decide_deposit_once, evolve=evolve)


def cost_of(function):
    """How many queries the function makes, and how many rows of the log it decodes."""
    with CaptureQueriesContext(connection) as queries, pytest.MonkeyPatch.context() as patch:
        decoded = []

        def decode(row):
            decoded.append(row)
            return from_row(row)

        patch.setattr(reading, "from_row", decode)
        function()
    return len(queries), len(decoded)


def test_a_command_answers_the_state_after_it(account):
    assert transact("a", account, 5) == 5
    assert transact("a", account, 7) == 7
    assert [each.event for each in load("a")] == [Deposited(cents=5), Deposited(cents=2)]


def test_a_repeated_command_appends_nothing(account):
    transact("a", account, 5)

    assert transact("a", account, 5) == 5
    assert head() == 1


def test_a_refused_command_appends_nothing(account):
    with pytest.raises(OverdrawnError):
        transact("a", account, -1)
    assert head() == 0


def test_a_stream_that_does_not_exist_is_the_initial_state(account):
    loaded = load_state("a", account)

    assert (loaded.version, loaded.state) == (0, 0)
    assert load_states(["a"], account) == {"a": loaded}


def test_only_the_tail_of_a_known_stream_is_read(account, django_assert_num_queries):
    append(Append("a", 0, [Deposited(cents=1)] * 50))
    load_state("a", account)
    append(Append("a", 50, [Deposited(cents=1)]))

    with django_assert_num_queries(1) as queries:
        assert load_state("a", account).state == 51
    with connection.cursor() as cursor:
        cursor.execute(queries[0]["sql"])
        assert len(cursor.fetchall()) == 2


def test_only_the_tails_of_known_streams_are_read(account):
    for name in ("a", "b"):
        append(Append(name, 0, [Deposited(cents=1)] * 50))
    load_states(["a", "b"], account)
    append(Append("a", 50, [Deposited(cents=1)]))

    assert cost_of(lambda: load_states(["a", "b"], account)) == (1, 3)
    states = load_states(["a", "b"], account)
    assert {name: (each.version, each.state) for name, each in states.items()} == {"a": (51, 51), "b": (50, 50)}
    assert cost_of(lambda: load_states(["a", "b"], account)) == (1, 2)


def test_a_stale_stream_among_many_costs_no_more_than_its_own_tail(account):
    append(*(Append(name, 0, [Deposited(cents=1)]) for name in STREAMS))
    load_states(STREAMS, account)
    for version in range(1, 20):
        append(*(Append(name, version, [Deposited(cents=1)]) for name in STREAMS[1:]))
        load_states(STREAMS[1:], account)
    queries, decoded = cost_of(lambda: load_states(STREAMS[1:], account))

    assert cost_of(lambda: load_states(STREAMS, account)) == (queries, decoded + 1)
    assert (queries, decoded) == (1, len(STREAMS) - 1)


@pytest.mark.parametrize("rounds", [1, 100])
def test_tails_are_found_by_the_index_whatever_the_size_of_the_log(account, rounds):
    for version in range(rounds):
        append(*(Append(name, version, [Deposited(cents=1)]) for name in STREAMS))
    load_states(STREAMS, account)
    with CaptureQueriesContext(connection) as queries:
        load_states(STREAMS, account)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("ANALYZE eventstore_event")
        cursor.execute(f"EXPLAIN {'' if connection.vendor == 'postgresql' else 'QUERY PLAN'} {queries[0]['sql']}")
        plan = "\n".join(str(row) for row in cursor.fetchall())
    assert "eventstore_event" in plan
    if rounds > 1 or connection.vendor == "sqlite":
        assert not re.search(r"(Seq Scan on|SCAN) eventstore_event", plan), plan
        assert "version" in plan, plan


def test_known_and_unknown_streams_are_loaded_together(account, django_assert_num_queries):
    append(Append("a", 0, [Deposited(cents=1)]), Append("b", 0, [Deposited(cents=2)]))
    load_state("a", account)

    with django_assert_num_queries(1):
        states = load_states(["a", "b", "none"], account)
    assert {name: each.state for name, each in states.items()} == {"a": 1, "b": 2, "none": 0}


def test_states_from_a_rolled_back_transaction_are_never_answered(account):
    with transaction.atomic():
        append(Append("a", 0, [Deposited(cents=100)] * 2))
        load_states(["a"], account)
        transaction.set_rollback(True)

    append(Append("b", 0, [Deposited(cents=7)]), Append("a", 0, [Deposited(cents=1)] * 3))
    assert load_states(["a"], account)["a"].state == 3


def test_a_state_from_a_rolled_back_transaction_is_never_answered(account):
    with transaction.atomic():
        append(Append("a", 0, [Deposited(cents=100)] * 2))
        phantom = load_state("a", account)
        transaction.set_rollback(True)

    assert load_state("a", account).state == 0
    append(Append("a", 0, [Deposited(cents=1)] * 3))
    assert load_state("a", account).state == 3
    assert phantom.state == 200


def test_an_append_upon_a_rolled_back_state_is_a_conflict(account):
    with transaction.atomic():
        append(Append("a", 0, [Deposited(cents=100)] * 2))
        phantom = load_state("a", account)
        transaction.set_rollback(True)

    with pytest.raises(ConcurrencyError):
        append(phantom.append([Deposited(cents=1)]))


def test_two_deciders_of_one_stream_know_their_own_states(account):
    owner: Decider[str, None] = Decider(
        initial="", decide=lambda *_: [], evolve=lambda _, event: getattr(event, "owner", "")
    )
    append(Append("a", 0, [Deposited(cents=5), Opened(owner="alice")]))

    assert [load_state("a", each).state for each in (account, owner, account, owner)] == [5, "alice"] * 2


def test_a_stale_state_is_a_conflict_and_transact_decides_anew(account):
    stale = load_state("a", account)
    transact("a", account, 5)

    with pytest.raises(ConcurrencyError):
        append(stale.append([Deposited(cents=1)]))
    assert transact("a", account, 6) == 6


def test_a_batch_folds_each_event_once():
    """A node may report 1,000 modules that have drifted: with each command folding all events before it, that is a million."""
    folded = []

    def counted(state, event):
        folded.append(event)
        return evolve(state, event)

    account, batch = Decider(initial=0, decide=decide_deposit_once, evolve=counted), Batch()
    loaded = load_state("a", account)
    assert [batch.decide(loaded, account, balance) for balance in (1, 3, 3, 6)] == [True, True, False, True]
    assert folded == [Deposited(cents=1), Deposited(cents=2), Deposited(cents=3)]
    append(*batch.appends())
    assert load_state("a", account).state == 6
