"""Rollouts in waves over six real servers: what is bad stops early, and can be taken back."""

import pytest

from tests.fleet import PASSWORD, PAUSE, ROLLOUTS, running_fleet
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def cluster():
    """Six nodes of this file's own."""
    with running_fleet(nodes=6) as fleet:
        yield fleet


def greeting_of(version):
    return f"Hello, Ada, from greet 2.0.{version % 100}"


def wait_for_rollout(fleet, uid, phase):
    return wait_for(lambda: (found := fleet.rollout(uid))["phase"] == phase and found, pause=PAUSE)


def touched(fleet, uid):
    return [node for node, phase in fleet.phases(uid).items() if phase != "scheduled"]


def test_a_module_that_does_not_load_stops_at_the_canary(fleet, uploaded):
    version = uploaded(picky=True)
    fleet.refuse_to_load(*fleet.names)
    uid = fleet.start(version, strategy={})
    rollout = wait_for_rollout(fleet, uid, "paused")
    assert rollout["reason"] == "error_threshold"
    assert touched(fleet, uid) == ["node-1"]
    assert fleet.operation(uid, "node-1")["reason"] == "load_failed"
    (failure,) = fleet.get(f"{ROLLOUTS}/{uid}/why")["failures"]
    assert (failure["count"], failure["node"]) == (1, "node-1")
    assert any("initialization failed" in line for line in failure["server_log"])
    assert [fleet.files(name) for name in fleet.names] == [[]] * 6
    fleet.post(f"{ROLLOUTS}/{uid}/abort")
    assert fleet.end_of(uid)["phase"] == "aborted"


def test_waves_with_a_gate_that_a_person_opens(fleet, uploaded):
    version = uploaded()
    uid = fleet.start(version, strategy={"waves": ["50%"], "gate": "manual", "max_parallel": 2})
    for number, size in enumerate([1, 3]):
        fleet.wait_for_wave(uid, number, "gated")
        assert sum(each != "" for each in fleet.greetings()) == [1, 4][number]
        assert fleet.rollout(uid)["waves"][number]["succeeded"] == size
        fleet.post(f"{ROLLOUTS}/{uid}/promote", {"wave": number})
    assert fleet.end_of(uid)["phase"] == "succeeded"
    assert fleet.greetings() == [greeting_of(version)] * 6


def test_a_rollback_by_itself_puts_the_old_version_back_everywhere_it_was(fleet, uploaded):
    old, new = uploaded(), uploaded(picky=True)
    fleet.carry_out(old, nodes=["node-1", "node-2", "node-3"])
    before = [fleet.files(name) for name in fleet.names]
    fleet.refuse_to_load("node-5")
    rollout = fleet.carry_out(new, strategy={"waves": [3], "on_failure": "rollback"})
    assert (rollout["phase"], rollout["reason"]) == ("rolled_back", "error_threshold"), fleet.outcomes(rollout["uid"])
    assert fleet.greetings() == [greeting_of(old)] * 3 + [""] * 3
    assert [fleet.files(name) for name in fleet.names] == before
    states = {each["state"] for name in fleet.names for each in fleet.node(name)["modules"]}
    assert states == {"in_sync"}
    fleet.up.kill("node-1-server")
    assert wait_for(lambda: fleet.greeting("node-1")) == greeting_of(old)


def test_an_ended_rollout_is_rolled_back_by_another_one(fleet, uploaded):
    old, new = uploaded(), uploaded()
    fleet.carry_out(old)
    uid = fleet.carry_out(new)["uid"]
    back = fleet.post(f"{ROLLOUTS}/{uid}/rollback")
    assert (back["rollback_of"], back["uid"] != uid) == (uid, True)
    assert fleet.end_of(back["uid"])["phase"] == "rolled_back"
    assert fleet.greetings() == [greeting_of(old)] * 6


def test_a_person_aborts_in_the_middle_and_what_runs_is_undone(fleet, uploaded):
    version = uploaded(extra_bytes=60_000_000)
    uid = fleet.start(version, strategy={"canary": 0, "max_parallel": 1, "on_abort": "undo"})
    wait_for(lambda: fleet.is_fetching("node-1"), pause=0.001)
    fleet.post(f"{ROLLOUTS}/{uid}/abort")
    assert fleet.end_of(uid)["phase"] == "aborted"
    assert set(fleet.phases(uid).values()) <= {"canceled", "succeeded"}
    assert list(fleet.phases(uid).values())[1:] == ["canceled"] * 5
    assert fleet.greetings()[1:] == [""] * 5
    assert [fleet.files(name) for name in fleet.names[1:]] == [[]] * 5


def test_a_second_person_approves(fleet, uploaded):
    version = uploaded()
    fleet.post(
        "/v1/users", {"name": "carol", "email": "carol@example.com", "password": PASSWORD, "role": "admin"}, status=200
    )
    uid = fleet.start(version, strategy={"approval": True})
    remark = {"remark": "looked at it"}
    assert fleet.post(f"{ROLLOUTS}/{uid}/approve", remark, status=403)["error_code"] == "second_person_required"
    with fleet.client("carol", PASSWORD) as carol:
        assert carol.post(f"{ROLLOUTS}/{uid}/approve", json=remark).status_code == 202
    assert fleet.end_of(uid)["phase"] == "succeeded"
