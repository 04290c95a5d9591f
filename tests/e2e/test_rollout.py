"""One upload, one rollout, three real servers."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

from tests.fleet import PASSWORD, ROLLOUTS
from tests.waiting import wait_for


def test_it_works(fleet, uploaded):
    version = uploaded()
    rollout = fleet.carry_out(version)
    assert (rollout["phase"], rollout["progress"]["succeeded"], rollout["progress"]["total"]) == ("succeeded", 3, 3)
    assert fleet.greetings() == [f"Hello, Ada, from greet 2.0.{version % 100}"] * 3


def test_removal_unloads_and_deletes(fleet, uploaded):
    version = uploaded()
    fleet.carry_out(version)
    assert fleet.carry_out(version, "remove", even_if_used=True)["phase"] == "succeeded"
    assert fleet.greetings() == ["", "", ""]
    assert [fleet.files(name) for name in fleet.names] == [[], [], []]


def test_a_module_that_clients_use_is_not_removed(fleet, uploaded):
    version = uploaded()
    fleet.carry_out(version)
    fleet.greetings()
    wait_for(lambda: all(_recent_calls(fleet, name) for name in fleet.names))
    body = {"action": "remove", "module_name": "greet", "version": version}
    answer = fleet.api.post(ROLLOUTS, json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (409, "in_use")
    assert all(fleet.greetings())


def _recent_calls(fleet, name):
    return sum(each["recent_calls"] or 0 for each in fleet.node(name)["server_state"]["modules"])


def test_restarted_server_keeps_the_module(fleet, uploaded):
    fleet.carry_out(uploaded())
    before = fleet.valkey("node-2", "INFO", "server")["run_id"]
    fleet.up.kill("node-2-server")
    wait_for(lambda: fleet.greeting("node-2"))
    assert fleet.valkey("node-2", "INFO", "server")["run_id"] != before
    assert fleet.greeting("node-2").startswith("Hello, Ada")


def test_restarted_server_does_not_get_a_removed_module_back(fleet, uploaded):
    version = uploaded()
    fleet.carry_out(version)
    fleet.carry_out(version, "remove", even_if_used=True)
    fleet.up.kill("node-2-server")
    assert wait_for(lambda: fleet.greeting("node-2") is not None)
    assert fleet.greeting("node-2") == ""


def test_upgrade_replaces_what_is_loaded(fleet, uploaded):
    old, new = uploaded(), uploaded()
    fleet.carry_out(old)
    assert fleet.carry_out(new)["phase"] == "succeeded"
    assert fleet.greetings() == [f"Hello, Ada, from greet 2.0.{new % 100}"] * 3
    fleet.up.kill("node-1-server")
    assert wait_for(lambda: fleet.greeting("node-1")) == f"Hello, Ada, from greet 2.0.{new % 100}"


def test_again_changes_nothing(fleet, uploaded):
    version = uploaded()
    fleet.carry_out(version)
    again = fleet.carry_out(version)
    assert (again["phase"], again["progress"]["skipped"]) == ("succeeded", 3)


def test_of_two_at_the_same_moment_one_wins(fleet, uploaded):
    body = {"action": "install", "module_name": "greet", "version": uploaded()}
    barrier = threading.Barrier(2)

    def post():
        with fleet.client("admin", PASSWORD) as api:
            api.get("/v2/nodes")  # connected, and the password is known
            barrier.wait(30)
            return api.post(ROLLOUTS, json=body)

    with ThreadPoolExecutor(2) as pool:
        answers = sorted(
            (each.result() for each in [pool.submit(post), pool.submit(post)]), key=lambda r: r.status_code
        )
    won, lost = answers
    assert (won.status_code, lost.status_code) == (202, 409)
    assert lost.json()["error_code"] == "rollout_in_progress"
    assert won.json()["uid"] in lost.json()["description"]
    assert fleet.end_of(won.json()["uid"])["phase"] == "succeeded"


def test_abort_leaves_what_has_not_started(fleet, uploaded):
    version = uploaded(extra_bytes=1000)
    pid = fleet.up.send("node-1-agent", signal.SIGSTOP)
    uid = fleet.start(version, strategy={"max_parallel": 1})
    wait_for(lambda: fleet.phases(uid)["node-1"] != "scheduled")
    fleet.post(f"{ROLLOUTS}/{uid}/abort")
    wait_for(lambda: fleet.phases(uid)["node-3"] == "canceled")
    fleet.up.send("node-1-agent", signal.SIGCONT)
    assert fleet.up.pid("node-1-agent") == pid
    assert fleet.end_of(uid)["phase"] == "aborted"
    assert fleet.greetings()[1:] == ["", ""]
    assert (fleet.files("node-2"), fleet.files("node-3")) == ([], [])


def test_drained_node_is_left_out_until_it_is_activated(fleet, uploaded):
    version = uploaded()
    fleet.post("/v2/nodes/node-2/drain", status=200)
    rollout = fleet.carry_out(version)
    assert fleet.operation(rollout["uid"], "node-2")["reason"] == "node_draining"
    assert fleet.greeting("node-2") == ""
    fleet.post("/v2/nodes/node-2/activate", status=200)
    assert wait_for(lambda: fleet.greeting("node-2")).startswith("Hello, Ada")


def test_decommissioned_node_leaves_and_joins_again(fleet, uploaded):
    version = uploaded()
    fleet.post("/v2/nodes/node-3/decommission", status=200)
    assert fleet.carry_out(version)["progress"]["total"] == 2
    assert fleet.greetings()[2] == ""
    fleet.up.kill("node-3-agent")
    fleet.wait_for_phase("node-3", "online")
    assert wait_for(lambda: fleet.greeting("node-3")).startswith("Hello, Ada")
