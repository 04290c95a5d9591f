"""The rules of one module on one node."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st

from rollout.domain.errors import RolloutInProgressError
from rollout.domain.placement.commands import (
    Cancel,
    End,
    Forget,
    GiveBack,
    RecordReport,
    Release,
    Retry,
    RollBack,
    Schedule,
)
from rollout.domain.placement.decider import PLACEMENT
from rollout.domain.placement.events import (
    OperationCancelRequested,
    OperationFinished,
    OperationGivenBack,
    OperationProgressed,
    OperationReleased,
    OperationReportedLate,
    OperationScheduled,
    PlacementForgotten,
    ReportRejected,
    Target,
)
from rollout.domain.placement.reports import MOST_REJECTED
from rollout.domain.placement.state import PlacementState
from rollout.messages import FINAL_PHASES, REPORTED_PHASES, RUNNING_PHASES, Action, Activation, Phase, Reason, Report


def schedule(rollout="r1", **changes):
    given = {
        "rollout": rollout,
        "node": "n1",
        "module_name": "greet",
        "version": 1,
        "action": Action.INSTALL,
        "activation": Activation.LOAD,
        "content_sha256": "c",
        "ordinal": 0,
    }
    return Schedule(**{**given, **changes})


def release(rollout="r1"):
    return Release(rollout=rollout, node="n1", module_name="greet")


def report(phase, rollout="r1", generation=1, attempt=1, **more):
    if phase == Phase.SCHEDULED:  # only a return has this phase, and a reason
        more = {"reason": Reason.ROLE_CHANGED} | {key: value for key, value in more.items() if value is not None}
    return RecordReport(
        report=Report(
            rollout=rollout,
            node="n1",
            module_name="greet",
            generation=generation,
            attempt=attempt,
            phase=phase,
            **more,
        )
    )


def end(phase, rollout="r1", reason=Reason.MANUAL, attempt=None):
    return End(rollout=rollout, node="n1", module_name="greet", phase=phase, reason=reason, attempt=attempt)


def retry(rollout="r1"):
    return Retry(rollout=rollout, node="n1", module_name="greet")


def cancel(rollout="r1", *, force=False):
    return Cancel(rollout=rollout, node="n1", module_name="greet", force=force)


def roll_back(rollout="r1", into="r1"):
    return RollBack(rollout=rollout, node="n1", module_name="greet", into=into)


def has(version, activation=Activation.LOAD, content="c"):
    return Target(version=version, activation=activation, content_sha256=content)


GIVE_BACK = GiveBack(node="n1", module_name="greet")
FORGET = Forget(node="n1", module_name="greet")
DONE = (schedule(), release(), report(Phase.SUCCEEDED))


@dataclass(frozen=True)
class After:
    """The state after commands, each decided in turn."""

    state: PlacementState

    def when(self, command):
        return PLACEMENT.decide(self.state, command)

    def kinds(self, command):
        return [type(event) for event in self.when(command)]


def given(*commands):
    state = PLACEMENT.initial
    for command in commands:
        state = PLACEMENT.fold(PLACEMENT.decide(state, command), state)
    return After(state)


def phases(events):
    return [(type(each), getattr(each, "rollout", ""), getattr(each, "phase", None)) for each in events]


def test_it_works():
    (scheduled,) = given().when(schedule())
    assert (scheduled.generation, scheduled.attempt, scheduled.behind) == (1, 1, False)
    assert given(schedule()).kinds(release()) == [OperationReleased]
    assert given(schedule(), release()).kinds(report(Phase.FETCHING)) == [OperationProgressed]
    (finished,) = given(schedule(), release()).when(report(Phase.SUCCEEDED, seconds=2.5))
    assert (finished.phase, finished.seconds) == (Phase.SUCCEEDED, 2.5)


def test_each_intent_is_a_new_generation():
    after = given(schedule(), release(), report(Phase.SUCCEEDED))
    assert after.when(schedule("r2"))[0].generation == 2


def test_a_generation_is_above_the_newest_that_the_node_has_journaled():
    assert given().when(schedule(known_generation=41))[0].generation == 42


def test_a_live_operation_refuses_another_rollout_and_names_its_own():
    with pytest.raises(RolloutInProgressError, match="r1"):
        given(schedule()).when(schedule("r2"))


def test_superseding_cancels_what_has_not_started():
    events = given(schedule()).when(schedule("r2", supersede=True))
    assert phases(events) == [
        (OperationFinished, "r1", Phase.CANCELED),
        (OperationScheduled, "r2", None),
    ]
    assert events[0].reason is Reason.NEWER_ROLLOUT
    assert not events[1].behind


def test_superseding_waits_for_what_has_started():
    after = given(schedule(), release(), schedule("r2", supersede=True))
    assert after.state.live.rollout == "r1"
    assert after.when(release("r2")) == []
    after = given(schedule(), release(), schedule("r2", supersede=True), report(Phase.FAILED))
    assert after.state.live.rollout == "r2"
    assert after.kinds(release("r2")) == [OperationReleased]


def test_a_third_one_cancels_the_one_that_waits():
    after = given(schedule(), release(), schedule("r2", supersede=True))
    assert phases(after.when(schedule("r3", supersede=True))) == [
        (OperationFinished, "r2", Phase.CANCELED),
        (OperationScheduled, "r3", None),
    ]


def test_what_waits_is_not_scheduled_again():
    after = given(schedule(), release(), schedule("r2", supersede=True))
    assert after.when(schedule("r2", supersede=True)) == []


def test_a_skipped_operation_ends_at_once_also_behind_a_live_one():
    skip = (Reason.NODE_DRAINING, "draining")
    assert given(schedule(skip=skip)).state.live is None
    after = given(schedule(), release(), schedule("r2", supersede=True, skip=skip))
    assert (after.state.live.rollout, after.state.waiting) == ("r1", None)


def test_what_was_skipped_behind_a_live_one_is_not_scheduled_again():
    command = schedule("r2", supersede=True, skip=(Reason.NODE_DRAINING, "draining"))
    assert given(schedule(), release(), command).when(command) == []


def test_only_what_is_scheduled_is_released():
    assert given(schedule(), release()).when(release()) == []
    assert given(schedule()).when(release("r2")) == []


def test_only_what_is_queued_is_given_back():
    assert given(schedule()).when(GIVE_BACK) == []
    assert given(schedule(), release()).kinds(GIVE_BACK) == [OperationGivenBack]
    assert given(schedule(), release(), report(Phase.FETCHING)).when(GIVE_BACK) == []
    assert given(schedule(), release(), GIVE_BACK).kinds(release()) == [OperationReleased]


def test_what_is_given_back_makes_way_for_the_one_behind():
    after = given(schedule(), release(), schedule("r2", supersede=True))
    assert after.kinds(GIVE_BACK) == [OperationGivenBack, OperationFinished]
    assert given(schedule(), release(), schedule("r2", supersede=True), GIVE_BACK).state.live.rollout == "r2"


def test_a_report_of_what_was_given_back_is_progress():
    after = given(schedule(), release(), GIVE_BACK)
    assert after.kinds(report(Phase.INSTALLING)) == [OperationProgressed]
    assert after.kinds(report(Phase.SUCCEEDED)) == [OperationFinished]


def test_reports_never_take_an_operation_back():
    after = given(schedule(), release(), report(Phase.LOADING))
    assert after.when(report(Phase.FETCHING)) == []
    assert after.when(report(Phase.LOADING)) == []
    assert after.kinds(report(Phase.PROBING)) == [OperationProgressed]


def test_an_answer_to_an_attempt_that_was_given_up_is_ignored():
    after = given(schedule(), release(), report(Phase.FAILED), retry(), release())
    assert after.when(report(Phase.SUCCEEDED, attempt=1)) == []
    assert after.kinds(report(Phase.SUCCEEDED, attempt=2)) == [OperationFinished]


def test_an_answer_to_what_was_never_asked_is_rejected_and_recorded_once():
    assert given(schedule(), release()).kinds(report(Phase.SUCCEEDED, generation=9)) == [ReportRejected]
    unknown = report(Phase.SUCCEEDED, rollout="who", generation=9)
    assert given(schedule()).kinds(unknown) == [ReportRejected]
    assert given(schedule(), unknown).when(unknown) == []


def test_a_report_of_what_was_never_heard_of_begins_no_stream():
    assert given().when(report(Phase.SUCCEEDED, rollout="who", generation=9)) == []


def test_settling_comes_after_the_probe():
    after = given(schedule(), release(), report(Phase.SETTLING))
    assert after.state.live.phase is Phase.SETTLING
    assert after.when(report(Phase.PROBING)) == []
    (finished,) = after.when(report(Phase.SUCCEEDED, swap_seconds=0.004))
    assert finished.swap_seconds == 0.004


def test_what_happens_in_a_phase_is_recorded_once():
    after = given(schedule(), release(), report(Phase.LOADING))
    hangs = report(Phase.LOADING, reason=Reason.SERVER_HANGS, message="10 s")
    (progressed,) = after.when(hangs)
    assert (progressed.phase, progressed.reason, progressed.message) == (Phase.LOADING, Reason.SERVER_HANGS, "10 s")
    noted = given(schedule(), release(), report(Phase.LOADING), hangs)
    assert noted.when(hangs) == []
    assert noted.kinds(report(Phase.LOADING, reason=Reason.SERVER_RESTARTED)) == [OperationProgressed]
    assert noted.when(report(Phase.LOADING, reason=Reason.LOAD_FAILED)) == []
    (later,) = noted.when(report(Phase.PROBING, reason=Reason.SERVER_HANGS))
    assert (later.phase, later.reason) == (Phase.PROBING, None)


def test_an_earlier_phase_may_still_say_what_happened():
    """After a restart the module is loaded again. The operation never moves back."""
    after = given(schedule(), release(), report(Phase.SETTLING))
    (progressed,) = after.when(report(Phase.LOADING, reason=Reason.SERVER_HANGS))
    assert progressed.phase is Phase.SETTLING


def test_a_canceled_operation_keeps_its_phase():
    after = given(schedule(), release(), report(Phase.LOADING), cancel())
    assert after.when(report(Phase.LOADING, reason=Reason.SERVER_HANGS)) == []


def test_another_attempt_notes_again():
    hangs = report(Phase.LOADING, reason=Reason.SERVER_HANGS)
    again = given(schedule(), release(), hangs, report(Phase.FAILED), retry(), release())
    assert again.kinds(report(Phase.LOADING, attempt=2, reason=Reason.SERVER_HANGS)) == [OperationProgressed]


def test_final_is_final_and_what_comes_later_stands_beside_it():
    after = given(schedule(), release(), end(Phase.TIMED_OUT, reason=Reason.NODE_DEADLINE))
    assert after.kinds(report(Phase.SUCCEEDED)) == [OperationReportedLate]
    assert after.when(report(Phase.PROBING)) == []
    late = given(schedule(), release(), end(Phase.TIMED_OUT), report(Phase.SUCCEEDED))
    assert late.state.ended.phase is Phase.TIMED_OUT
    assert late.when(report(Phase.SUCCEEDED)) == []


def test_canceling_takes_only_what_is_scheduled():
    assert given(schedule()).kinds(end(Phase.CANCELED)) == [OperationFinished]
    assert given(schedule(), release()).when(end(Phase.CANCELED)) == []
    after = given(schedule(), release(), schedule("r2", supersede=True))
    assert after.kinds(end(Phase.CANCELED, "r2")) == [OperationFinished]


def test_timing_out_takes_only_what_is_in_hand_and_the_same_attempt():
    assert given(schedule()).when(end(Phase.TIMED_OUT)) == []
    assert given(schedule(), release()).kinds(end(Phase.TIMED_OUT, attempt=1)) == [OperationFinished]
    again = given(schedule(), release(), report(Phase.FAILED), retry(), release())
    assert again.when(end(Phase.TIMED_OUT, attempt=1)) == []


def test_a_retry_keeps_the_generation_and_raises_the_attempt():
    (scheduled,) = given(schedule(), release(), report(Phase.FAILED)).when(retry())
    assert (scheduled.generation, scheduled.attempt) == (1, 2)


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.SKIPPED, Phase.CANCELED])
def test_what_did_not_fail_is_not_retried(phase):
    canceled = (cancel(),) if phase == Phase.CANCELED else ()
    assert given(schedule(), release(), *canceled, report(phase)).when(retry()) == []


def test_a_retry_twice_is_one():
    assert given(schedule(), release(), report(Phase.FAILED), retry()).when(retry()) == []


def test_a_retry_waits_for_no_other_rollout():
    after = given(schedule(), release(), report(Phase.FAILED), schedule("r2"))
    with pytest.raises(RolloutInProgressError, match="r2"):
        after.when(retry())


def test_an_automatic_retry_may_wait():
    after = given(schedule(), release(), report(Phase.FAILED))
    (scheduled,) = after.when(Retry(rollout="r1", node="n1", module_name="greet", delay_seconds=5.0))
    assert (scheduled.attempt, scheduled.delay_seconds) == (2, 5.0)


# --- What yields ------------------------------------------------------------------------------------------------------

OWN = schedule("own", yields=True)


def test_a_person_takes_the_place_of_what_yields():
    assert phases(given(OWN).when(schedule())) == [
        (OperationFinished, "own", Phase.CANCELED),
        (OperationScheduled, "r1", None),
    ]
    after = given(OWN, release("own"), schedule())
    assert (after.state.live.rollout, after.state.waiting.rollout) == ("own", "r1")


def test_what_yields_takes_the_place_of_nothing():
    for live in (schedule(), schedule("other", yields=True)):
        with pytest.raises(RolloutInProgressError):
            given(live).when(OWN)


def test_a_second_person_meets_the_first_behind_what_yields():
    with pytest.raises(RolloutInProgressError, match="r1"):
        given(OWN, release("own"), schedule()).when(schedule("r2"))


def test_what_yields_keeps_no_other_node_from_being_tried_again():
    assert given(schedule(), release(), report(Phase.FAILED), OWN).when(retry()) == []


def test_what_yields_and_was_not_released_keeps_nothing_from_being_rolled_back():
    assert phases(given(*DONE, OWN).when(roll_back())) == [
        (OperationFinished, "own", Phase.CANCELED),
        (OperationScheduled, "r1", None),
    ]
    assert given(*DONE, OWN, release("own")).when(roll_back()) == []


# --- To cancel --------------------------------------------------------------------------------------------------------


def test_what_is_scheduled_is_canceled_at_once():
    assert phases(given(schedule()).when(cancel())) == [(OperationFinished, "r1", Phase.CANCELED)]


def test_what_is_in_hand_is_asked_to_give_up_once():
    after = given(schedule(), release())
    assert after.kinds(cancel()) == [OperationCancelRequested]
    assert given(schedule(), release(), cancel()).when(cancel()) == []
    assert given(schedule(), release(), cancel(), report(Phase.LOADING)).state.live.phase is Phase.CANCELING


@pytest.mark.parametrize("phase", [Phase.CANCELED, Phase.SUCCEEDED, Phase.FAILED])
def test_the_node_says_how_it_ended(phase):
    after = given(schedule(), release(), cancel(), report(phase))
    assert (after.state.live, after.state.ended.phase) == (None, phase)


def test_with_force_nobody_waits_for_the_node():
    (finished,) = given(schedule(), release(), report(Phase.LOADING), cancel()).when(cancel(force=True))
    assert (finished.phase, finished.reason) == (Phase.CANCELED, Reason.MANUAL)
    assert "canceling" in finished.message


def test_what_has_ended_is_not_canceled():
    assert given(schedule(), release(), report(Phase.SUCCEEDED)).when(cancel(force=True)) == []


# --- What is to be there, and to give it back -------------------------------------------------------------------------


def after_success(*schedules):
    commands = [
        each
        for number, given_ in enumerate(schedules, start=1)
        for each in (given_, release(given_.rollout), report(Phase.SUCCEEDED, given_.rollout, number))
    ]
    return given(*commands)


def test_a_release_changes_what_the_node_is_to_have():
    assert given(schedule()).state.desired == ()
    assert given(schedule(), release()).state.desired == (has(1),)


@pytest.mark.parametrize(
    "ending",
    [
        report(Phase.FAILED),
        report(Phase.CANCELED),
        end(Phase.TIMED_OUT),
        cancel(force=True),
        end(Phase.CANCELED, reason=Reason.NODE_DECOMMISSIONED),
    ],
)
def test_what_ends_without_success_withdraws_its_intent(ending):
    assert given(schedule(), release(), ending).state.desired == ()
    assert given(*DONE, schedule("r2", version=2), release("r2"), _of("r2", ending)).state.desired == (has(1),)


def _of(rollout, command):
    """The same about the second operation."""
    if isinstance(command, RecordReport):
        return RecordReport(report=replace(command.report, rollout=rollout, generation=2))
    return replace(command, rollout=rollout)


def test_what_the_control_plane_skips_withdraws_its_intent_and_what_the_node_skips_does_not():
    offline = end(Phase.SKIPPED, reason=Reason.NODE_UNREACHABLE)
    assert given(schedule(), release(), GIVE_BACK, offline).state.desired == ()
    assert given(schedule(), release(), GIVE_BACK, offline).state.undone
    there = given(schedule(), release(), report(Phase.SKIPPED, reason=Reason.ALREADY_INSTALLED))
    assert (there.state.desired, there.state.had) == ((has(1),), (has(1),))


def test_a_retry_makes_it_desired_again_when_it_is_released():
    failed = (schedule(), release(), report(Phase.FAILED))
    assert given(*failed, retry()).state.desired == ()
    assert given(*failed, retry(), release()).state.desired == (has(1),)
    assert given(*failed, retry(), release(), report(Phase.FAILED, attempt=2)).state.desired == ()


def test_one_version_is_loaded_at_a_time():
    after = after_success(schedule(), schedule("r2", version=2))
    assert after.state.desired == (has(1, Activation.FILES), has(2))


def test_files_in_place_unload_nothing():
    assert after_success(schedule(), schedule("r2", activation=Activation.FILES)).state.desired == (has(1),)


def test_a_removal_takes_one_version_away():
    after = after_success(schedule(), schedule("r2", version=2), schedule("r3", version=2, action=Action.REMOVE))
    assert after.state.desired == (has(1, Activation.FILES),)


def timed_out(rollout, version, generation):
    return schedule(rollout, version=version), release(rollout), end(Phase.TIMED_OUT, rollout, Reason.NODE_DEADLINE)


def restored(after, rollout):
    """The version that a rollback brings back, None if it removes."""
    scheduled = after.when(roll_back(rollout, rollout))[-1]
    return scheduled.version if scheduled.action == Action.INSTALL else None


def test_a_rollback_brings_back_no_version_that_never_worked():
    failed = (schedule(), release(), report(Phase.FAILED))
    second = (schedule("r2", version=2), release("r2"), report(Phase.SUCCEEDED, "r2", 2))
    after = given(*failed, *second)
    (scheduled,) = after.when(roll_back("r2", "r3"))
    assert (scheduled.action, scheduled.version, scheduled.undoes) == (Action.REMOVE, 2, 2)


@pytest.mark.parametrize(
    "ending", [report(Phase.FAILED, "r2", 2), end(Phase.TIMED_OUT, "r2"), cancel("r2", force=True)]
)
def test_a_rollback_brings_back_the_last_success(ending):
    undone = (schedule("r2", version=2), release("r2"), ending)
    third = (schedule("r3", version=3), release("r3"), report(Phase.SUCCEEDED, "r3", 3))
    after = given(*DONE, *undone, *third)
    assert restored(after, "r3") == 1
    assert after.state.changed.before == (has(1),)


def test_a_rollback_brings_back_what_the_inventory_showed_where_nothing_had_succeeded():
    seen = (has(7), has(8, Activation.FILES))
    command = replace(release(), inventory=seen)
    (released,) = given(schedule()).when(command)
    assert released.before == seen
    after = given(schedule(), command, report(Phase.SUCCEEDED))
    assert after.state.desired == (has(1), has(7, Activation.FILES), has(8, Activation.FILES))
    (scheduled,) = after.when(roll_back())
    back = PLACEMENT.fold([scheduled], after.state)
    assert PLACEMENT.fold(PLACEMENT.decide(back, release()), back).desired == seen
    assert given(schedule(), command, report(Phase.FAILED)).state.desired == ()


def test_the_inventory_counts_for_nothing_once_something_has_succeeded():
    command = replace(release("r2"), inventory=(has(7),))
    (released,) = given(*DONE, schedule("r2", version=2)).when(command)
    assert released.before == (has(1),)


def test_events_of_before_the_inventory_was_recorded_read_as_what_was_desired():
    after = given(schedule())
    old = OperationReleased(
        rollout="r1",
        node="n1",
        module_name="greet",
        version=1,
        action=Action.INSTALL,
        activation=Activation.LOAD,
        content_sha256="c",
    )
    live = PLACEMENT.evolve(after.state, old).live
    assert live
    assert live.before == ()


def test_a_late_success_is_desired_after_all_and_is_what_the_node_had():
    late = report(Phase.SUCCEEDED, "r2", 2)
    after = given(*DONE, *timed_out("r2", 2, 2), late)
    assert after.state.ended.phase is Phase.TIMED_OUT
    assert (after.state.desired, after.state.undone, after.state.failed) == (
        (has(1, Activation.FILES), has(2)),
        False,
        None,
    )
    third = (schedule("r3", version=3), release("r3"), report(Phase.SUCCEEDED, "r3", 3))
    assert restored(given(*DONE, *timed_out("r2", 2, 2), late, *third), "r3") == 2


def test_a_late_success_counts_also_while_the_next_operation_is_under_way():
    late = report(Phase.SUCCEEDED, "r2", 2)
    after = given(*DONE, *timed_out("r2", 2, 2), schedule("r3", version=3), release("r3"), late)
    assert after.state.desired == (has(1, Activation.FILES), has(2, Activation.FILES), has(3))
    done = PLACEMENT.fold(PLACEMENT.decide(after.state, report(Phase.SUCCEEDED, "r3", 3)), after.state)
    assert restored(After(done), "r3") == 2


def test_a_retry_that_fails_after_a_late_success_leaves_what_is_there():
    after = given(*timed_out("r1", 1, 1), report(Phase.SUCCEEDED), retry(), release(), report(Phase.FAILED, attempt=2))
    assert (after.state.desired, after.state.failed) == ((has(1),), 1)
    assert after.state.changed.before == ()


def test_a_late_success_of_what_a_person_canceled_is_not_desired():
    late = report(Phase.SUCCEEDED, "r2", 2)
    after = given(*DONE, schedule("r2", version=2), release("r2"), cancel("r2", force=True), late)
    assert after.state.desired == (has(1),)
    assert after.state.had == (has(1, Activation.FILES), has(2))


def test_a_late_success_behind_one_that_was_never_released_is_recorded():
    after = given(*timed_out("r1", 1, 1), schedule("r2", version=2), end(Phase.CANCELED, "r2"))
    assert after.kinds(report(Phase.SUCCEEDED)) == [OperationReportedLate]


def test_a_failure_is_shown_until_something_newer_that_was_released_has_ended():
    failed = (schedule(), release(), report(Phase.FAILED))
    assert given(*failed).state.failed == 1
    assert given(*failed, schedule("r2", version=2), end(Phase.CANCELED, "r2")).state.failed == 1
    assert given(*failed, schedule("r2", version=2), release("r2"), report(Phase.FAILED, "r2", 2)).state.failed == 2
    assert (
        given(*failed, schedule("r2", version=2), release("r2"), report(Phase.SUCCEEDED, "r2", 2)).state.failed is None
    )


def test_of_a_node_that_left_nothing_is_known_any_more():
    after = given(*DONE, FORGET)
    assert (after.state.desired, after.state.had, after.state.changed, after.state.generation) == ((), None, None, 1)
    assert after.when(FORGET) == []
    assert given(schedule()).when(FORGET) == []


FORMER = [
    ([schedule()], (Action.REMOVE, 1, 1)),
    ([schedule(), schedule("r2", version=2)], (Action.INSTALL, 1, 2)),
    ([schedule(activation=Activation.FILES), schedule("r2", version=2)], (Action.REMOVE, 2, 2)),
    ([schedule(activation=Activation.FILES), schedule("r2")], (Action.INSTALL, 1, 1)),
    ([schedule(), schedule("r2", content_sha256="d")], (Action.INSTALL, 1, None)),
    ([schedule(), schedule("r2", action=Action.REMOVE)], (Action.INSTALL, 1, None)),
    (
        [schedule(version=2, activation=Activation.FILES), schedule("r2"), schedule("r3", version=2)],
        (Action.INSTALL, 1, None),
    ),
]


@pytest.mark.parametrize(("schedules", "expected"), FORMER)
def test_a_rollback_gives_back_what_the_node_was_to_have_before(schedules, expected):
    after = after_success(*schedules)
    before = after_success(*schedules[:-1]).state.desired
    last = schedules[-1].rollout
    (scheduled,) = after.when(roll_back(last, last))
    assert (scheduled.action, scheduled.version, scheduled.undoes) == expected
    assert scheduled.rollback
    state = PLACEMENT.fold([scheduled], after.state)
    assert PLACEMENT.fold(PLACEMENT.decide(state, release(last)), state).desired == before


def test_what_failed_is_given_back_too_and_after_a_retry_what_was_there_first():
    first = after_success(schedule()).state
    for command in (
        schedule("r2", version=2),
        release("r2"),
        report(Phase.FAILED, "r2", 2),
        retry("r2"),
        release("r2"),
    ):
        first = PLACEMENT.fold(PLACEMENT.decide(first, command), first)
    first = PLACEMENT.fold(PLACEMENT.decide(first, end(Phase.TIMED_OUT, "r2")), first)
    (scheduled,) = PLACEMENT.decide(first, roll_back("r2", "r2"))
    assert isinstance(scheduled, OperationScheduled)
    assert (scheduled.version, scheduled.undoes) == (1, 2)


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.SKIPPED])
def test_what_was_given_back_is_rolled_back(phase):
    after = given(schedule(), release(), report(Phase.SUCCEEDED), roll_back(), release(), report(phase, generation=2))
    assert after.state.ended.phase is Phase.ROLLED_BACK
    assert after.when(report(phase, generation=2)) == []
    assert after.when(report(Phase.SUCCEEDED)) == []


def test_nothing_is_taken_back_twice_nor_what_was_never_released_nor_what_something_newer_has_changed():
    done = (schedule(), release(), report(Phase.SUCCEEDED))
    assert given(*done, roll_back(), release(), report(Phase.SUCCEEDED, generation=2)).when(roll_back()) == []
    assert given(schedule(), end(Phase.CANCELED)).when(roll_back()) == []
    assert given(*done, schedule("r2", version=2)).when(roll_back()) == []
    newer = (schedule("r2", version=2), release("r2"))
    assert given(*done, *newer, report(Phase.SUCCEEDED, "r2", 2)).when(roll_back()) == []
    assert given(*done, *newer, end(Phase.TIMED_OUT, "r2")).when(roll_back()) == []  # it may still come
    assert given(*done, *newer, end(Phase.TIMED_OUT, "r2"), report(Phase.FAILED, "r2", 2)).when(roll_back()) != []
    assert given(*done, *newer, report(Phase.FAILED, "r2", 2)).when(roll_back()) != []
    again = (schedule("r2"), release("r2"), report(Phase.SUCCEEDED, "r2", 2))
    assert given(*done, *again).when(roll_back()) != []  # which has changed nothing
    assert given(*done, schedule("r2"), end(Phase.CANCELED, "r2")).when(roll_back()) != []


# --- Whatever comes ---------------------------------------------------------------------------------------------------

ROLLOUTS = st.sampled_from(["r1", "r2", "r3"])
SMALL = st.integers(0, 4)
COMMANDS = st.one_of(
    st.builds(
        schedule,
        ROLLOUTS,
        supersede=st.booleans(),
        yields=st.booleans(),
        known_generation=SMALL,
        skip=st.sampled_from([None, (Reason.NODE_DRAINING, "")]),
    ),
    st.builds(release, ROLLOUTS),
    st.just(GIVE_BACK),
    st.just(FORGET),
    st.builds(report, st.sampled_from(Phase), ROLLOUTS, SMALL, SMALL),
    st.builds(end, st.sampled_from([Phase.CANCELED, Phase.FAILED, Phase.TIMED_OUT]), ROLLOUTS),
    st.builds(retry, ROLLOUTS),
    st.builds(cancel, ROLLOUTS, force=st.booleans()),
    st.builds(roll_back, ROLLOUTS, ROLLOUTS),
)


def _decide(state, command):
    try:
        return PLACEMENT.decide(state, command)
    except RolloutInProgressError:
        return []


@given_any(st.lists(COMMANDS, max_size=40))
def test_at_most_one_is_live_generations_grow_and_a_repetition_does_nothing(commands):
    state, generation = PLACEMENT.initial, 0
    in_hand: set[str] = set()
    for command in commands:
        events = _decide(state, command)
        for event in events:
            if isinstance(event, OperationScheduled):
                assert event.generation > generation or (event.generation == generation and event.attempt > 1)
                generation = event.generation
            if isinstance(event, OperationReleased):
                assert not in_hand, "two operations in hand on one placement"
                in_hand.add(event.rollout)
            if isinstance(event, OperationFinished | OperationGivenBack):
                in_hand.discard(event.rollout)
            state = PLACEMENT.evolve(state, event)
        assert _decide(state, command) == [], "said twice, done twice"
        assert state.waiting is None or (state.live and state.live.phase is not Phase.SCHEDULED)


EVENTS = st.one_of(
    st.builds(OperationScheduled, rollout=ROLLOUTS, generation=SMALL, attempt=SMALL),
    st.builds(OperationReleased, rollout=ROLLOUTS),
    st.builds(OperationGivenBack, rollout=ROLLOUTS),
    st.builds(OperationProgressed, rollout=ROLLOUTS),
    st.builds(OperationFinished, rollout=ROLLOUTS, seconds=st.none()),
    st.builds(OperationReportedLate, rollout=ROLLOUTS),
    st.builds(OperationCancelRequested, rollout=ROLLOUTS),
    st.builds(PlacementForgotten),
    st.builds(ReportRejected, rollout=ROLLOUTS),
)


@given_any(st.lists(EVENTS, max_size=20))
def test_events_in_any_order_fold(events):
    state = PLACEMENT.fold(events)
    assert replace(state, generation=0).generation == 0


@pytest.mark.parametrize("phase", sorted(set(Phase) - REPORTED_PHASES))
def test_what_only_the_control_plane_decides_is_no_report(phase):
    after = given(schedule(), release())
    assert after.kinds(report(phase)) == [ReportRejected]
    assert given(schedule(), release(), report(phase)).kinds(cancel()) == [OperationCancelRequested]
    assert given(*DONE).kinds(report(phase)) == [ReportRejected]


@pytest.mark.parametrize("phase", sorted(REPORTED_PHASES))
def test_an_operation_that_was_not_released_has_no_report(phase):
    """The uid, the generation and the attempt of a rollback are known before it begins."""
    assert given(schedule()).kinds(report(phase)) == [ReportRejected]
    undone = (*DONE, roll_back())
    assert given(*undone).kinds(report(phase, generation=2)) == [ReportRejected]
    assert given(*undone, release()).kinds(report(phase, generation=2)) != [ReportRejected]


# --- A node that says anything ----------------------------------------------------------------------------------------

REPORTS = st.lists(
    st.builds(
        report,
        st.sampled_from(Phase),
        st.sampled_from(["r1", "r2", "stranger"]),
        SMALL,
        SMALL,
        reason=st.sampled_from([None, Reason.ALREADY_INSTALLED, Reason.INCOMPATIBLE_OS, Reason.LOAD_FAILED]),
    ),
    max_size=120,
)
TIMED_OUT = (schedule(), release(), end(Phase.TIMED_OUT))
#: Operations about which the node may say something: what has ended last, and what is live.
BEFORE = st.sampled_from([TIMED_OUT, (*TIMED_OUT, schedule("r2")), (*TIMED_OUT, schedule("r2"), release("r2"))])
#: What it may say of one: its progress, its end, and each other end late; to skip it is a success, or is none.
MOST_OF_ONE = len(RUNNING_PHASES) + 1 + len(FINAL_PHASES)


def told(state, commands):
    """The state after the reports, and their events."""
    events: list[object] = []
    for command in commands:
        events += (new := PLACEMENT.decide(state, command))
        state = PLACEMENT.fold(new, state)
    return state, events


@given_any(BEFORE, REPORTS)
def test_what_a_node_says_between_two_operations_is_bounded(before, reports):
    _, events = told(given(*before).state, [*reports, *reports])
    assert len(events) <= MOST_REJECTED + 2 * MOST_OF_ONE
    assert len([each for each in events if isinstance(each, ReportRejected)]) <= MOST_REJECTED


@given_any(st.sampled_from([report(Phase.SUCCEEDED), report(Phase.SKIPPED, reason=Reason.ALREADY_INSTALLED)]), REPORTS)
def test_a_late_success_is_known_whatever_was_said_before(success, reports):
    state, _ = told(given(*TIMED_OUT).state, [*reports, success])
    assert state.changed.succeeded
    assert state.had == state.desired == (has(1),)


@given_any(REPORTS)
def test_the_answer_of_an_operation_at_work_is_known_whatever_was_said_before(reports):
    state, _ = told(given(schedule(), release()).state, [*reports, report(Phase.SUCCEEDED)])
    assert state.had == (has(1),)


@given_any(REPORTS)
def test_what_a_person_canceled_is_known_to_be_there_whatever_was_said_before(reports):
    before = given(schedule(), release(), cancel(force=True)).state
    state, _ = told(before, [*reports, report(Phase.SUCCEEDED)])
    assert (state.had, state.desired) == ((has(1),), ())
