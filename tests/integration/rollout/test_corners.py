"""Corners of a rollout in which two things come together."""

from datetime import timedelta

import pytest

from eventstore import database_now, load_state
from rollout.delivery import ingestion
from rollout.domain.errors import WrongPhaseError
from rollout.domain.request import RolloutRequest
from rollout.domain.retries import Retries
from rollout.domain.rollout.decider import ROLLOUT
from rollout.domain.rollout.events import rollout_stream
from rollout.domain.rollout.step import step
from rollout.domain.strategy import Strategy
from rollout.messages import Action, Phase, Reason
from rollout.models import Operation, Rollout
from rollout.process import offline_nodes, timeouts
from rollout.process.advance import advance
from rollout.queries import snapshot
from rollout.queries.freeze import freeze_document
from rollout.reconciliation.reconciler import reconcile
from rollout.services.freeze import freeze_fleet
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import abort_rollout, cancel_node, pause_rollout, promote_rollout, retry_rollout
from rollout.services.start import start_rollout
from tests.recorded_fleet import (
    fleet,
    heartbeat_of,
    installed,
    inventory,
    join,
    operation,
    overdue,
    phases,
    rollout,
    say,
    silence,
    start,
    upload,
)
from tests.recorded_modules import load_on, package

pytestmark = pytest.mark.usefixtures("db")

A, B, C = "n0000", "n0001", "n0002"


def rolled_out(version, *names, **more):
    uid = start(version=version, **more)
    for name in names:
        say(uid, name, inventory=inventory(installed(version, f"c{version}")))
    return uid


def own():
    return list(Rollout.objects.filter(origin="reconciler").values_list("uid", flat=True))


def turn_back(uid, seconds):
    row = rollout(uid)
    assert row.progressed_at
    Rollout.objects.filter(uid=uid).update(progressed_at=row.progressed_at - timedelta(seconds=seconds))


def test_a_node_that_had_it_at_its_second_attempt_is_rolled_back_too():
    fleet(2)
    upload(version=2, content="c2")
    rolled_out(1, A, B)
    uid = start(version=2)
    say(uid, A, Phase.FAILED, reason=Reason.NODE_DEADLINE)  # it goes on all the same, and has it in the end
    retry_rollout(uid)
    say(uid, A, Phase.SKIPPED, reason=Reason.ALREADY_INSTALLED)
    roll_back_rollout(uid)
    say(uid, B, Phase.CANCELED)
    assert (operation(uid, A).rollback, operation(uid, A).version) == (True, 1)


def test_the_rollback_of_a_canary_is_not_kept_from_it_by_min_healthy():
    fleet(3)
    uid = start(careful={"min_healthy": 2, "gate": "manual"})
    say(uid, A)
    abort_rollout(uid)
    assert rollout(uid).phase == "aborted"
    back = roll_back_rollout(uid)
    advance(back)
    assert phases(back) == {A: "queued"}


def test_a_late_success_in_a_paused_rollout_does_not_end_it_without_its_soak():
    fleet(1)
    uid = start(careful={"soak_seconds": 60})
    turn_back(uid, 601)
    advance(uid)
    assert rollout(uid).reason == "progress_deadline"
    say(uid, A)
    assert rollout(uid).phase == "paused"


def test_a_wave_of_a_rollout_that_succeeded_while_paused_is_not_canceled():
    fleet(1)
    uid = start(careful={})
    turn_back(uid, 601)
    advance(uid)
    say(uid, A)
    assert (rollout(uid).phase, rollout(uid).waves[0]["phase"]) == ("succeeded", "passed")


def test_what_ends_while_it_is_paused_ends_with_the_reason():
    fleet(2)
    uid = start(careful={"canary": 0})
    say(uid, A, Phase.FAILED)
    assert rollout(uid).reason == "error_threshold"
    say(uid, B)
    assert (rollout(uid).phase, rollout(uid).reason) == ("completed_with_failures", "error_threshold")


def test_a_retry_during_the_soak_has_a_progress_deadline():
    fleet(3)
    uid = start(careful={"canary": 2, "max_failures": 1, "soak_seconds": 60})
    say(uid, A)
    say(uid, B, Phase.FAILED)
    retry_rollout(uid)
    silence(B)
    offline_nodes.declare_silent_nodes_offline()
    assert (rollout(uid).waves[0]["phase"], phases(uid)[B]) == ("soaking", "scheduled")
    later = database_now() + timedelta(days=2)  # long after the soak: B never comes back
    state = load_state(rollout_stream(uid), ROLLOUT).state
    seen = snapshot.snapshot_of(uid, state, now=later)
    assert state.started
    assert step(state, state.started, seen).events


def test_the_reconciler_releases_nothing_of_a_rollout_that_is_paused():
    fleet(3)
    uid = start(careful={"retries": Retries(limit=0)})
    say(uid, A, Phase.FAILED, reason=Reason.SERVER_UNREACHABLE)
    assert rollout(uid).phase == "paused"
    join(A)
    reconcile()
    assert not Rollout.objects.filter(origin="reconciler").exists()


def test_a_rollout_whose_rest_is_superseded_at_its_gate_ends():
    fleet(3)
    upload(version=2, content="c2")
    uid = start(careful={"gate": "manual"})
    say(uid, A)
    start(version=2, supersede=True)
    advance(uid)
    assert set(phases(uid).values()) == {"succeeded", "canceled"}
    assert rollout(uid).phase == "superseded"


def test_a_superseded_rollout_gates_no_wave_in_which_nothing_was_done():
    fleet(4)
    upload(version=2, content="c2")
    uid = start(careful={"gate": "manual", "waves": (1, 1)})
    say(uid, A)
    start(version=2, supersede=True)
    promote_rollout(uid)
    assert rollout(uid).phase == "superseded"


def test_a_node_that_cannot_be_corrected_keeps_no_other_from_it():
    fleet(2)
    rolled_out(1, A, B)
    package("main", needs=["greet"])
    silence(A, B)
    offline_nodes.declare_silent_nodes_offline()
    uid = start(action=Action.REMOVE, careful={"offline": "skip", "canary": 0})
    assert (rollout(uid).phase, set(phases(uid).values())) == ("succeeded", {"skipped"})
    files = installed(loaded=False)  # what is loaded is not removed without a person
    ingestion.record_heartbeats([heartbeat_of(A, modules=[files]), heartbeat_of(B, modules=[files])])
    load_on([A], "main")
    reconcile()
    assert [each.node for each in Operation.objects.filter(rollout__in=own())] == [B]


def test_a_removal_is_not_retried_automatically():
    fleet(1)
    rolled_out(1, A)
    uid = start(action=Action.REMOVE, careful={"retries": Retries(limit=2, backoff_seconds=0)})
    say(uid, A, Phase.FAILED, reason=Reason.SERVER_UNREACHABLE)
    advance(uid)
    assert (phases(uid), operation(uid, A).attempt) == ({A: "failed"}, 1)


def test_a_rollback_that_failed_is_not_retried():
    fleet(1)
    back = roll_back_rollout(rolled_out(1, A))
    advance(back)
    say(back, A, Phase.FAILED, reason=Reason.UNLOAD_REFUSED)
    with pytest.raises(WrongPhaseError, match="A rollback is not retried"):
        retry_rollout(back)


def test_what_a_person_canceled_is_not_brought_by_the_reconciler():
    fleet(1)
    uid = start()
    cancel_node(uid, A, force=False)
    overdue(A)
    timeouts.end_overdue_operations()
    join(A)
    reconcile()
    assert (operation(uid, A).reason, own()) == ("node_deadline", [])


def test_a_rollback_that_has_nothing_to_release_ends_in_a_frozen_fleet():
    fleet(2)
    freeze_fleet("the holidays")
    uid = start()
    pause_rollout(uid)
    roll_back_rollout(uid)
    assert rollout(uid).phase == "rolled_back"


def test_a_frozen_fleet_keeps_the_first_reason():
    freeze_fleet("the holidays")
    freeze_fleet("something else")
    assert freeze_document()["reason"] == "the holidays"


def test_nothing_is_released_for_a_rollout_before_it_is_approved():
    join("n1")
    package("json")
    package("main", needs=["json"])
    request = RolloutRequest(action=Action.INSTALL, module_name="main", version=1, strategy=Strategy(approval=True))
    start_rollout(request)
    for row in Rollout.objects.all():
        advance(row.uid)
    assert not Operation.objects.exclude(phase="scheduled").exists()


def test_a_node_that_did_not_get_its_turn_in_a_rollback_is_seen_to_while_it_is_online():
    fleet(3)
    upload(version=2, content="c2")
    rolled_out(1, A, B, C)
    uid = rolled_out(2, A, B, C, careful={"canary": 0, "min_healthy": 2, "max_parallel": 3, "max_failures": "100%"})
    back = roll_back_rollout(uid)
    advance(back)
    silence(B)
    offline_nodes.declare_silent_nodes_offline()
    say(back, A, inventory=inventory(installed(1, "c1")))
    turn_back(back, 601)
    advance(back)
    assert operation(back, C).reason == "progress_deadline"
    assert rollout(back).phase == "rollback_failed"
    reconcile()
    assert Operation.objects.filter(rollout__in=own(), node=C).exists()
