"""How often changes of one node are recorded."""

from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.node.pace import BURST, SECONDS, full_after, is_limited

DAY = 86_400.0


def recorded(moments, full_at=0.0):
    """Those of the moments at which a change is recorded."""
    found = []
    for now in moments:
        if not is_limited(full_at, now):
            found.append(now)
            full_at = full_after(full_at, now)
    return found


def test_the_first_are_recorded_as_they_come():
    assert len(recorded([0.0] * 100)) == BURST


def test_then_one_in_a_while():
    moments = [float(second) for second in range(int(3 * SECONDS) + 1)]
    assert recorded(moments)[BURST:] == [SECONDS, 2 * SECONDS, 3 * SECONDS]


def test_after_a_quiet_time_it_is_as_at_first():
    moments = [*[0.0] * 100, *[BURST * SECONDS] * 100]
    assert len(recorded(moments)) == 2 * BURST


@given(st.lists(st.floats(0, DAY), max_size=400))
def test_the_bound_of_a_day(moments):
    assert len(recorded(sorted(moments))) <= BURST + DAY / SECONDS


def test_a_clock_that_was_set_back_holds_nothing_for_longer():
    full_at = full_after(0.0, 10 * DAY)
    assert not is_limited(full_at, 0.0)
    assert len(recorded([0.0] * 100, full_at)) == BURST
