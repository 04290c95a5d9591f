"""The rules of one rollout."""

import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st

from rollout.decider.rollout import ROLLOUT, Abort, Advance, Fleet, RetryNodes, Start
from rollout.errors import RolloutFinalError, RolloutNotFoundError
from rollout.events import (
    AbortRequested,
    NodesReleased,
    NodesRetried,
    RolloutFinished,
    RolloutPhase,
    RolloutStarted,
    Strategy,
)
from rollout.messages import FINAL_PHASES, Action, Activation, Phase, Reason

STARTED = RolloutStarted(
    rollout="r1",
    action=Action.INSTALL,
    module_name="greet",
    version=1,
    activation=Activation.LOAD,
    total=4,
    named=False,
    strategy=Strategy(max_parallel=2),
)
ABORTING = (STARTED, AbortRequested(rollout="r1"))
ENDED = (STARTED, RolloutFinished(rollout="r1", phase=RolloutPhase.SUCCEEDED))


def when(events, command):
    return ROLLOUT.decide(ROLLOUT.fold(events), command)


def advance(ready=(), superseded=0, **counts):
    fleet = Fleet(counts={Phase(name): count for name, count in counts.items()}, ready=ready, superseded=superseded)
    return Advance(rollout="r1", fleet=fleet)


def ends_as(events, command):
    (finished,) = when(events, command)
    return finished.phase


def test_it_works():
    assert when([], Start(started=STARTED)) == [STARTED]
    assert when([STARTED], advance(("a", "b", "c"), scheduled=4)) == [NodesReleased(rollout="r1", nodes=("a", "b"))]
    assert ends_as([STARTED], advance(succeeded=3, skipped=1)) is RolloutPhase.SUCCEEDED


def test_a_start_twice_is_one():
    assert when([STARTED], Start(started=STARTED)) == []


@pytest.mark.parametrize("command", [Abort(rollout="r1"), advance(), RetryNodes(rollout="r1", nodes=("a",))])
def test_what_was_not_started_is_not_found(command):
    with pytest.raises(RolloutNotFoundError):
        when([], command)


def test_never_more_than_max_parallel_in_hand():
    assert when([STARTED], advance(("c",), scheduled=2, queued=1, loading=1)) == []
    assert when([STARTED], advance(("c", "d"), scheduled=2, queued=1, failed=1))[0].nodes == ("c",)
    assert when([STARTED], advance(("d",), scheduled=1, queued=1, loading=2)) == []


@pytest.mark.parametrize(
    ("counts", "phase"),
    [
        ({"succeeded": 4}, RolloutPhase.SUCCEEDED),
        ({"skipped": 4}, RolloutPhase.SUCCEEDED),
        ({"succeeded": 3, "failed": 1}, RolloutPhase.COMPLETED_WITH_FAILURES),
        ({"skipped": 3, "timed_out": 1}, RolloutPhase.COMPLETED_WITH_FAILURES),
        ({"succeeded": 1, "canceled": 3}, RolloutPhase.COMPLETED_WITH_FAILURES),
        ({"failed": 2, "timed_out": 2}, RolloutPhase.FAILED),
        ({"canceled": 4}, RolloutPhase.FAILED),
        ({"succeeded": 2, "canceled": 2, "superseded": 2}, RolloutPhase.SUPERSEDED),
        ({"succeeded": 1, "canceled": 2, "failed": 1, "superseded": 2}, RolloutPhase.COMPLETED_WITH_FAILURES),
    ],
)
def test_the_end_says_how_the_nodes_ended(counts, phase):
    assert ends_as([STARTED], advance(**counts)) is phase


def test_a_rollout_of_no_nodes_has_succeeded():
    assert ends_as([STARTED], advance()) is RolloutPhase.SUCCEEDED


def test_an_abort_releases_nothing_more_and_waits_for_what_runs():
    assert when([STARTED], Abort(rollout="r1")) == [AbortRequested(rollout="r1")]
    assert when(ABORTING, Abort(rollout="r1")) == []
    assert when(ABORTING, advance(("c",), scheduled=1, loading=1, succeeded=2)) == []
    (finished,) = when(ABORTING, advance(canceled=1, succeeded=3))
    assert (finished.phase, finished.reason) == (RolloutPhase.ABORTED, Reason.MANUAL)


def test_what_was_aborted_is_aborted_again_without_effect():
    aborted = RolloutFinished(rollout="r1", phase=RolloutPhase.ABORTED)
    assert when([*ABORTING, aborted], Abort(rollout="r1")) == []


@pytest.mark.parametrize("command", [Abort(rollout="r1"), RetryNodes(rollout="r1", nodes=("a",))])
def test_what_has_ended_is_neither_aborted_nor_retried(command):
    with pytest.raises(RolloutFinalError):
        when(ENDED, command)


def test_what_is_being_aborted_is_not_retried():
    with pytest.raises(RolloutFinalError, match="aborted"):
        when(ABORTING, RetryNodes(rollout="r1", nodes=("a",)))


def test_a_retry_names_its_nodes():
    assert when([STARTED], RetryNodes(rollout="r1", nodes=("a",))) == [NodesRetried(rollout="r1", nodes=("a",))]
    assert when([STARTED], RetryNodes(rollout="r1", nodes=())) == []


def test_what_has_ended_does_not_move():
    assert when(ENDED, advance(("a",), scheduled=1)) == []


COUNTS = st.dictionaries(st.sampled_from(Phase), st.integers(0, 20))


@given_any(COUNTS, st.integers(1, 20), st.lists(st.text(), unique=True, max_size=30))
def test_a_fleet_either_ends_or_gets_no_more_than_has_room(counts, max_parallel, ready):
    fleet = Fleet(counts=counts, ready=tuple(ready))
    started = RolloutStarted(
        **{name: getattr(STARTED, name) for name in ("rollout", "action", "module_name", "version", "activation")},
        total=fleet.total,
        named=False,
        strategy=Strategy(max_parallel=max_parallel),
    )
    events = when([started], Advance(rollout="r1", fleet=fleet))
    assert fleet.in_hand + counts.get(Phase.SCHEDULED, 0) + fleet.ended == fleet.total
    assert sum(counts.get(phase, 0) for phase in FINAL_PHASES) == fleet.ended
    assert (fleet.ended == fleet.total) == any(isinstance(each, RolloutFinished) for each in events)
    for event in events:
        if isinstance(event, NodesReleased):
            assert len(event.nodes) + fleet.in_hand <= max_parallel


EVENTS = st.one_of(*(st.builds(kind) for kind in (RolloutStarted, NodesReleased, AbortRequested, RolloutFinished)))


@given_any(st.lists(EVENTS, max_size=10))
def test_events_in_any_order_fold(events):
    assert isinstance(ROLLOUT.fold(events).phase, RolloutPhase)
