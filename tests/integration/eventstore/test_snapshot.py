"""Several queries see the database as it was at one moment."""

import pytest
from django.db import DatabaseError, connection, transaction

from eventstore import Append, Decider, append, head, load_state, snapshot
from tests.ledger import Deposited, decide_deposit_once, evolve

pytestmark = pytest.mark.usefixtures("ledger", "committed_db")


def deposit(stream="a", version=0):
    return append(Append(stream, version, [Deposited(cents=1)]))


def isolation():
    """How the next transaction begins."""
    if connection.vendor == "sqlite":
        return vars(connection)["transaction_mode"]  # only SQLite has it
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('transaction_isolation') || current_setting('transaction_read_only')")
        return cursor.fetchone()[0]


@snapshot()
def fail_in_a_snapshot():
    return 1 / head()


def test_nothing_that_others_commit_is_seen(between_queries):
    deposit()
    with snapshot(), between_queries("eventstore_event", lambda: deposit("b")):
        assert [head(), head()] == [1, 1]
    assert head() == 2


def test_it_is_nothing_inside_of_a_transaction():
    with transaction.atomic():
        with snapshot():
            deposit()
        assert head() == 1
    assert head() == 1


def test_one_inside_of_another_is_of_the_same_moment(between_queries):
    with snapshot(), between_queries("eventstore_event", deposit):
        assert head() == 0
        with snapshot():
            assert head() == 0


def test_it_leaves_nothing_behind():
    connection.ensure_connection()
    before = isolation()
    with pytest.raises(ZeroDivisionError):
        fail_in_a_snapshot()
    assert isolation() == before
    connection.close()
    with snapshot():
        head()
    assert isolation() == before
    deposit()


def test_nothing_is_written_inside_of_it():
    with pytest.raises(DatabaseError), snapshot():
        deposit()
    assert head() == 0
    deposit()


def test_a_state_that_is_remembered_from_after_it_is_not_answered(between_queries):
    account = Decider(initial=0, decide=decide_deposit_once, evolve=evolve)
    deposit()

    def grow():
        deposit(version=1)
        assert load_state("a", account).state == 2

    with snapshot(), between_queries("eventstore_event", grow):
        assert load_state("a", account).state == 1
        assert load_state("a", account).state == 1
    assert load_state("a", account).state == 2
