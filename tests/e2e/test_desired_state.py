"""A node that is late gets what the others have, and what was deleted by hand comes back: nobody asks for either."""

import shutil

import pytest

from tests.fleet import PAUSE, Fleet, sample
from tests.waiting import wait_for


def module_of(fleet, name):
    """The node's only module, None while it has none."""
    modules = fleet.node(name)["modules"]
    return modules[0] if modules else None


def is_in_sync(fleet, name):
    module = module_of(fleet, name)
    return module is not None and module["observed"] == "load" and module["state"] == "in_sync"


def reconciled(fleet):
    """The nodes of the reconciler's rollouts."""
    rollouts = [each for each in fleet.get("/v2/rollouts")["results"] if each["origin"] == "reconciler"]
    return sorted(name for each in rollouts for name in fleet.phases(each["uid"]))


@pytest.fixture
def correcting(fleet):
    """The cluster corrects drift, for as long as the test lasts."""

    def switch(to):
        assert fleet.api.put("/v1/cluster", json={"correct_drift": to}).status_code == 200

    yield lambda: switch(True)
    switch(False)


def test_a_late_node_gets_the_module_by_itself(start, folder):
    up = start("--no-sample", "--nodes", "1")
    with (fleet := Fleet(up, nodes=1)).api:
        assert fleet.upload(sample(folder, 20000)).status_code == 201
        assert fleet.carry_out(20000)["phase"] == "succeeded"
    assert up.end() == 0
    again = start("--no-sample", "--nodes", "2")
    with (fleet := Fleet(again, nodes=2)).api:
        wait_for(lambda: is_in_sync(fleet, "node-2"), pause=PAUSE)
        assert fleet.greetings() == ["Hello, Ada, from greet 2.0.0"] * 2
        assert reconciled(fleet) == ["node-2"]


def test_what_was_deleted_by_hand_comes_back_once_drift_is_corrected(fleet, uploaded, correcting):
    version = uploaded()
    assert fleet.carry_out(version)["phase"] == "succeeded"
    before = fleet.greeting("node-2")
    shutil.rmtree(fleet.folder / "nodes" / "node-2" / "modules" / "greet" / str(version))
    module = wait_for(lambda: (found := module_of(fleet, "node-2"))["drifted_at"] and found, pause=PAUSE)
    assert (module["state"], module["desired"], module["observed"]) == ("missing", "load", "absent")
    correcting()
    wait_for(lambda: is_in_sync(fleet, "node-2"), pause=PAUSE)
    assert any(path.endswith(".so") for path in fleet.files("node-2"))
    assert fleet.greeting("node-2") == before
