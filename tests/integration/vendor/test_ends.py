"""An action ends, whatever its nodes do, and says which of them are not as it was to leave them."""

import re
from datetime import timedelta

import pytest

from artifacts_app.models import Build
from eventstore import database_now
from modules_app.models import Module
from rollout.domain.rollout.events import FINAL_ROLLOUT_PHASES
from rollout.messages import Phase, Reason
from rollout.models import NodeModule, Operation, Rollout
from rollout.process import offline_nodes, timeouts
from rollout.process.advance import advance
from rollout.reconciliation.reconciler import reconcile
from rollout.services.freeze import freeze_fleet, thaw_fleet
from rollout.services.nodes import decommission_node
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import abort_rollout, cancel_node, reject_rollout
from tests.plugins.packages import as_upload
from tests.plugins.played_nodes import answer, installed, join, play
from tests.recorded_fleet import differences, rollout, say, silence, start
from tests.recorded_fleet import upload as upload_of

pytestmark = pytest.mark.dialect

AT_ONCE = {"canary": 0, "max_failures": "100%"}


@pytest.fixture
def upload(admin, pack):
    def uploaded():
        return admin.post("/v2/modules", as_upload(pack())).json()

    return uploaded


@pytest.fixture
def action(admin):
    return lambda uid: admin.get(f"/v1/actions/{uid}").json()


@pytest.fixture
def delete(admin):
    def deleted(uid):
        response = admin.delete(f"/v2/modules/{uid}")
        assert response.status_code == 200, response.content
        return response.json()["action_uid"]

    return deleted


def go_offline(*names):
    silence(*names)
    assert sorted(offline_nodes.declare_silent_nodes_offline()) == sorted(names)


def has(name):
    return NodeModule.objects.filter(node=name).exclude(observed="absent").exists()


def test_a_node_that_is_offline_is_not_waited_for_and_named(upload, action, delete):
    join("node1")
    join("node2")
    go_offline("node2")
    module = upload()
    play()
    play()
    ended = action(module["action_uid"])
    assert (ended["status"], ended["progress"]) == ("completed", "100")
    assert ended["error_message"] == "node2: node2 was offline when it was its turn."
    assert "error_code" not in ended
    gone = delete(module["uid"])
    play()
    play()
    assert action(gone)["status"] == "completed"
    assert not Module.objects.exists()
    assert not Build.objects.exists()
    assert differences() == {}


def test_it_gets_the_module_when_it_is_back(upload):
    join("node1")
    join("node2")
    go_offline("node2")
    upload()
    play()
    play()
    join("node2")
    reconcile()
    play()
    assert has("node2")


def test_a_node_that_goes_offline_with_the_operation_in_its_queue(upload, action):
    join("node1")
    join("node2")
    uid = upload()["action_uid"]
    advance(uid)
    go_offline("node2")
    play()
    play()
    assert action(uid)["status"] == "completed"
    assert "node2: " in action(uid)["error_message"]


def test_a_module_stays_while_an_offline_node_has_it_and_the_action_says_so(upload, action, delete):
    for name in ("node1", "node2"):
        join(name)
    module = upload()
    play()
    go_offline("node2")
    uid = delete(module["uid"])
    play()
    play()
    ended = action(uid)
    assert (ended["status"], ended["error_code"]) == ("failed", "module_in_use")
    assert re.search("stay: they are in use on node2.*node2: node2 was offline", ended["error_message"])
    assert Module.objects.exists()
    join("node2", installed("TestModule", 1))
    reconcile()
    play()
    assert not has("node2")
    again = delete(module["uid"])
    play()
    assert action(again)["status"] == "completed"
    assert not Module.objects.exists()
    assert action(uid) == ended
    assert differences() == {}


def test_nodes_that_do_nothing_end_it(upload, action, delete):
    """All are online, hold what they were sent, and never answer."""
    for number in range(12):
        join(f"node{number:02}")
    module = upload()
    advance(module["action_uid"])
    progressed_at = Rollout.objects.get().progressed_at
    assert progressed_at
    Rollout.objects.update(progressed_at=progressed_at - timedelta(seconds=601))
    advance(module["action_uid"])
    play(lambda operation: answer(operation, Phase.FAILED, Reason.AGENT_ERROR, "It is stuck."))
    ended = action(module["action_uid"])
    assert (ended["status"], ended["error_code"]) == ("failed", "progress_deadline")
    assert "No node has succeeded for 600 s" in ended["error_message"]
    assert "node00: It is stuck." in ended["error_message"]
    assert ended["error_message"].endswith("and 7 more")
    delete(module["uid"])


def test_a_node_that_does_not_answer_has_failed_and_stops_no_other(upload, action):
    for number in range(12):
        join(f"node{number:02}")
    uid = upload()["action_uid"]
    advance(uid)
    Operation.objects.filter(node="node00").update(deadline_at=database_now() - timedelta(seconds=1))
    assert timeouts.end_overdue_operations() == 1
    play()
    play()
    ended = action(uid)
    assert (ended["status"], ended["progress"]) == ("failed", "100")
    assert "node00: node00 did not finish before its deadline" in ended["error_message"]
    assert Operation.objects.filter(phase=Phase.SUCCEEDED).count() == 11


def test_nodes_of_another_machine_are_named_and_no_failure(upload, action):
    join("node1")
    join("arm", platform="linux/aarch64")
    uid = upload()["action_uid"]
    play()
    assert action(uid)["status"] == "completed"
    assert action(uid)["error_message"].startswith("arm: arm is linux/aarch64;")


def test_what_a_person_aborts_is_cancelled(upload, action):
    join("node1")
    uid = upload()["action_uid"]
    abort_rollout(uid)
    assert action(uid)["status"] == "cancelled"


def test_a_node_that_has_left_is_no_failure(upload, action):
    join("node1")
    join("node2")
    uid = upload()["action_uid"]
    decommission_node("node2")
    play()
    assert action(uid)["status"] == "completed"
    assert "error_message" not in action(uid)


@pytest.mark.parametrize("route", ["/v1/modules", "/v2/modules"])
def test_nothing_is_begun_in_a_frozen_fleet(admin, pack, route, stored):
    uid = admin.post("/v2/modules", as_upload(pack())).json()["uid"]
    play()
    freeze_fleet("An incident.")
    for response in (admin.post(route, as_upload(pack(version=2))), admin.delete(f"{route}/{uid}")):
        assert (response.status_code, response.json()["error_code"]) == (503, "fleet_frozen")
        assert "An incident." in response.json()["description"]
    assert Module.objects.count() == 1


def test_what_was_under_way_goes_on_when_the_freeze_is_lifted(upload, action):
    join("node1")
    uid = upload()["action_uid"]
    freeze_fleet("An incident.")
    assert play() == 0
    assert action(uid)["status"] == "queued"
    thaw_fleet()
    assert play() == 1
    assert action(uid)["status"] == "completed"


def every_end():
    """A rollout for each way in which it may end, each with the status that it is to have, and its error code."""
    upload_of()
    join("node1")
    join("node2")

    def begun(*names, **more):
        return start(nodes=names or None, **more)

    done = begun("node1", "node2", careful=AT_ONCE)
    say(done, "node1")
    say(done, "node2")
    back = roll_back_rollout(done)
    advance(back)
    say(back, "node1")
    say(back, "node2")
    yield done, "completed", None
    yield back, "completed", None
    canceled = begun("node1", "node2", careful=AT_ONCE)
    cancel_node(canceled, "node1", force=True)
    say(canceled, "node2")
    yield canceled, "completed", None
    none_left = begun("node1", careful=AT_ONCE)
    cancel_node(none_left, "node1", force=True)
    yield none_left, "cancelled", None
    for phase, rule in ((Phase.SUCCEEDED, "cancelled"), (Phase.FAILED, "failed")):
        undone = begun("node1", "node2", careful={"canary": 1, "max_failures": 0, "on_failure": "rollback"})
        say(undone, "node1", phase)
        roll_back_rollout(undone)
        say(undone, "node2", Phase.CANCELED, reason=Reason.MANUAL)
        advance(undone)
        for each in Operation.objects.filter(rollout=undone, phase=Phase.QUEUED):
            say(undone, each.node)
        yield undone, rule, None if rule == "cancelled" else "error_threshold"
    failed = begun("node1", careful=AT_ONCE)
    say(failed, "node1", Phase.FAILED)
    yield failed, "failed", "failed"
    partly = begun("node1", "node2", careful=AT_ONCE)
    say(partly, "node1", Phase.FAILED)
    say(partly, "node2")
    yield partly, "failed", "completed_with_failures"
    stuck = roll_back_rollout(partly)
    advance(stuck)
    for name in ("node1", "node2"):
        say(stuck, name, Phase.FAILED)
    yield stuck, "failed", "rollback_failed"
    older = begun("node1", released=False)
    newer = begun("node1", supersede=True)
    advance(older)
    yield older, "cancelled", None
    abort_rollout(newer)
    say(newer, "node1")
    yield newer, "cancelled", None
    refused = begun("node2", careful={"approval": True})
    reject_rollout(refused, remark="not today")
    yield refused, "cancelled", None


def test_an_action_is_completed_when_what_was_asked_was_done_and_says_why_it_failed(action, db):
    seen = set()
    for uid, status, code in every_end():
        ended = action(uid)
        seen.add(rollout(uid).phase)
        assert (ended["status"], ended.get("error_code")) == (status, code), rollout(uid).phase
        assert status != "failed" or re.search("node[12]: .", ended["error_message"]), ended
    assert seen == {*FINAL_ROLLOUT_PHASES}


def test_what_is_canceled_by_hand_is_named(upload, action):
    join("node1")
    join("node2")
    uid = upload()["action_uid"]
    advance(uid)
    cancel_node(uid, "node2", force=True)
    play()
    assert action(uid)["status"] == "completed"
    assert action(uid)["error_message"].startswith("node2: ")


def test_a_node_that_was_skipped_catches_up_where_another_one_has_failed(upload, action):
    for number in range(3):
        join(f"node{number}")
    go_offline("node2")
    uid = upload()["action_uid"]
    play(
        lambda operation: (
            answer(operation, Phase.FAILED, Reason.DISK_FULL, "full") if operation.node == "node0" else None
        )
    )
    play()
    play()
    assert action(uid)["status"] == "failed"
    join("node2")
    reconcile()
    play()
    assert (has("node2"), has("node0")) == (True, False)


def test_nor_is_it_given_what_has_failed_everywhere(upload, action):
    join("node1")
    join("node2")
    go_offline("node2")
    uid = upload()["action_uid"]
    play(lambda operation: answer(operation, Phase.FAILED, Reason.DISK_FULL, "full"))
    play()
    assert action(uid)["status"] == "failed"
    join("node2")
    reconcile()
    play()
    assert not has("node2")
