"""What people ask of a rollout, and what its strategy does by itself, on the database."""

from datetime import timedelta

import pytest

from accounts import services as accounts
from accounts.roles import Role
from accounts.services import UserChanges
from eventstore import acting_as
from rollout.delivery import ingestion
from rollout.domain.errors import (
    NothingToRollBackError,
    OperationFinalError,
    RollbackOfRollbackError,
    SecondPersonError,
    WrongPhaseError,
)
from rollout.domain.retries import Retries
from rollout.messages import Action, Phase, Reason
from rollout.models import ClusterTarget, Operation, Rollout
from rollout.process import offline_nodes
from rollout.process.advance import advance
from rollout.reconciliation.reconciler import reconcile
from rollout.services.freeze import freeze_fleet, thaw_fleet
from rollout.services.nodes import decommission_node
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import (
    abort_rollout,
    approve_rollout,
    cancel_node,
    pause_rollout,
    promote_rollout,
    reject_rollout,
    resume_rollout,
    retry_rollout,
)
from tests.recorded_fleet import (
    differences,
    fleet,
    heartbeat_of,
    installed,
    inventory,
    join,
    operation,
    phases,
    rollout,
    say,
    silence,
    start,
    state_of,
    upload,
)

pytestmark = pytest.mark.usefixtures("db")

A, B, C = "n0000", "n0001", "n0002"


def waves(uid):
    return [wave["phase"] for wave in rollout(uid).waves]


def turn_back(uid, *names, seconds):
    """So long ago its clock was started."""
    row = rollout(uid)
    assert row.progressed_at
    Rollout.objects.filter(uid=uid).update(progressed_at=row.progressed_at - timedelta(seconds=seconds))


def test_a_canary_goes_first():
    fleet(3)
    uid = start(careful={})
    assert phases(uid) == {A: "queued", B: "scheduled", C: "scheduled"}
    say(uid, A)
    assert phases(uid) == {A: "succeeded", B: "queued", C: "queued"}
    say(uid, B)
    say(uid, C)
    assert (rollout(uid).phase, waves(uid)) == ("succeeded", ["passed", "passed"])
    assert differences() == {}


def test_a_canary_that_fails_pauses_the_rollout_and_no_other_node_is_touched():
    fleet(3)
    uid = start(careful={})
    say(uid, A, Phase.FAILED, reason=Reason.LOAD_FAILED, message="it does not load")
    row = rollout(uid)
    assert (row.phase, row.reason) == ("paused", "error_threshold")
    assert row.message == "1 node failed in wave 0; the limit is 0."
    assert phases(uid) == {A: "failed", B: "scheduled", C: "scheduled"}
    assert waves(uid) == ["failed", "pending"]
    assert differences() == {}


def test_to_resume_accepts_the_failures_so_far():
    fleet(3)
    uid = start(careful={})
    say(uid, A, Phase.FAILED)
    resume_rollout(uid)
    resume_rollout(uid)
    assert phases(uid) == {A: "failed", B: "queued", C: "queued"}
    say(uid, B)
    say(uid, C, Phase.FAILED)
    assert rollout(uid).phase == "completed_with_failures"
    assert differences() == {}


def test_to_retry_and_to_resume_goes_on_from_the_canary():
    fleet(2)
    uid = start(careful={})
    say(uid, A, Phase.FAILED)
    retry_rollout(uid)
    assert (rollout(uid).phase, operation(uid, A).attempt) == ("paused", 2)
    resume_rollout(uid)
    say(uid, A)
    say(uid, B)
    assert rollout(uid).phase == "succeeded"


def test_a_gate_is_opened_by_a_person():
    fleet(3)
    uid = start(careful={"gate": "manual"})
    say(uid, A)
    assert (rollout(uid).phase, waves(uid)) == ("running", ["gated", "pending"])
    promote_rollout(uid)
    promote_rollout(uid, wave=0)
    assert waves(uid) == ["passed", "running"]


def test_a_paused_rollout_lets_run_what_runs():
    fleet(3)
    uid = start(max_parallel=1)
    pause_rollout(uid)
    pause_rollout(uid)
    say(uid, A)
    assert phases(uid) == {A: "succeeded", B: "scheduled", C: "scheduled"}
    assert rollout(uid).reason == "manual"
    resume_rollout(uid)
    assert phases(uid)[B] == "queued"


def test_a_second_person_approves(alice, carol):
    fleet(1)
    with acting_as("user:alice"):
        uid = start(careful={"approval": True})
    assert rollout(uid).phase == "pending_approval"
    with pytest.raises(SecondPersonError):
        approve_rollout(uid, by=alice.uid, remark="fine")
    approve_rollout(uid, by=carol.uid, remark="fine")
    assert phases(uid) == {A: "queued"}


def test_a_person_by_another_name_is_no_second_person(alice, carol):
    fleet(1)
    with acting_as("user:alice"):
        uid = start(careful={"approval": True})
    accounts.update_user(alice.uid, UserChanges(name="alison"), by=None)
    with pytest.raises(SecondPersonError):
        approve_rollout(uid, by=alice.uid, remark="fine")
    accounts.update_user(carol.uid, UserChanges(role=Role.ADMIN), by=None)
    accounts.delete_user(alice.uid, by=None)
    approve_rollout(uid, by=carol.uid, remark="fine")
    assert phases(uid) == {A: "queued"}


def test_who_started_it_has_to_be_known(carol):
    fleet(1)
    with acting_as("user:nobody"):
        uid = start(careful={"approval": True})
    with pytest.raises(SecondPersonError):
        approve_rollout(uid, by=carol.uid, remark="fine")
    reject_rollout(uid, remark="start it again")


def test_a_rejected_rollout_ends_untouched():
    fleet(2)
    uid = start(careful={"approval": True})
    reject_rollout(uid, remark="not on a Friday")
    reject_rollout(uid, remark="not on a Friday")
    row = rollout(uid)
    assert (row.phase, row.message, set(phases(uid).values())) == ("rejected", "not on a Friday", {"canceled"})
    assert differences() == {}


# --- Rollback ---------------------------------------------------------------------------------------------------------


def rolled_out(version, *names, **more):
    uid = start(version=version, **more)
    for name in names:
        say(uid, name)
    return uid


def test_a_rollback_under_way_gives_every_node_back_what_it_had():
    fleet(3)
    upload(version=2, content="c2")
    rolled_out(1, A, B, C)
    uid = start(version=2, max_parallel=1)
    say(uid, A)
    assert roll_back_rollout(uid) == uid
    assert phases(uid) == {A: "succeeded", B: "canceling", C: "canceled"}
    say(uid, B, Phase.CANCELED)
    assert (operation(uid, A).version, operation(uid, A).undoes, operation(uid, A).rollback) == (1, 2, True)
    say(uid, A)
    say(uid, B, Phase.SKIPPED)
    assert phases(uid) == {A: "rolled_back", B: "rolled_back", C: "canceled"}
    assert (rollout(uid).phase, rollout(uid).reason) == ("rolled_back", "manual")
    assert roll_back_rollout(uid) == uid
    assert differences() == {}


def test_a_rollback_by_itself():
    fleet(3)
    uid = start(careful={"on_failure": "rollback", "canary": 2})
    say(uid, A)
    say(uid, B, Phase.FAILED, reason=Reason.PROBE_FAILED)
    assert phases(uid) == {A: "queued", B: "queued", C: "canceled"}
    assert operation(uid, A).action == Action.REMOVE
    say(uid, A)
    say(uid, B, Phase.SKIPPED)
    assert (rollout(uid).phase, rollout(uid).reason) == ("rolled_back", "error_threshold")
    assert state_of(A) is None
    assert differences() == {}


def test_an_ended_rollout_is_rolled_back_by_a_new_one_and_only_once():
    fleet(2)
    upload(version=2, content="c2")
    first = rolled_out(1, A, B)
    second = rolled_out(2, A, B)
    assert ClusterTarget.objects.get().rollout == second
    uid = roll_back_rollout(second)
    assert (uid != second, roll_back_rollout(second)) == (True, uid)
    assert (rollout(uid).phase, rollout(uid).rollback_of) == ("rolling_back", second)
    advance(uid)
    say(uid, A)
    say(uid, B)
    assert rollout(uid).phase == "rolled_back"
    assert (ClusterTarget.objects.get().rollout, ClusterTarget.objects.get().version) == (first, 1)
    with pytest.raises(RollbackOfRollbackError):
        roll_back_rollout(uid)
    assert differences() == {}


def test_a_rollback_that_fails_says_so():
    fleet(2)
    uid = rolled_out(1, A, B)
    back = roll_back_rollout(uid)
    advance(back)
    say(back, A, Phase.FAILED, reason=Reason.UNLOAD_REFUSED)
    say(back, B)
    assert rollout(back).phase == "rollback_failed"
    assert differences() == {}


def test_a_node_that_is_offline_is_to_have_what_it_had_all_the_same():
    fleet(2)
    uid = rolled_out(1, A, B)
    silence(B)
    offline_nodes.declare_silent_nodes_offline()
    back = roll_back_rollout(uid)
    advance(back)
    say(back, A)
    turn_back(back, seconds=601)
    advance(back)
    assert (phases(back), rollout(back).phase) == ({A: "rolled_back", B: "failed"}, "rollback_failed")
    assert operation(back, B).reason == "node_unreachable"
    state = state_of(B)
    assert state
    assert state[::2] == ("load", "error")
    ingestion.record_heartbeats([heartbeat_of(B)])
    reconcile()
    again = Operation.objects.exclude(rollout__in=[uid, back]).get()
    assert (again.node, again.action, again.version) == (B, "remove", 1)


def test_a_rollback_waits_for_a_node_that_is_silent_for_a_while():
    fleet(2)
    uid = rolled_out(1, A, B)
    silence(B)
    offline_nodes.declare_silent_nodes_offline()
    back = roll_back_rollout(uid)
    advance(back)
    say(back, A)
    assert phases(back) == {A: "rolled_back", B: "scheduled"}
    ingestion.record_heartbeats([heartbeat_of(B)])
    advance(back)
    say(back, B)
    assert rollout(back).phase == "rolled_back"


def test_what_something_newer_has_changed_is_left_alone():
    fleet(2)
    upload(version=2, content="c2")
    first = rolled_out(1, A, B)
    rolled_out(2, A, B)
    with pytest.raises(NothingToRollBackError):
        roll_back_rollout(first)


# --- One node, and all of them ----------------------------------------------------------------------------------------


def test_one_node_is_canceled_by_handshake_or_by_force():
    fleet(3)
    uid = start(max_parallel=2)
    cancel_node(uid, C, force=False)
    cancel_node(uid, A, force=False)
    cancel_node(uid, B, force=True)
    assert phases(uid) == {A: "canceling", B: "canceled", C: "canceled"}
    cancel_node(uid, C, force=False)
    say(uid, A)
    with pytest.raises(OperationFinalError):
        cancel_node(uid, A, force=True)
    assert (rollout(uid).phase, rollout(uid).canceled) == ("succeeded", 2)
    assert differences() == {}


@pytest.mark.parametrize("has_left", [False, True])
def test_a_rollout_that_was_canceled_on_all_its_nodes_is_aborted(has_left):
    fleet(2)
    uid = start(max_parallel=1)
    cancel_node(uid, B, force=False)
    if has_left:
        decommission_node(A)
    else:
        cancel_node(uid, A, force=True)
    ended = rollout(uid)
    assert (ended.phase, ended.reason) == ("aborted", "")
    assert ended.message == "A person canceled the rollout on all remaining nodes."
    assert not ClusterTarget.objects.exists()


def test_an_undo_that_was_canceled_by_hand_is_no_failure():
    fleet(2)
    uid = rolled_out(1, A, B)
    back = roll_back_rollout(uid)
    advance(back)
    cancel_node(back, A, force=True)
    say(back, B)
    assert (rollout(back).phase, rollout(back).canceled) == ("rolled_back", 1)
    assert [each["phase"] for each in rollout(back).waves] == ["passed"]


def test_a_rollback_that_was_canceled_on_all_its_nodes_is_aborted():
    fleet(1)
    back = roll_back_rollout(rolled_out(1, A))
    cancel_node(back, A, force=False)
    assert rollout(back).phase == "aborted"


def test_one_under_way_that_gives_nothing_back_has_failed():
    fleet(2)
    uid = start(careful={"canary": 1, "gate": "manual"})
    say(uid, A)
    roll_back_rollout(uid)
    cancel_node(uid, A, force=True)
    assert (rollout(uid).phase, rollout(uid).reason) == ("rollback_failed", "")


def test_an_abort_may_undo_what_runs():
    fleet(3)
    uid = start(max_parallel=2, careful={"canary": 0, "on_abort": "undo"})
    abort_rollout(uid)
    assert phases(uid) == {A: "canceling", B: "canceling", C: "canceled"}
    say(uid, A, Phase.CANCELED)
    say(uid, B)
    assert rollout(uid).phase == "aborted"


def test_a_frozen_fleet_releases_nothing_until_it_is_thawed():
    fleet(2)
    freeze_fleet("the holidays")
    freeze_fleet("the holidays")
    uid = start()
    assert (rollout(uid).phase, set(phases(uid).values())) == ("planned", {"scheduled"})
    thaw_fleet()
    thaw_fleet()
    assert set(phases(uid).values()) == {"queued"}
    assert differences() == {}


# --- What a strategy does by itself -----------------------------------------------------------------------------------


def test_what_is_worth_it_is_tried_again_after_a_while():
    fleet(1)
    uid = start(careful={"retries": Retries(limit=1, backoff_seconds=60, reasons=(Reason.FETCH_FAILED,))})
    say(uid, A, Phase.FAILED, reason=Reason.FETCH_FAILED)
    assert (operation(uid, A).phase, operation(uid, A).attempt) == ("scheduled", 2)
    assert advance(uid) == operation(uid, A).ready_at
    Operation.objects.update(ready_at=operation(uid, A).scheduled_at)
    advance(uid)
    say(uid, A, Phase.FAILED, reason=Reason.FETCH_FAILED)
    assert (rollout(uid).phase, rollout(uid).reason) == ("failed", "error_threshold")


@pytest.mark.parametrize(("offline", "phase"), [("wait", "scheduled"), ("skip", "skipped"), ("fail", "failed")])
def test_offline_says_what_becomes_of_a_node_that_is_offline_when_it_is_its_turn(offline, phase):
    fleet(2)
    silence(B)
    offline_nodes.declare_silent_nodes_offline()
    uid = start(careful={"offline": offline, "canary": 0})
    assert phases(uid) == {A: "queued", B: phase}


def test_a_node_that_is_waited_for_gets_its_turn_when_it_is_back():
    fleet(2)
    silence(B)
    offline_nodes.declare_silent_nodes_offline()
    uid = start(careful={"canary": 0})
    join(B)
    assert phases(uid) == {A: "queued", B: "queued"}


def test_one_dead_node_does_not_hang_it_for_ever():
    fleet(2)
    silence(B)
    offline_nodes.declare_silent_nodes_offline()
    uid = start(careful={"canary": 0})
    say(uid, A)
    turn_back(uid, seconds=601)
    advance(uid)
    assert (rollout(uid).phase, rollout(uid).reason) == ("paused", "progress_deadline")
    resume_rollout(uid)
    assert rollout(uid).phase == "running"  # its clock was started anew


def test_min_healthy_is_kept_by_what_is_released():
    fleet(3)
    uid = start(careful={"canary": 0, "min_healthy": 2})
    assert list(phases(uid).values()).count("queued") == 1
    silence(C)
    offline_nodes.declare_silent_nodes_offline()
    say(uid, A)
    assert phases(uid) == {A: "succeeded", B: "scheduled", C: "scheduled"}
    join(C)
    assert list(phases(uid).values()).count("queued") == 1


def test_a_node_lost_after_its_success_counts_as_failed():
    fleet(3)
    uid = start(careful={"soak_seconds": 60})
    say(uid, A)
    assert waves(uid) == ["soaking", "pending"]
    silence(A)
    offline_nodes.declare_silent_nodes_offline()
    advance(uid)
    assert rollout(uid).message == ("1 node failed in wave 0, 1 of them after a success; the limit is 0.")


def test_what_a_phase_does_not_allow_is_refused_in_words():
    fleet(1)
    uid = start()
    with pytest.raises(WrongPhaseError, match="You cannot reject a rollout that is running"):
        reject_rollout(uid, remark="no")


def test_who_resumes_accepts_what_was_lost_while_it_was_paused():
    fleet(2)
    uid = start(careful={"canary": 1, "soak_seconds": 1000.0})
    say(uid, "n0000", inventory=inventory(installed()))
    pause_rollout(uid)
    silence("n0000")
    offline_nodes.declare_silent_nodes_offline()
    resume_rollout(uid)
    assert rollout(uid).phase == "running"
