"""What the plan has found about restarts is looked at again directly before each release."""

import pytest

from rollout.messages import Reason, Replica, Ways
from rollout.process.advance import advance
from rollout.queries.explanations import of_node
from rollout.services.rollback import roll_back_rollout
from tests.integration.rollout.shard_of_four import ALL_AT_ONCE
from tests.recorded_fleet import installed, inventory, join, operation, phases, rollout, start, upload
from tests.recorded_fleet import say as answer
from tests.recorded_shards import beat, master_of, replica_of, say

pytestmark = [pytest.mark.django_db, pytest.mark.dialect]
STOCK = {"enable_module_command": "no", "restart": "shutdown", "aof_enabled": True, "min_replicas_to_write": 1}


def master(*replicas, state="online", **more):
    rows = tuple(Replica(address=each, state=state) for each in replicas)
    return master_of(*replicas, **{**STOCK, "addresses": ("a:1",), "replicas": rows, **more})


def replica(name, above="a:1"):
    return replica_of(above, addresses=(f"a:{name[1:]}",), **STOCK)


@pytest.fixture
def shard():
    upload()
    join("n1", "n2", "n3")
    say(beat("n1", master("a:2", "a:3")), beat("n2", replica("n2")), beat("n3", replica("n3")))


@pytest.fixture
def released(shard):
    """A rollout that restarts n2 now, and n3 after it."""
    uid = start(ways=Ways.RESTART, nodes=("n2", "n3"), careful=ALL_AT_ONCE)
    assert phases(uid) == {"n2": "queued", "n3": "scheduled"}
    return uid


def ends(uid):
    answer(uid, "n2", inventory=inventory(installed()))
    advance(uid)


def test_a_replica_that_its_master_needs(released):
    say(beat("n1", master("a:2", "a:3", state="send_bulk")))
    ends(released)
    row = operation(released, "n3")
    assert (row.phase, row.reason) == ("scheduled", Reason.MIN_REPLICAS)
    assert "0 good replicas" in of_node(released, "n3").document["summary"]
    say(beat("n1", master("a:2", "a:3")))
    advance(released)
    assert phases(released)["n3"] == "queued"


def test_a_replica_that_has_become_a_master(released):
    say(beat("n1", master("a:2")), beat("n3", master_of(**STOCK, addresses=("a:3",))))
    ends(released)
    row = operation(released, "n3")
    assert (row.phase, row.reason) == ("scheduled", Reason.RESTART_REQUIRED)
    assert "may_interrupt" in of_node(released, "n3").document["summary"]


def test_a_rollback_has_the_permission_of_what_it_undoes():
    upload()
    upload(version=2, content="c2")
    join("n1", modules=[installed()])
    say(beat("n1", master_of(**STOCK, addresses=("a:1",)), modules=[installed()]))
    uid = start(version=2, ways=Ways.RESTART, may_interrupt=True)
    answer(uid, "n1", inventory=inventory(installed(2, "c2"), installed(loaded=False)))
    assert rollout(uid).phase == "succeeded"
    undo = roll_back_rollout(uid)
    advance(undo)
    assert rollout(undo).may_interrupt
    assert phases(undo) == {"n1": "queued"}
