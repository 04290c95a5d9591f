"""The rules of one rollout."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st

from rollout.domain.errors import (
    NotGatedError,
    NothingToRetryError,
    NothingToRollBackError,
    RollbackOfRollbackError,
    RolloutFinalError,
    RolloutNotFoundError,
    SecondPersonError,
    WrongPhaseError,
)
from rollout.domain.rollout.commands import (
    Abort,
    Advance,
    Approve,
    Pause,
    Promote,
    Reject,
    Resume,
    RetryNodes,
    RollBackAll,
    Start,
)
from rollout.domain.rollout.decider import ROLLOUT
from rollout.domain.rollout.events import (
    AbortRequested,
    NodesReleased,
    NodesRetried,
    RollbackRequested,
    RollbackStarted,
    RolloutApproved,
    RolloutFinished,
    RolloutPaused,
    RolloutPhase,
    RolloutRejected,
    RolloutResumed,
    RolloutStarted,
    WaveFailed,
    WaveGated,
    WavePassed,
    WaveSoaking,
    WaveStarted,
)
from rollout.domain.rollout.operator_commands import NOTHING_TO_DO_IN
from rollout.domain.rollout.releasable import Ready
from rollout.domain.rollout.snapshot import Needs, Snapshot, WaveCounts
from rollout.domain.rollout.step import wake_at
from rollout.domain.strategy import Gate, OnFailure, Strategy
from rollout.messages import FINAL_PHASES, Action, Activation, Phase, Reason

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def started(*waves, **strategy):
    """Of one wave of four nodes, two at a time, unless told otherwise."""
    sizes = waves or (4,)
    return RolloutStarted(
        rollout="r1",
        action=Action.INSTALL,
        module_name="greet",
        version=1,
        activation=Activation.LOAD,
        total=sum(sizes),
        waves=sizes,
        named=False,
        strategy=Strategy(**{"max_parallel": 2, **strategy}),
    )


STARTED = started()
UNDER_WAY = (STARTED, WaveStarted(rollout="r1", wave=0))
ABORTING = (*UNDER_WAY, AbortRequested(rollout="r1"))
ENDED = (*UNDER_WAY, RolloutFinished(rollout="r1", phase=RolloutPhase.SUCCEEDED))


def when(events, command):
    return ROLLOUT.decide(ROLLOUT.fold(events), command)


def fleet(*waves, ready=(), seconds=0, **more):
    """Waves as counts by phase; `seconds` after the clock was started."""
    counted = [{Phase(name): count for name, count in wave.items()} for wave in waves]
    return Snapshot(
        now=NOW + timedelta(seconds=seconds),
        counts={phase: sum(wave.get(phase, 0) for wave in counted) for phase in Phase},
        waves=tuple(_tally(wave) for wave in counted),
        ready=tuple(Ready(node=node) for node in ready),
        **{"progressed_at": NOW, **more},
    )


def _tally(counts):
    ended = sum(counts.get(phase, 0) for phase in FINAL_PHASES)
    failed = counts.get(Phase.FAILED, 0) + counts.get(Phase.TIMED_OUT, 0)
    return WaveCounts(total=sum(counts.values()), ended=ended, failed=failed)


def advance(*waves, **more):
    return Advance(rollout="r1", snapshot=fleet(*waves, **more))


def names(events):
    return [type(each).__name__ for each in events]


def end_of(events, command):
    return when(events, command)[-1]


def test_it_works():
    assert when([], Start(started=STARTED)) == [STARTED]
    assert when([STARTED], advance({"scheduled": 4}, ready="abc")) == [
        WaveStarted(rollout="r1", wave=0),
        NodesReleased(rollout="r1", nodes=("a", "b")),
    ]
    assert when(UNDER_WAY, advance({"succeeded": 3, "skipped": 1})) == [
        WavePassed(rollout="r1", wave=0),
        RolloutFinished(rollout="r1", phase=RolloutPhase.SUCCEEDED),
    ]


def test_a_start_twice_is_one():
    assert when([STARTED], Start(started=STARTED)) == []


@pytest.mark.parametrize("command", [Abort(rollout="r1"), advance({}), RetryNodes(rollout="r1", nodes=("a",))])
def test_what_was_not_started_is_not_found(command):
    with pytest.raises(RolloutNotFoundError):
        when([], command)


# --- Releases ---------------------------------------------------------------------------------------------------------


def test_never_more_than_max_parallel_in_hand():
    assert when(UNDER_WAY, advance({"scheduled": 2, "queued": 1, "loading": 1}, ready="c")) == []
    assert when(UNDER_WAY, advance({"scheduled": 2, "queued": 1, "succeeded": 1}, ready="cd"))[0].nodes == ("c",)
    assert when(UNDER_WAY, advance({"scheduled": 1, "queued": 1, "loading": 2}, ready="d")) == []


def test_min_healthy_counts_what_is_released_as_unhealthy():
    careful = (started(4, min_healthy=3), *UNDER_WAY[1:])
    assert when(careful, advance({"scheduled": 4}, ready="ab", healthy=4))[0].nodes == ("a",)
    assert when(careful, advance({"scheduled": 3, "queued": 1}, ready="bc", healthy=3)) == []


def test_a_node_that_has_failed_already_costs_no_health():
    careful = (started(4, min_healthy=3, max_failures=2), *UNDER_WAY[1:])
    ready = (Ready(node="a", is_healthy=False), Ready(node="b"))
    command = Advance(rollout="r1", snapshot=replace(fleet({"scheduled": 2, "succeeded": 2}, healthy=3), ready=ready))
    assert when(careful, command)[0].nodes == ("a",)


def test_a_frozen_fleet_releases_nothing():
    assert when([STARTED], advance({"scheduled": 4}, ready="ab", frozen=True)) == []
    assert when(UNDER_WAY, advance({"scheduled": 4}, ready="ab", frozen=True)) == []


def test_it_waits_for_start_at():
    later = started(4, start_at=NOW + timedelta(seconds=60))
    waiting = fleet({"scheduled": 4}, ready="ab")
    assert ROLLOUT.fold([later]).phase is RolloutPhase.SCHEDULED
    assert when([later], Advance(rollout="r1", snapshot=waiting)) == []
    assert wake_at(ROLLOUT.fold([later]), waiting) == NOW + timedelta(seconds=60)
    assert names(when([later], advance({"scheduled": 4}, ready="ab", seconds=60))) == ["WaveStarted", "NodesReleased"]


def test_it_waits_for_the_rollouts_that_it_needs():
    assert when([STARTED], advance({"scheduled": 4}, ready="ab", needs=Needs.PENDING)) == []
    (aborted,) = when([STARTED], advance({"scheduled": 4}, ready="ab", needs=Needs.FAILED))
    assert aborted.reason is Reason.MISSING_DEPENDENCY


# --- Waves ------------------------------------------------------------------------------------------------------------

TWO = (started(1, 3), WaveStarted(rollout="r1", wave=0))


def test_the_next_wave_starts_when_the_one_before_is_through():
    assert when(TWO, advance({"loading": 1}, {"scheduled": 3})) == []
    (passed,) = when(TWO, advance({"succeeded": 1}, {"scheduled": 3}))
    assert passed == WavePassed(rollout="r1", wave=0)
    assert names(when((*TWO, passed), advance({"succeeded": 1}, {"scheduled": 3}, ready="bcd"))) == [
        "WaveStarted",
        "NodesReleased",
    ]


def test_a_wave_soaks_before_it_passes():
    events = (started(1, 3, soak_seconds=30), *TWO[1:])
    (soaking,) = when(events, advance({"succeeded": 1}, {"scheduled": 3}))
    assert soaking == WaveSoaking(rollout="r1", wave=0, until=NOW + timedelta(seconds=30))
    waiting = fleet({"succeeded": 1}, {"scheduled": 3}, seconds=29)
    assert when((*events, soaking), Advance(rollout="r1", snapshot=waiting)) == []
    assert wake_at(ROLLOUT.fold((*events, soaking)), waiting) == NOW + timedelta(seconds=30)
    assert names(when((*events, soaking), advance({"succeeded": 1}, {"scheduled": 3}, seconds=30))) == ["WavePassed"]


def test_the_last_wave_soaks_too():
    assert names(when((started(4, soak_seconds=30), *UNDER_WAY[1:]), advance({"succeeded": 4}))) == ["WaveSoaking"]


def test_a_node_that_is_lost_while_it_soaks_stops_the_rollout():
    events = (started(1, 3, soak_seconds=30), *TWO[1:], WaveSoaking(rollout="r1", wave=0, until=NOW))
    lost = fleet({"succeeded": 1}, {"scheduled": 3})
    lost = replace(lost, waves=(replace(lost.waves[0], lost=1), lost.waves[1]))
    assert names(when(events, Advance(rollout="r1", snapshot=lost))) == ["WaveFailed", "RolloutPaused"]


def test_a_gate_waits_for_a_person():
    events = (started(1, 3, gate=Gate.MANUAL), *TWO[1:])
    current = advance({"succeeded": 1}, {"scheduled": 3}, ready="bcd")
    (gated,) = when(events, current)
    assert gated == WaveGated(rollout="r1", wave=0)
    assert when((*events, gated), current) == []
    (passed,) = when((*events, gated), Promote(rollout="r1"))
    assert names(when((*events, gated, passed), current)) == ["WaveStarted", "NodesReleased"]


def test_there_is_no_gate_after_the_last_wave():
    events = (started(4, gate=Gate.MANUAL), *UNDER_WAY[1:])
    assert names(when(events, advance({"succeeded": 4}))) == ["WavePassed", "RolloutFinished"]


def test_a_gate_is_opened_once():
    events = (started(1, 3, gate=Gate.MANUAL), *TWO[1:], WaveGated(rollout="r1", wave=0))
    passed = (*events, WavePassed(rollout="r1", wave=0))
    assert when(passed, Promote(rollout="r1")) == []
    assert when((*passed, WaveStarted(rollout="r1", wave=1)), Promote(rollout="r1", wave=0)) == []
    with pytest.raises(NotGatedError):
        when((*passed, WaveStarted(rollout="r1", wave=1)), Promote(rollout="r1", wave=1))
    with pytest.raises(NotGatedError):
        when(TWO, Promote(rollout="r1"))


# --- Failures ---------------------------------------------------------------------------------------------------------


def test_one_failure_is_too_many_by_default():
    failed, paused = when(TWO, advance({"failed": 1}, {"scheduled": 3}, ready="b"))
    assert (failed.reason, paused.reason) == (Reason.ERROR_THRESHOLD, Reason.ERROR_THRESHOLD)
    assert paused.message == "1 node failed in wave 0; the limit is 0."


def test_max_failures_is_exceeded_not_reached():
    events = (started(10, max_failures="25%"), *UNDER_WAY[1:])
    assert names(when(events, advance({"failed": 2, "scheduled": 8}, ready="c"))) == ["NodesReleased"]
    assert names(when(events, advance({"failed": 2, "timed_out": 1, "scheduled": 7}, ready="d")))[0] == "WaveFailed"


def test_failures_count_over_all_waves_too():
    events = (started(4, 4, 4, max_failures=1), WaveStarted(rollout="r1", wave=1))
    command = advance({"failed": 1, "succeeded": 3}, {"failed": 1, "scheduled": 3}, {"scheduled": 4}, ready="b")
    assert when(events, command)[0].message == "2 nodes failed in total; the limit is 1."


@pytest.mark.parametrize(
    ("on_failure", "then"),
    [
        (OnFailure.PAUSE, "RolloutPaused"),
        (OnFailure.ABORT, "AbortRequested"),
        (OnFailure.ROLLBACK, "RollbackRequested"),
    ],
)
def test_on_failure_says_what_follows(on_failure, then):
    events = (started(1, 3, on_failure=on_failure), *TWO[1:])
    assert names(when(events, advance({"failed": 1}, {"scheduled": 3}))) == ["WaveFailed", then]


def test_there_is_nothing_to_pause_once_every_node_has_ended():
    _, finished = when(UNDER_WAY, advance({"failed": 1, "succeeded": 3}))
    assert finished.phase is RolloutPhase.COMPLETED_WITH_FAILURES
    assert finished.reason is Reason.ERROR_THRESHOLD


def test_what_is_worth_a_retry_is_retried_before_it_counts():
    command = advance({"failed": 1, "scheduled": 3}, ready="b", retriable=(("a", 1),))
    assert when(UNDER_WAY, command) == [NodesRetried(rollout="r1", nodes=("a",), automatic=True)]


def test_the_lack_of_any_success_stops_it():
    current = {"succeeded": 1, "loading": 1, "scheduled": 2}
    assert when(UNDER_WAY, advance(current, seconds=599)) == []
    failed, paused = when(UNDER_WAY, advance(current, seconds=600))
    assert failed.reason is paused.reason is Reason.PROGRESS_DEADLINE


def test_the_clock_of_the_progress_deadline_stands_while_it_is_paused_gated_or_soaking():
    current = advance({"succeeded": 1}, {"scheduled": 3}, seconds=9999)
    for last in (
        RolloutPaused(rollout="r1", reason=Reason.MANUAL),
        WaveGated(rollout="r1", wave=0),
        WaveSoaking(rollout="r1", wave=0, until=NOW + timedelta(days=1)),
    ):
        assert when((*TWO, last), current) == []


# --- Verbs ------------------------------------------------------------------------------------------------------------


def test_a_paused_rollout_releases_nothing_until_it_is_resumed():
    (paused,) = when(TWO, Pause(rollout="r1"))
    current = advance({"scheduled": 1}, {"scheduled": 3}, ready="a")
    assert when((*TWO, paused), current) == []
    (resumed,) = when((*TWO, paused), Resume(rollout="r1"))
    assert names(when((*TWO, paused, resumed), current)) == ["NodesReleased"]


def test_to_resume_is_to_accept_the_failures_so_far():
    paused = (*TWO, RolloutPaused(rollout="r1", reason=Reason.ERROR_THRESHOLD))
    (resumed,) = when(paused, Resume(rollout="r1", bad=(1, 0)))
    events = (*paused, resumed)
    assert names(when(events, advance({"failed": 1}, {"scheduled": 3}, ready="b"))) == ["WavePassed"]
    later = (*events, WavePassed(rollout="r1", wave=0), WaveStarted(rollout="r1", wave=1))
    assert names(when(later, advance({"failed": 1}, {"failed": 1, "scheduled": 2})))[0] == "WaveFailed"


def test_an_abort_releases_nothing_more_and_waits_for_what_runs():
    assert when(UNDER_WAY, Abort(rollout="r1")) == [AbortRequested(rollout="r1")]
    assert when(ABORTING, advance({"scheduled": 1, "loading": 1, "succeeded": 2}, ready="c")) == []
    finished = end_of(ABORTING, advance({"canceled": 1, "succeeded": 3}))
    assert (finished.phase, finished.reason) == (RolloutPhase.ABORTED, Reason.MANUAL)


def test_a_rejected_rollout_ends_without_having_touched_a_node():
    pending = (started(4, approval=True),)
    assert when(pending, advance({"scheduled": 4}, ready="ab")) == []
    (rejected,) = when(pending, Reject(rollout="r1", remark="not today"))
    finished = end_of((*pending, rejected), advance({"canceled": 4}))
    assert (finished.phase, finished.message) == (RolloutPhase.REJECTED, "not today")


def test_an_approved_rollout_starts():
    pending = (started(4, approval=True),)
    (approved,) = when(pending, Approve(rollout="r1", remark="go", by_another=True))
    assert approved == RolloutApproved(rollout="r1", remark="go")
    assert names(when((*pending, approved), advance({"scheduled": 4}, ready="ab"))) == ["WaveStarted", "NodesReleased"]


ROLLING_BACK = (*UNDER_WAY, RollbackRequested(rollout="r1"))


def test_a_rollback_waits_for_what_runs_and_then_gives_back_what_was_there():
    assert when(UNDER_WAY, RollBackAll(rollout="r1")) == [RollbackRequested(rollout="r1")]
    assert when(ROLLING_BACK, advance({"loading": 1, "succeeded": 2, "scheduled": 1}, ready="d")) == []
    (restoring,) = when(ROLLING_BACK, advance({"succeeded": 3, "canceled": 1}, to_restore=("a", "b", "c")))
    assert restoring == RollbackStarted(rollout="r1", nodes=("a", "b", "c"))
    events = (*ROLLING_BACK, restoring)
    assert when(events, advance({"scheduled": 3, "canceled": 1}, ready="ab"))[0].nodes == ("a", "b")
    assert end_of(events, advance({"rolled_back": 3, "canceled": 1})).phase is RolloutPhase.ROLLED_BACK
    ended = advance({"rolled_back": 2, "failed": 1, "canceled": 1}, unrestored=1)
    assert end_of(events, ended).phase is RolloutPhase.ROLLBACK_FAILED


def test_a_rollback_that_has_nothing_to_give_back_is_over_at_once():
    assert end_of(ROLLING_BACK, advance({"canceled": 4})).phase is RolloutPhase.ROLLED_BACK


def test_a_rollback_never_starts_a_rollback():
    bad = (started(4, on_failure=OnFailure.ROLLBACK), *ROLLING_BACK[1:], RollbackStarted(rollout="r1", nodes=("a",)))
    assert when(bad, advance({"failed": 1, "canceled": 2, "scheduled": 1}, ready="d", unrestored=1)) == [
        NodesReleased(rollout="r1", nodes=("d",))
    ]
    assert when(bad, RollBackAll(rollout="r1")) == []


VERBS = {
    Approve(rollout="r1", remark="x", by_another=True): {"pending_approval"},
    Reject(rollout="r1", remark="x"): {"pending_approval"},
    Pause(rollout="r1"): {"planned", "scheduled", "running"},
    Resume(rollout="r1"): {"paused"},
    Abort(rollout="r1"): {"planned", "pending_approval", "scheduled", "running", "paused"},
    RollBackAll(rollout="r1"): {"running", "paused"},
    RetryNodes(rollout="r1", nodes=("a",)): {"planned", "scheduled", "running", "paused"},
}


@pytest.mark.parametrize("phase", RolloutPhase)
@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_works_does_nothing_or_is_refused(verb, phase):
    state = replace(ROLLOUT.fold([STARTED]), phase=phase)
    does_nothing = phase in NOTHING_TO_DO_IN[type(verb)]
    is_failed_rollback = isinstance(verb, RetryNodes) and phase == "rollback_failed"
    if phase in VERBS[verb] or does_nothing:
        events = ROLLOUT.decide(state, verb)
        assert bool(events) != does_nothing
        assert isinstance(verb, RetryNodes) or ROLLOUT.decide(ROLLOUT.fold(events, state), verb) == []  # twice is once
    else:
        with pytest.raises(RolloutFinalError if phase.is_final and not is_failed_rollback else WrongPhaseError):
            ROLLOUT.decide(state, verb)


def test_a_retry_names_its_nodes():
    assert when(UNDER_WAY, RetryNodes(rollout="r1", nodes=("a",))) == [NodesRetried(rollout="r1", nodes=("a",))]


@pytest.mark.parametrize("events", [UNDER_WAY, ENDED])
def test_a_retry_of_no_node_is_refused(events):
    with pytest.raises(NothingToRetryError):
        when(events, RetryNodes(rollout="r1", nodes=()))


def test_whether_it_may_be_retried_at_all_is_asked_before_which_nodes_have_failed():
    for events in ((*UNDER_WAY, RollbackRequested(rollout="r1")), ABORTING):
        with pytest.raises(WrongPhaseError):
            when(events, RetryNodes(rollout="r1", nodes=()))


@pytest.mark.parametrize("phase", [RolloutPhase.PENDING_APPROVAL, RolloutPhase.RUNNING, RolloutPhase.ABORTED])
def test_nobody_approves_what_they_have_started(phase):
    state = replace(ROLLOUT.fold([STARTED]), phase=phase)
    with pytest.raises(SecondPersonError):
        ROLLOUT.decide(state, Approve(rollout="r1", remark="go", by_another=False))


def test_a_rollback_is_not_rolled_back():
    back = replace(STARTED, rollback_of="r0")
    for phase in RolloutPhase:
        with pytest.raises(RollbackOfRollbackError):
            ROLLOUT.decide(replace(ROLLOUT.fold([back]), phase=phase), RollBackAll(rollout="r1"))


def test_a_rollback_of_nothing_is_not_started():
    with pytest.raises(NothingToRollBackError):
        ROLLOUT.decide(ROLLOUT.initial, Start(started=replace(STARTED, total=0, rollback_of="r0")))


# --- The end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "less", "phase"),
    [
        ({"succeeded": 4}, {}, RolloutPhase.SUCCEEDED),
        ({"skipped": 4}, {}, RolloutPhase.SUCCEEDED),
        ({"succeeded": 3, "failed": 1}, {}, RolloutPhase.COMPLETED_WITH_FAILURES),
        ({"skipped": 3, "timed_out": 1}, {}, RolloutPhase.COMPLETED_WITH_FAILURES),
        ({"succeeded": 1, "canceled": 3}, {}, RolloutPhase.COMPLETED_WITH_FAILURES),
        ({"failed": 2, "timed_out": 2}, {}, RolloutPhase.FAILED),
        ({"canceled": 4}, {}, RolloutPhase.FAILED),
        ({"succeeded": 2, "canceled": 2}, {"superseded": 2}, RolloutPhase.SUPERSEDED),
        ({"succeeded": 1, "canceled": 2, "failed": 1}, {"superseded": 2}, RolloutPhase.COMPLETED_WITH_FAILURES),
        ({"succeeded": 3, "canceled": 1}, {"decommissioned": 1}, RolloutPhase.SUCCEEDED),
        ({"succeeded": 2, "canceled": 2}, {"decommissioned": 1}, RolloutPhase.COMPLETED_WITH_FAILURES),
        ({"succeeded": 2, "failed": 1, "canceled": 1}, {"decommissioned": 1}, RolloutPhase.COMPLETED_WITH_FAILURES),
        ({"failed": 3, "canceled": 1}, {"decommissioned": 1}, RolloutPhase.FAILED),
        ({"canceled": 4}, {"superseded": 2, "decommissioned": 2}, RolloutPhase.SUPERSEDED),
        ({"canceled": 4}, {"decommissioned": 4}, RolloutPhase.ABORTED),
    ],
)
def test_the_end_says_how_the_nodes_ended(counts, less, phase):
    events = (started(4, max_failures="100%"), *UNDER_WAY[1:])
    assert end_of(events, advance(counts, **less)).phase is phase


def test_a_rollout_of_no_nodes_has_succeeded():
    nobody = replace(STARTED, total=0, waves=())
    assert end_of([nobody], advance()).phase is RolloutPhase.SUCCEEDED


def test_what_has_ended_does_not_move():
    assert when(ENDED, advance({"scheduled": 1, "succeeded": 3}, ready="a")) == []


COUNTS = st.fixed_dictionaries({}, optional={phase.value: st.integers(0, 9) for phase in Phase})


@given_any(COUNTS, st.integers(1, 20), st.lists(st.text(), unique=True, max_size=30))
def test_a_fleet_never_gets_more_than_has_room(counts, max_parallel, ready):
    current = fleet(counts, ready=ready)
    begun = (started(current.total, max_parallel=max_parallel, max_failures="100%"), *UNDER_WAY[1:])
    events = when(begun, Advance(rollout="r1", snapshot=current))
    assert (current.ended == current.total) == any(isinstance(each, RolloutFinished) for each in events)
    for event in events:
        if isinstance(event, NodesReleased):
            assert len(event.nodes) + current.in_progress <= max_parallel


KINDS = (
    RolloutStarted,
    NodesReleased,
    AbortRequested,
    RolloutFinished,
    WaveStarted,
    WaveGated,
    WavePassed,
    WaveSoaking,
    WaveFailed,
    RolloutPaused,
    RolloutResumed,
    RolloutRejected,
    RollbackStarted,
)


@given_any(st.lists(st.one_of(*(st.builds(kind) for kind in KINDS)), max_size=10))
def test_events_in_any_order_fold(events):
    assert isinstance(ROLLOUT.fold(events).phase, RolloutPhase)
