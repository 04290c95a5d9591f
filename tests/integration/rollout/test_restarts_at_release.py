"""What the plan has found about restarts is looked at again directly before each release."""

from collections import Counter

import pytest

from rollout.messages import Action, Phase, Reason, Replica, Ways
from rollout.process.advance import advance
from rollout.queries.explanations import of_node, of_rollout
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


def replica(name, above="a:1", **more):
    return replica_of(above, **{**STOCK, "addresses": (f"a:{name[1:]}",), **more})


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


def ends(uid, *beats):
    """n2 has been restarted. Since then, the nodes have sent these heartbeats."""
    answer(uid, "n2", inventory=inventory(installed()))
    say(*beats)
    advance(uid)


def test_a_replica_that_its_master_needs(released):
    ends(released, beat("n1", master("a:2", "a:3", state="send_bulk")))
    row = operation(released, "n3")
    assert (row.phase, row.reason) == ("scheduled", Reason.MIN_REPLICAS)
    assert "0 good replicas" in of_node(released, "n3").document["summary"]
    say(beat("n1", master("a:2", "a:3")))
    advance(released)
    assert phases(released)["n3"] == "queued"


def test_a_replica_that_has_become_a_master(released):
    ends(released, beat("n1", master("a:2")), beat("n3", master_of(**STOCK, addresses=("a:3",))))
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


# --- Big data ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"save_problem": "The last BGSAVE of the server has failed."}, "The last BGSAVE of the server has failed"),
        ({"restart": ""}, "It is not known if n1 can save them"),
        ({"problem": "server_unreachable"}, "It is not known if n1 can save them"),
    ],
)
def test_a_master_that_must_not_save(released, changes, words):
    """Its replica has an append-only file, so it gets all data after its restart."""
    ends(released, beat("n1", master("a:2", "a:3", **changes)))
    row = operation(released, "n3")
    assert (row.phase, row.reason) == ("scheduled", Reason.SAVE_UNSAFE)
    assert f"n3 then needs all data of n1. {words}" in of_node(released, "n3").document["summary"]
    say(beat("n1", master("a:2", "a:3")))
    advance(released)
    assert phases(released)["n3"] == "queued"


def test_a_master_whose_replica_continues_where_it_was(released):
    above = master("a:2", "a:3", save_problem="The last BGSAVE of the server has failed.")
    ends(released, beat("n1", above), beat("n3", replica("n3", aof_enabled=False)))
    assert phases(released)["n3"] == "queued"


def test_the_heartbeat_of_the_master_is_newer_than_the_last_restart(released):
    """It may still list the replica that has just failed to start."""
    answer(released, "n2", Phase.FAILED, reason=Reason.RESTART_FAILED)
    advance(released)
    row = operation(released, "n3")
    assert (row.phase, row.reason) == ("scheduled", "")
    assert "the next heartbeat of n1" in of_node(released, "n3").document["summary"]
    say(beat("n1", master("a:2", "a:3")))
    advance(released)
    assert phases(released)["n3"] == "queued"


@pytest.mark.parametrize("looping", ["n1", "n2", "n3"])
def test_a_copy_that_synchronizes_again_and_again(released, looping):
    begun = {"n1": 1, "n2": 1, "n3": 1, looping: 2}
    copies = [beat(name, replica(name, full_syncs=begun[name])) for name in ("n2", "n3")]
    ends(released, beat("n1", master("a:2", "a:3", full_syncs=begun["n1"])), *copies)
    row = operation(released, "n3")
    assert (row.phase, row.reason) == ("scheduled", Reason.SYNC_LOOP)
    words = f"{looping}, a copy of its shard, which has begun 2 full synchronizations within 10 minutes"
    assert words in of_node(released, "n3").document["summary"]
    say(beat("n1", master("a:2", "a:3")), beat("n2", replica("n2")), beat("n3", replica("n3")))
    advance(released)
    assert phases(released)["n3"] == "queued"


def test_a_load_does_not_wait_for_a_shard_that_synchronizes_again_and_again(shard):
    say(beat("n2", replica("n2", full_syncs=2)))
    assert operation(start(nodes=("n3",), careful=ALL_AT_ONCE), "n3").phase == "queued"


CHILD = {"save_problem": "BGSAVE is in progress."}


@pytest.fixture
def neighbours(shard):
    """n4 is on the host of n1, n5 on that of n2."""
    join("n4", "n5")
    say(
        beat("n1", master("a:2", "a:3"), host="h1"),
        beat("n2", replica("n2"), host="h2"),
        beat("n3", replica("n3"), host="h3"),
        beat("n4", master_of(**STOCK, addresses=("b:4",)), host="h1"),
        beat("n5", master_of(**STOCK, addresses=("b:5",)), host="h2"),
    )


def restart_n2():
    uid = start(ways=Ways.RESTART, nodes=("n2",), careful=ALL_AT_ONCE)
    return uid, operation(uid, "n2")


@pytest.mark.parametrize(("name", "host"), [("n4", "n1"), ("n5", "n2")])
@pytest.mark.parametrize(
    "state", [{"loading": True}, {"async_loading": True}, {"master_sync_in_progress": True}, CHILD]
)
def test_a_server_at_work_on_the_host_of_the_replica_or_its_master(neighbours, name, host, state):
    quiet = {**STOCK, "addresses": (f"b:{name[1:]}",)}
    say(beat(name, master_of(**{**quiet, **state}), host="h1" if host == "n1" else "h2"))
    uid, row = restart_n2()
    assert (row.phase, row.reason) == ("scheduled", Reason.SAVE_UNSAFE)
    assert f"{name} on the host of {host} to end" in of_node(uid, "n2").document["summary"]
    (wait,) = [each for each in of_rollout(uid).document["waits_for"] if each["what"] == "host_works"]
    assert wait["text"].startswith(name)
    say(beat(name, master_of(**quiet), host="h1" if host == "n1" else "h2"))
    advance(uid)
    assert phases(uid) == {"n2": "queued"}


def test_a_server_at_work_on_another_host_or_for_another_reason(neighbours):
    say(beat("n3", replica("n3", **CHILD), host="h3"))
    say(beat("n4", master_of(**STOCK, addresses=("b:4",), save_problem="The last BGSAVE has failed."), host="h1"))
    assert restart_n2()[1].phase == "queued"


def test_a_host_that_is_not_known_is_one_of_its_own(neighbours):
    say(beat("n2", replica("n2")), beat("n5", master_of(**STOCK, **CHILD, addresses=("b:5",))))
    assert restart_n2()[1].phase == "queued"
    say(beat("n3", replica("n3", **CHILD)))
    uid = start(ways=Ways.RESTART, nodes=("n3",), version=1, careful=ALL_AT_ONCE)
    assert operation(uid, "n3").phase == "scheduled"


@pytest.mark.parametrize("first", ["n2", "n4"])
def test_a_restart_and_a_full_synchronization_on_one_host(neighbours, first):
    """The restart of n2 makes n1 save its data, on the host of n4."""
    upload("other")
    second = {"n2": "n4", "n4": "n2"}[first]
    one = start(ways=Ways.RESTART, nodes=(first,), may_interrupt=True, careful=ALL_AT_ONCE)
    other = start(ways=Ways.RESTART, nodes=(second,), may_interrupt=True, module_name="other", careful=ALL_AT_ONCE)
    assert (phases(one), phases(other)) == ({first: "queued"}, {second: "scheduled"})
    assert operation(other, second).reason == ""
    words = f"the operation on {first}, which makes a server on the host of {'n1' if first == 'n4' else 'n4'} save"
    assert words in of_node(other, second).document["summary"]


def test_the_same_rollout_has_one_of_them_at_a_time(neighbours):
    uid = start(ways=Ways.RESTART, nodes=("n2", "n4"), may_interrupt=True, careful=ALL_AT_ONCE)
    assert sorted(phases(uid).values()) == ["queued", "scheduled"]


def test_a_removal_that_rewrites_an_append_only_file(neighbours):
    uid = start(nodes=("n5",), careful=ALL_AT_ONCE)
    answer(uid, "n5", inventory=inventory(installed()))
    say(beat("n5", master_of(**STOCK, addresses=("b:5",)), host="h2", modules=[installed()]))
    say(beat("n2", replica("n2", **CHILD), host="h2"))
    undo = start(action=Action.REMOVE, nodes=("n5",), careful=ALL_AT_ONCE)
    row = operation(undo, "n5")
    assert (row.phase, row.reason) == ("scheduled", Reason.SAVE_UNSAFE)


@pytest.mark.parametrize("count", [2, 12])
def test_the_rules_cost_the_same_for_any_number_of_nodes(count, django_assert_max_num_queries):
    upload()
    names = [f"n{number}" for number in range(2, count + 2)]
    join("n1", *names)
    say(beat("n1", master(*(f"a:{each[1:]}" for each in names)), host="h1"))
    say(*(beat(each, replica(each), host=f"h {each}") for each in names))
    uid = start(ways=Ways.RESTART, nodes=names, careful=ALL_AT_ONCE)
    assert Counter(phases(uid).values()) == {"queued": 1, "scheduled": count - 1}
    with django_assert_max_num_queries(25):
        advance(uid)
