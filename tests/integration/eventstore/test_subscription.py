"""A subscription gives all events of interest after its checkpoint, and none twice."""

import pytest

from eventstore import Append, Subscription, append, head, last_version
from tests.ledger import Closed, Deposited, Opened

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _log(ledger, db):
    append(Append("a", 0, [Opened(owner="alice"), Deposited(cents=1)]), Append("b", 0, [Deposited(cents=2)]))


def positions(subscription, **options):
    return [each.position for each in subscription.pending(**options)]


def test_it_works():
    assert positions(Subscription(after=0)) == [1, 2, 3]
    assert positions(Subscription(after=2)) == [3]
    assert positions(Subscription(after=3)) == []


def test_only_what_is_of_interest():
    deposits = Subscription(after=0, event_classes=[Deposited])
    assert positions(deposits) == [2, 3]
    assert positions(Subscription(after=0, accepts=lambda each: each.stream == "b")) == [3]
    assert positions(Subscription(after=0, event_classes=())) == []


def test_events_after_the_end_are_left_for_the_next_time():
    end = head()
    append(Append("a", 2, [Closed()]))
    assert positions(Subscription(after=1), up_to=end) == [2, 3]
    assert positions(Subscription(after=end)) == [4]


def test_a_log_that_was_restored_to_before_the_checkpoint_is_seen():
    assert Subscription(after=1).lag(head()) == 2
    assert Subscription(after=9).lag(head()) == -6


def test_the_last_version_of_a_stream():
    assert [last_version(each) for each in ("a", "b", "c")] == [2, 1, 0]
