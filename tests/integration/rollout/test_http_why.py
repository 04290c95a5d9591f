"""Why a rollout, or one of its nodes, is in its phase."""

import pytest

from rollout.domain.retries import Retries
from rollout.domain.rollout.events import FINAL_ROLLOUT_PHASES
from rollout.domain.strategy import Gate, OnFailure
from rollout.messages import Phase, Reason
from rollout.models import Operation
from rollout.process import offline_nodes
from rollout.process.advance import advance
from rollout.services.nodes import drain_node
from rollout.services.rollouts import promote_rollout
from tests.plugins.cast import client_of
from tests.recorded_fleet import fleet, join, operation, rollout, say, silence, start

pytestmark = pytest.mark.django_db

REFUSED = {"reason": Reason.LOAD_FAILED, "message": "symbol not found"}


@pytest.fixture
def why(admin):
    """The answer about a rollout, or one node of it."""

    def ask(uid, node=None):
        path = f"/v2/rollouts/{uid}/nodes/{node}/why" if node else f"/v2/rollouts/{uid}/why"
        answer = admin.get(path)
        assert answer.status_code == 200
        return answer.json()

    return ask


def careful(**strategy):
    return {"retries": Retries(limit=0), **strategy}


def waits(answer):
    return [each["what"] for each in answer["waits_for"]]


def types(answer):
    return [each["type"] for each in answer["events"]]


def test_it_works(why):
    fleet(3)
    uid = start(careful=careful(canary=1))
    say(uid, "n0000", Phase.FAILED, **REFUSED)
    answer = why(uid)
    assert (answer["uid"], answer["phase"], answer["reason"]) == (uid, "paused", "error_threshold")
    assert answer["rule"]["id"] == "max_failures"
    assert "max_failures (0)" in answer["rule"]["text"]
    assert "1 node failed in wave 0; the limit is 0. n0000: load_failed: symbol not found." in answer["summary"]
    assert waits(answer) == ["manual"]
    assert types(answer) == [
        "rollout.started.v1",
        "rollout.wave_started.v1",
        "operation.finished.v1",
        "rollout.wave_failed.v1",
        "rollout.paused.v1",
    ]


def test_skipped_nodes_are_counted_by_reason(why):
    fleet(1)
    join("arm-1", "arm-2", platform="linux/arm64")
    uid = start()
    say(uid, "n0000")
    answer = why(uid)
    assert answer["phase"] == "succeeded"
    assert (
        "1 of 3 nodes succeeded, 2 skipped. 2 nodes were skipped: incompatible_arch: for example, " in answer["summary"]
    )
    only = why(start(nodes=["arm-1"]))
    assert "0 of 1 node succeeded, 1 skipped. 1 node was skipped: incompatible_arch: " in only["summary"]


def test_the_verb_is_shown_with_who_asked_and_when(why, admin):
    fleet(2)
    uid = start()
    admin.post(f"/v2/rollouts/{uid}/pause")
    answer = why(uid)
    assert answer["rule"]["id"] == "manual"
    assert "by the user alice" in answer["summary"]
    paused = answer["events"][-1]
    assert (paused["type"], paused["actor"]) == ("rollout.paused.v1", "alice")
    assert waits(answer) == ["manual", "node_deadline"]


def test_who_aborted_is_said_also_after_the_end(why, admin):
    fleet(2)
    uid = start()
    admin.post(f"/v2/rollouts/{uid}/abort")
    assert waits(why(uid)) == ["node_deadline"]
    for name in ("n0000", "n0001"):
        say(uid, name)
    answer = why(uid)
    assert (answer["phase"], answer["rule"]["id"], answer["waits_for"]) == ("aborted", "manual", [])
    assert "by the user alice" in answer["summary"]


def test_a_node_that_failed_says_what_can_be_done(why):
    fleet(1)
    uid = start()
    say(uid, "n0000", Phase.FAILED, **REFUSED)
    answer = why(uid, "n0000")
    assert (answer["node"], answer["phase"], answer["reason"]) == ("n0000", "failed", "load_failed")
    assert answer["rule"]["id"] == "node_answer"
    assert "symbol not found. Read what the server said" in answer["summary"]
    assert types(answer) == ["operation.scheduled.v1", "operation.released.v1", "operation.finished.v1"]


def test_a_node_in_progress_that_is_offline_is_named(why):
    fleet(2)
    uid = start()
    say(uid, "n0001", Phase.SETTLING)
    silence("n0001")
    offline_nodes.declare_silent_nodes_offline()
    assert "the reports of n0000, n0001, or the deadline; n0001 is offline" in why(uid)["summary"]
    assert "it is settling, and n0001 is offline." in why(uid, "n0001")["summary"]
    assert "offline" not in why(uid, "n0000")["summary"]


def test_a_soak_is_waited_for_until_its_end(why):
    fleet(2)
    uid = start(careful=careful(canary=1, soak_seconds=600))
    say(uid, "n0000")
    soaking = why(uid)
    assert (soaking["rule"]["id"], waits(soaking)) == ("soak", ["soak"])
    assert soaking["waits_for"][0]["until"] == rollout(uid).waves[0]["soak_until"]
    assert waits(why(uid, "n0001")) == ["soak", "wave_turn"]


def test_a_gated_rollout_waits_for_a_person(why):
    fleet(2)
    uid = start(careful=careful(canary=1, gate=Gate.MANUAL))
    say(uid, "n0000")
    assert waits(why(uid)) == ["gate"]
    assert waits(why(uid, "n0001")) == ["gate", "wave_turn"]
    promote_rollout(uid)
    assert waits(why(uid))[0] == "node_deadline"


def test_the_slots_of_max_parallel_are_waited_for(why):
    fleet(2)
    uid = start(max_parallel=1)
    assert waits(why(uid)) == ["node_deadline", "max_parallel", "progress_deadline"]
    waiting = why(uid, "n0001")
    assert waiting["rule"] == {
        "id": "max_parallel",
        "text": "At most 1 of 2 nodes are in progress at once: max_parallel is 1.",
    }
    assert why(uid, "n0000")["waits_for"][0]["until"] is not None


def test_min_healthy_is_waited_for(why):
    fleet(3)
    silence("n0002")
    offline_nodes.declare_silent_nodes_offline()
    uid = start(careful=careful(canary=0, min_healthy=2))
    assert waits(why(uid)) == ["min_healthy", "offline_wait", "progress_deadline"]
    assert waits(why(uid, "n0000")) == ["min_healthy"]


def test_each_node_that_cannot_have_its_turn_is_named(why):
    names = fleet(9)
    silence(*names[:7])
    offline_nodes.declare_silent_nodes_offline()
    uid = start(max_parallel=1)
    drain_node("n0008")
    say(uid, "n0007")
    texts = {each["what"]: each["text"] for each in why(uid)["waits_for"]}
    assert texts["offline_wait"] == "n0000, n0001, n0002, n0003, n0004 and 2 more to come back online"
    assert texts["draining"] == "n0008 to be activated"
    assert waits(why(uid, "n0000")) == ["offline_wait"]
    assert waits(why(uid, "n0008")) == ["draining"]


def test_an_older_operation_is_waited_for(why):
    fleet(1)
    older = start()
    newer = start(version=1, supersede=True)
    assert waits(why(newer)) == ["behind"]
    assert older in why(newer, "n0000")["waits_for"][0]["text"]


def test_a_retry_is_waited_for_until_its_time(why):
    fleet(1)
    uid = start(careful={"retries": Retries(limit=1, backoff_seconds=100)})
    say(uid, "n0000", Phase.FAILED, reason=Reason.FETCH_FAILED)
    (backoff, _) = why(uid)["waits_for"]
    assert backoff["what"] == "retry_backoff"
    assert backoff["until"] == why(uid, "n0000")["waits_for"][0]["until"]
    assert backoff["until"] is not None


def test_a_frozen_fleet_is_said_with_who_froze_it_and_why(why, admin):
    fleet(2)
    uid = start(released=False)
    admin.post("/v2/freeze", {"reason": "night of the audit"}, format="json")
    answer = why(uid)
    assert (answer["rule"]["id"], waits(answer)) == ("frozen", ["frozen"])
    assert "by the user alice" in answer["waits_for"][0]["text"]
    assert "night of the audit" in answer["waits_for"][0]["text"]
    assert waits(why(uid, "n0001")) == ["frozen"]


def test_an_approval_is_waited_for_and_a_rejection_is_said_with_its_remark(why, admin):
    fleet(1)
    uid = start(careful={"approval": True})
    assert waits(why(uid)) == ["approval"]
    admin.post(f"/v2/rollouts/{uid}/reject", {"remark": "not on a Friday"}, format="json")
    answer = why(uid)
    assert (answer["phase"], answer["rule"]["id"]) == ("rejected", "approval")
    assert "by the user alice: not on a Friday." in answer["summary"]


def test_a_paused_rollout_keeps_its_nodes_waiting_by_the_same_rule(why):
    fleet(3)
    uid = start(careful=careful(canary=1))
    say(uid, "n0000", Phase.FAILED, **REFUSED)
    assert why(uid, "n0001")["rule"]["id"] == why(uid)["rule"]["id"] == "max_failures"


def test_a_rollback_says_what_made_it_and_what_it_waits_for(why):
    fleet(2)
    uid = start(careful=careful(canary=0, on_failure=OnFailure.ROLLBACK))
    say(uid, "n0000", Phase.FAILED, **REFUSED)
    answer = why(uid)
    assert (answer["phase"], answer["rule"]["id"], waits(answer)) == ("rolling_back", "max_failures", ["node_deadline"])
    assert waits(why(uid, "n0000")) == ["rollback"]


def test_at_most_ten_reports_decide(why):
    names = fleet(12)
    uid = start(max_parallel=12)
    for name in names:
        say(uid, name, Phase.FAILED, **REFUSED)
    assert types(why(uid)).count("operation.finished.v1") == 10


def test_what_is_not_there(admin):
    fleet(1)
    uid = start()
    assert admin.get("/v2/rollouts/none/why").json()["error_code"] == "rollout_not_found"
    assert admin.get("/v2/rollouts/none/nodes/n0000/why").json()["error_code"] == "rollout_not_found"
    assert admin.get(f"/v2/rollouts/{uid}/nodes/none/why").json()["error_code"] == "node_not_found"


def test_who_may_not_look_at_modules_is_refused(mallory):
    fleet(1)
    assert client_of(mallory).get(f"/v2/rollouts/{start()}/why").status_code == 403


def test_it_takes_as_many_queries_however_many_nodes_there_are(admin, django_assert_max_num_queries):
    fleet(60)
    uid = start(max_parallel=30)
    for path in (f"/v2/rollouts/{uid}/why", f"/v2/rollouts/{uid}/nodes/n0050/why"):
        with django_assert_max_num_queries(30):
            assert admin.get(path).status_code == 200


def test_there_is_always_something_to_wait_for_until_the_end(why):
    names = fleet(5)
    uid = start(released=False, careful=careful(canary=1, waves=("50%",), max_parallel=1, gate=Gate.MANUAL))
    while rollout(uid).phase not in FINAL_ROLLOUT_PHASES:
        assert why(uid)["waits_for"]
        assert all(why(uid, name)["waits_for"] or operation(uid, name).finished_at for name in names)
        _go_on(uid)
    assert why(uid)["waits_for"] == []


def _go_on(uid):
    if rollout(uid).waves[0]["phase"] == "gated" or rollout(uid).waves[1]["phase"] == "gated":
        promote_rollout(uid)
    advance(uid)
    for row in Operation.objects.filter(rollout=uid, phase=Phase.QUEUED)[:1]:
        say(uid, row.node)


@pytest.mark.parametrize(
    "reason",
    [
        Reason.LINK_DOWN,
        Reason.SERVER_HANGS,
        Reason.SERVER_RESTARTED,
        Reason.EXTERNAL_CONFIGURATION,
        Reason.RESTART_REQUIRED,
        Reason.SERVER_NOT_READY,
    ],
)
def test_what_has_happened_on_a_node_in_progress(why, reason):
    fleet(1)
    uid = start(careful=careful())
    said = "The server has not answered for 10 s."
    say(uid, "n0000", Phase.LOADING, reason=reason, message=said)
    assert why(uid)["notes"] == [f"n0000: {said}"]
    assert said in why(uid)["summary"]
    assert why(uid, "n0000")["notes"] == [said]
    say(uid, "n0000", Phase.PROBING)
    assert why(uid)["notes"] == why(uid, "n0000")["notes"] == []
