"""GET /v1/actions, /v1/actions/{uid} and /v1/nodes, as existing clients decode them."""

from functools import partial

import pytest

from rollout.api.views.vendor import STATUS_OF
from rollout.domain.rollout.events import RolloutPhase
from rollout.messages import Phase, Reason
from rollout.models import Node, Rollout
from rollout.process.advance import advance
from rollout.services.nodes import decommission_node, drain_node
from tests.plugins.packages import as_upload
from tests.plugins.played_nodes import answer, join, play

STRINGS = ("action_uid", "name", "status", "progress", "node_uid", "task_id", "creation_time", "object_name")


@pytest.fixture
def start(admin, pack):
    def started(version=1):
        return admin.post("/v2/modules", as_upload(pack(version=version))).json()["action_uid"]

    return started


def test_it_works(admin, start):
    join("node1")
    uid = start()
    assert admin.get(f"/v2/rollouts/{uid}").json()["origin"] == "vendor"
    shown = admin.get(f"/v1/actions/{uid}").json()
    assert all(isinstance(shown[name], str) for name in STRINGS)
    assert (shown["action_uid"], shown["name"], shown["status"]) == (uid, "install_module", "queued")
    assert (shown["progress"], shown["object_name"]) == ("0", "module:TestModule:1")
    assert "error_code" not in shown


def test_the_list_has_two_arrays(admin, start):
    uids = [start(version=each) for each in (1, 2)]
    listed = admin.get("/v1/actions").json()
    assert listed.keys() == {"actions", "state-machines"}
    assert [each["action_uid"] for each in listed["actions"]] == uids[::-1]
    assert listed["state-machines"] == []


def test_progress_is_polled_to_the_end(admin, start):
    join("node1")
    join("node2")
    uid = start()
    advance(uid)
    assert admin.get(f"/v1/actions/{uid}").json()["status"] == "running"
    play()
    shown = admin.get(f"/v1/actions/{uid}").json()
    assert (shown["status"], shown["progress"]) == ("completed", "100")


def test_a_failure_says_why(admin, start):
    join("node1")
    uid = start()
    play(partial(answer, phase=Phase.FAILED, reason=Reason.DISK_FULL, message="No space left."))
    shown = admin.get(f"/v1/actions/{uid}").json()
    assert (shown["status"], shown["error_message"]) == ("failed", "node1: No space left.")
    assert isinstance(shown["error_code"], str)


@pytest.mark.parametrize("phase", RolloutPhase)
def test_each_phase_has_a_status_of_the_vendor(admin, start, phase):
    uid = start()
    Rollout.objects.update(phase=phase, reason="manual" if phase == RolloutPhase.ABORTED else "")
    expected = STATUS_OF.get(phase, "failed")
    assert admin.get(f"/v1/actions/{uid}").json()["status"] == expected
    assert expected in {"queued", "starting", "running", "cancelling", "cancelled", "completed", "failed"}


@pytest.mark.parametrize("uid", ["1", "0" * 32, "x" * 300])
def test_an_unknown_action(admin, uid):
    response = admin.get(f"/v1/actions/{uid}")
    assert (response.status_code, response.json()["error_code"]) == (404, "not_found")


@pytest.mark.parametrize("rows", [1, 5])
def test_the_queries_do_not_depend_on_the_rows(admin, start, rows, django_assert_num_queries):
    join("node1")
    for each in range(rows):
        start(version=each)
        play(partial(answer, phase=Phase.FAILED, reason=Reason.DISK_FULL))
    with django_assert_num_queries(3):  # the user, the rollouts, what failed
        assert len(admin.get("/v1/actions").json()["actions"]) == rows


def test_the_nodes(admin):
    join("node1", api_hosts=("one.localhost",))
    join("node2", platform="linux/aarch64")
    join("node3")
    decommission_node("node3")
    drain_node("node2")
    first, second = admin.get("/v1/nodes").json()
    assert (first["name"], first["addr"], first["architecture"]) == ("node1", "one.localhost", "x86_64")
    assert (second["name"], second["addr"], second["architecture"]) == ("node2", "", "aarch64")
    assert {first["status"], second["status"]} == {"active"}
    assert isinstance(first["uid"], int)
    assert first["uid"] != second["uid"]


def test_a_node_that_is_silent_is_down(admin):
    join("node1")
    Node.objects.update(phase="offline")
    assert admin.get("/v1/nodes").json()[0]["status"] == "down"


@pytest.mark.parametrize("rows", [1, 5])
def test_the_queries_for_nodes_do_not_depend_on_the_rows(admin, rows, django_assert_num_queries):
    for each in range(rows):
        join(f"node{each}")
    admin.get("/v1/nodes")
    with django_assert_num_queries(2):
        assert len(admin.get("/v1/nodes").json()) == rows


def test_one_node(admin):
    join("node1")
    join("node2", platform="linux/aarch64")
    for listed in admin.get("/v1/nodes").json():
        assert admin.get(f"/v1/nodes/{listed['uid']}").json() == listed


@pytest.mark.parametrize("uid", ["0", "999999", "node1", "-1", "1.0", "\u0661", "9" * 400])
def test_an_unknown_node(admin, uid):
    join("node1")
    response = admin.get(f"/v1/nodes/{uid}")
    assert (response.status_code, response.json()["error_code"]) == (404, "node_not_found")
    assert "uid" in response.json()["description"]


def test_a_node_that_has_left_is_unknown(admin):
    join("node1")
    (listed,) = admin.get("/v1/nodes").json()
    decommission_node("node1")
    assert admin.get(f"/v1/nodes/{listed['uid']}").status_code == 404
