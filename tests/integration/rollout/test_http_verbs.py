"""The verbs over HTTP: who may, what is answered, and what is refused."""

import pytest

from rollout.messages import Phase
from tests.plugins.cast import client_of
from tests.recorded_fleet import fleet, phases, say, start

pytestmark = pytest.mark.django_db

VERBS = ("pause", "resume", "promote", "abort", "retry", "rollback", "failback", "approve", "reject")


def post(client, path, body=None):
    return client.post(f"/v2/{path}", body, format="json")


def code(response):
    return response.status_code, response.json()["error_code"]


def test_it_works(admin):
    fleet(2)
    uid = start(max_parallel=1)
    paused = post(admin, f"rollouts/{uid}/pause")
    assert (paused.status_code, paused.json()["phase"], paused.json()["reason"]) == (202, "paused", "manual")
    assert paused["Location"] == f"http://testserver/v2/rollouts/{uid}"
    assert post(admin, f"rollouts/{uid}/resume").json()["phase"] == "running"
    assert post(admin, f"rollouts/{uid}/abort").json()["phase"] == "aborting"


@pytest.mark.parametrize("verb", VERBS)
def test_a_viewer_may_not(bob, verb):
    fleet(1)
    assert post(client_of(bob), f"rollouts/{start()}/{verb}", {"remark": "x"}).status_code == 403


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_rollout_is_not_found(admin, verb):
    body = {"remark": "x"} if verb in {"approve", "reject"} else None
    assert code(post(admin, f"rollouts/nothing/{verb}", body)) == (404, "rollout_not_found")


@pytest.mark.parametrize("verb", ["approve", "reject", "resume", "promote"])
def test_a_phase_that_does_not_allow_it(admin, verb):
    fleet(1)
    uid = start()
    verbs_done = {"approve", "resume"}  # it is under way: there is nothing to do
    body = {"remark": "x"} if verb in {"approve", "reject"} else None
    answer = post(admin, f"rollouts/{uid}/{verb}", body)
    expected = {"reject": (409, "wrong_phase"), "promote": (409, "not_gated")}
    assert answer.status_code == 202 if verb in verbs_done else code(answer) == expected[verb]


def test_what_has_ended_is_final(admin):
    fleet(1)
    uid = start()
    say(uid, "n0000")
    for verb in ("pause", "resume", "promote", "abort"):
        assert code(post(admin, f"rollouts/{uid}/{verb}")) == (409, "rollout_final")


def test_a_gate_is_named(admin):
    fleet(2)
    uid = start(careful={"gate": "manual"})
    say(uid, "n0000")
    assert code(post(admin, f"rollouts/{uid}/promote", {"wave": 7})) == (409, "not_gated")
    assert code(post(admin, f"rollouts/{uid}/promote", {"wave": -1})) == (400, "invalid_request")
    assert post(admin, f"rollouts/{uid}/promote", {"wave": 0}).json()["waves"][0]["phase"] == "passed"


def test_an_approval_needs_a_second_person_and_a_remark(admin, alice, new_user):
    fleet(1)
    body = {"action": "install", "module_name": "greet", "version": 1, "strategy": {"approval": True}}
    uid = post(admin, "rollouts", body).json()["uid"]
    assert code(post(admin, f"rollouts/{uid}/approve", {"remark": "x"})) == (403, "second_person_required")
    second = client_of(new_user("dave", "admin"))
    assert code(post(second, f"rollouts/{uid}/approve")) == (400, "invalid_request")
    assert post(second, f"rollouts/{uid}/approve", {"remark": "looked at"}).json()["phase"] == "running"


def test_a_rollback_is_a_rollout_of_its_own_once_it_has_ended(admin):
    fleet(1)
    uid = start()
    say(uid, "n0000")
    answer = post(admin, f"rollouts/{uid}/rollback")
    assert (answer.status_code, answer.json()["rollback_of"], answer.json()["phase"]) == (202, uid, "rolling_back")
    assert answer["Location"].endswith(answer.json()["uid"])
    assert post(admin, f"rollouts/{uid}/rollback").json()["uid"] == answer.json()["uid"]
    assert code(post(admin, f"rollouts/{answer.json()['uid']}/rollback")) == (409, "rollback_of_rollback")


def test_one_node_is_canceled(admin):
    fleet(2)
    uid = start(max_parallel=1)
    canceled = post(admin, f"rollouts/{uid}/nodes/n0001/cancel")
    assert (canceled.status_code, canceled.json()["phase"], canceled.json()["wave"]) == (202, "canceled", 0)
    assert post(admin, f"rollouts/{uid}/nodes/n0000/cancel").json()["phase"] == "canceling"
    assert post(admin, f"rollouts/{uid}/nodes/n0000/cancel", {"force": True}).json()["phase"] == "canceled"
    assert code(post(admin, f"rollouts/{uid}/nodes/n0009/cancel")) == (404, "node_not_found")
    assert code(post(admin, f"rollouts/{uid}/nodes/n0000/cancel", {"force": "yes"})) == (400, "invalid_request")


def test_what_has_ended_on_a_node_is_not_canceled(admin):
    fleet(2)
    uid = start()
    say(uid, "n0000", Phase.FAILED)
    assert code(post(admin, f"rollouts/{uid}/nodes/n0000/cancel")) == (409, "operation_final")


def test_one_switch_for_everything(admin):
    fleet(1)
    assert admin.get("/v2/freeze").json()["frozen"] is False
    assert code(post(admin, "freeze")) == (400, "invalid_request")
    frozen = post(admin, "freeze", {"reason": "the holidays"}).json()
    assert (frozen["frozen"], frozen["reason"], frozen["actor"]) == (True, "the holidays", "alice")
    uid = start()
    assert phases(uid) == {"n0000": "scheduled"}
    thawed = admin.delete("/v2/freeze").json()
    assert (thawed["frozen"], thawed["thawed_at"] is not None) == (False, True)
    assert phases(uid) == {"n0000": "queued"}


def test_a_viewer_sees_the_switch_and_leaves_it(bob):
    viewer = client_of(bob)
    assert viewer.get("/v2/freeze").status_code == 200
    assert post(viewer, "freeze", {"reason": "x"}).status_code == 403
    assert viewer.delete("/v2/freeze").status_code == 403
