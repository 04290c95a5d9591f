"""What was called in the last 10 minutes: what the agent has seen, and what it cannot know."""

from hypothesis import given
from hypothesis import strategies as st

from rollout.agent.server.call_history import SAMPLE_SECONDS, WINDOW_SECONDS, CallHistory

M = ("m.get",)


def history(*counts: tuple[float, int], uptime: float = 100_000, run_id: str = "a") -> CallHistory:
    """A history with the count of `m.get` at each time."""
    made = CallHistory()
    for at, count in counts:
        made.add(at, run_id=run_id, uptime=uptime + at, counts={"m.get": count, "get": 5})
    return made


def test_a_call_counts_for_10_minutes():
    made = history((0, 3), (700, 3), (710, 5))
    assert made.recent(711, M).calls == {"m.get": 2}
    later = history((0, 3), (700, 3), (710, 5), (800, 5), (1500, 5))
    assert (later.recent(1500, M).total, later.recent(1500, M).unknown_seconds) == (0, 0)


def test_a_command_that_was_never_called_is_not_in_use():
    assert history((0, 0)).recent(0, M).total == 0


def test_earlier_calls_are_unknown_until_the_agent_has_run_for_10_minutes():
    first = history((0, 7)).recent(0, M)
    assert (first.total, first.unknown_seconds) == (None, WINDOW_SECONDS)
    later = history((0, 7), (599, 7)).recent(599, M)
    assert (later.total, later.unknown_seconds) == (None, 1)
    assert history((0, 7), (599, 7), (660, 7)).recent(660, M).total == 0


def test_all_calls_are_recent_after_a_recent_start_of_the_server():
    assert history((0, 7), uptime=599).recent(0, M).calls == {"m.get": 7}


def test_a_restarted_server_counts_from_zero():
    made = history((0, 7))
    made.add(60, run_id="b", uptime=5, counts={"m.get": 0})
    assert made.recent(60, M).total == 0


def test_a_count_that_begins_again_is_added():
    """The module was loaded again, or CONFIG RESETSTAT was called."""
    made = history((0, 100), (700, 100), (760, 4))
    assert made.recent(760, M).calls == {"m.get": 4}


def test_nothing_is_known_before_the_first_observation():
    assert CallHistory().recent(0, M).total is None


def test_only_the_commands_that_were_asked_for():
    made = CallHistory()
    made.add(0, run_id="a", uptime=10, counts={"m.get": 1, "m.set": 3, "get": 9})
    recent = made.recent(0, ["m.get", "m.set"])
    assert (recent.total, recent.most_called) == (4, "m.set")


@given(st.lists(st.tuples(st.floats(0.5, 400), st.integers(0, 3)), min_size=1, max_size=60))
def test_a_call_within_the_window_is_never_taken_for_none(steps):
    """By the calls themselves: each step waits, calls, and observes."""
    made, at, count, called_at = CallHistory(), 0.0, 0, []
    for wait, calls in steps:
        at += wait
        called_at += [at] * calls
        count += calls
        made.add(at, run_id="a", uptime=at, counts={"m.get": count})
        recent = made.recent(at, M)
        within = sum(at - each < WINDOW_SECONDS for each in called_at)
        assert recent.total is None or recent.total <= within
        assert not within or recent.total != 0
        assert len(made._samples) <= WINDOW_SECONDS / SAMPLE_SECONDS + 2
