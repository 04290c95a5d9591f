from hypothesis import given
from hypothesis import strategies as st

from modfleet.proof.rules.windows import Windows

INTERVALS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)).map(lambda each: (each[0], each[0] + each[1])))


@given(INTERVALS, st.integers(0, 40), st.integers(0, 5))
def test_windows_touch_what_one_of_their_intervals_touches(intervals, start, length):
    touches = any(begin <= start + length and end >= start for begin, end in intervals)
    assert Windows(intervals).touches(start, start + length) == touches
