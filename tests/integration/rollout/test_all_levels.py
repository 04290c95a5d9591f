"""Failovers between waves, and shards with several levels."""

from dataclasses import replace

import pytest

from rollout.domain.errors import UnmanagedReplicaError
from rollout.domain.request import RolloutRequest
from rollout.messages import Action, Phase, Reason
from rollout.models import ShardMember
from rollout.planning.planner import plan_of
from rollout.process.advance import advance
from rollout.process.offline_nodes import declare_silent_nodes_offline
from rollout.process.timeouts import end_overdue_operations
from rollout.services.ignored_replicas import ignore_replica
from rollout.services.nodes import decommission_node
from tests.integration.rollout.shard_of_four import ALL_AT_ONCE, STATES, order_of, shard
from tests.recorded_fleet import (
    installed,
    inventory,
    operation,
    overdue,
    phases,
    rollout,
    silence,
    start,
)
from tests.recorded_fleet import say as answer
from tests.recorded_shards import beat, master_of, replica_of, say

pytestmark = [pytest.mark.django_db, pytest.mark.dialect]


def test_a_failover_between_two_waves():
    """The new master waits for its new replica, which the plan has in a later wave."""
    shard()
    uid = start(careful={"canary": 1, "waves": (1, 1)})
    assert [operation(uid, name).wave for name in ("n2", "n4", "n3", "n1")] == [0, 1, 2, 3]
    answer(uid, "n2", inventory=inventory(installed()))
    assert phases(uid)["n4"] == "queued"
    answer(uid, "n4", inventory=inventory(installed()))
    assert phases(uid)["n3"] == "queued"
    answer(uid, "n3", Phase.SCHEDULED, reason=Reason.ROLE_CHANGED, release=1)
    say(
        beat("n3", master_of("a:1", "a:2", "a:4", addresses=("a:3",))),
        beat("n1", replica_of("a:3", addresses=("a:1",))),
        beat("n2", replica_of("a:3", addresses=("a:2",)), modules=[installed()]),
    )
    advance(uid)
    assert phases(uid) == {"n2": "succeeded", "n4": "succeeded", "n3": "scheduled", "n1": "queued"}
    answer(uid, "n1", inventory=inventory(installed()))
    assert phases(uid)["n3"] == "queued"
    answer(uid, "n3", inventory=inventory(installed()))
    assert rollout(uid).phase == "succeeded"


def failed_over(**more):
    """n3 has become the master, in a wave before that of n1, which is its replica now. Only these two are not done."""
    shard()
    uid = start(careful={"canary": 1, "waves": (1, 1), "max_failures": 4, **more})
    for name in ("n2", "n4"):
        answer(uid, name, inventory=inventory(installed()))
    answer(uid, "n3", Phase.SCHEDULED, reason=Reason.ROLE_CHANGED, release=1)
    say(
        beat("n3", master_of("a:1", "a:2", "a:4", addresses=("a:3",))),
        beat("n1", replica_of("a:3", addresses=("a:1",))),
        beat("n2", replica_of("a:3", addresses=("a:2",)), modules=[installed()]),
    )
    return uid


def test_a_node_of_a_later_wave_that_comes_earlier_is_retried():
    uid = failed_over(retries={"limit": 1, "backoff_seconds": 0.0})
    advance(uid)
    answer(uid, "n1", Phase.FAILED, reason=Reason.FETCH_FAILED)
    row = operation(uid, "n1")
    assert (row.phase, row.attempt, operation(uid, "n3").phase) == ("queued", 2, "scheduled")


def test_a_node_of_a_later_wave_that_comes_earlier_and_is_offline_is_skipped():
    uid = failed_over(offline="skip")
    silence("n1")
    declare_silent_nodes_offline()
    advance(uid)
    row = operation(uid, "n3")
    assert (phases(uid)["n1"], row.phase, row.reason) == ("skipped", "skipped", "replica_lacks_module")
    assert rollout(uid).phase == "succeeded"


def test_a_replica_that_only_its_new_master_knows_comes_first():
    shard()
    uid = start(careful=ALL_AT_ONCE)
    answer(uid, "n2", Phase.SCHEDULED, reason=Reason.ROLE_CHANGED, release=1)
    say(beat("n2", master_of("a:3", addresses=("a:2",))))
    answer(uid, "n4", inventory=inventory(installed()))
    assert (phases(uid)["n2"], phases(uid)["n3"]) == ("scheduled", "queued")


def test_a_master_waits_for_a_replica_of_a_replica_that_has_the_module():
    shard()
    for name in ("n2", "n3"):
        say(beat(name, STATES[name], modules=[installed()]))
    uid = start(nodes=("n1", "n4"), careful=ALL_AT_ONCE)
    assert phases(uid) == {"n1": "scheduled", "n4": "queued"}
    answer(uid, "n4", Phase.FAILED, reason=Reason.LOAD_FAILED)
    row = operation(uid, "n1")
    assert (row.phase, row.reason) == ("skipped", "replica_lacks_module")


def test_a_removal_takes_its_turn_while_a_late_operation_may_still_load_the_module():
    shard()
    order_of(start(nodes=("n2", "n3", "n4"), careful=ALL_AT_ONCE), installed())
    uid = start(nodes=("n1",), careful=ALL_AT_ONCE, deadline=1.0)
    overdue("n1")
    end_overdue_operations()  # n1 may still get the module
    undo = start(action=Action.REMOVE, careful=ALL_AT_ONCE)
    assert phases(uid)["n1"] == "timed_out"
    assert [name for name, phase in phases(undo).items() if phase == "queued"] == ["n1"]


def test_a_plan_looks_at_all_levels():
    """n3 has the module, its replica n4 does not."""
    shard()
    for name in ("n2", "n3"):
        say(beat(name, STATES[name], modules=[installed()]))
    plan = plan_of(RolloutRequest(action=Action.INSTALL, module_name="greet", version=1, nodes=("n1",)))
    (skipped,) = plan.skipped
    assert (skipped.name, skipped.reason) == ("n1", Reason.REPLICA_LACKS_MODULE)
    assert skipped.message == (
        "n1 is skipped, because it would have to wait for n4, which copies n1 and lacks the module. Include the replica in "
        "the rollout: a master gets a module only after all its replicas."
    )
    plan = plan_of(RolloutRequest(action=Action.INSTALL, module_name="greet", version=1, nodes=("n1", "n4")))
    assert [each.name for each in plan.nodes] == ["n4", "n1"]


def test_a_plan_of_a_removal_looks_at_all_levels():
    """n3 does not have the module, its master and its replica do."""
    shard()
    for name in ("n1", "n2", "n4"):
        say(beat(name, STATES[name], modules=[installed()]))
    request = RolloutRequest(action=Action.REMOVE, module_name="greet", version=1, nodes=("n4",))
    assert [(each.name, each.reason) for each in plan_of(request).skipped] == [("n4", Reason.MASTER_HAS_MODULE)]
    plan = plan_of(replace(request, nodes=("n4", "n1")))
    assert [each.name for each in plan.nodes] == ["n1", "n4"]


def test_an_unmanaged_replica_of_a_replica_stops_the_plan_of_its_master():
    shard()
    say(beat("n3", replica_of("a:1", "a:4", "b:9", addresses=("a:3",)), modules=[installed()]))
    for name in ("n2", "n4"):
        say(beat(name, STATES[name], modules=[installed()]))
    with pytest.raises(UnmanagedReplicaError, match=r"n1 \(b:9\)"):
        start(nodes=("n1",))


def test_a_decommissioned_replica_does_not_split_its_shard():
    shard()
    decommission_node("n3")
    top, below = ShardMember.objects.get(node="n1"), ShardMember.objects.get(node="n4")
    assert (top.replicas, top.unmanaged) == (["n2", "n4"], ["a:3"])
    assert (below.shard, below.depth, below.unmanaged_master) == ("n1", 2, "a:3")
    with pytest.raises(UnmanagedReplicaError, match=r"n1 \(a:3\)"):
        start()
    ignore_replica("a:3", reason="It is replaced tonight")
    uid = start(careful=ALL_AT_ONCE)
    assert order_of(uid, installed()) == ["n2", "n4", "n1"]  # one at a time


def test_a_replica_that_is_decommissioned_during_a_rollout():
    shard()
    uid = start(careful=ALL_AT_ONCE)
    decommission_node("n3")
    assert order_of(uid, installed()) == ["n2", "n4"]
    row = operation(uid, "n1")
    assert (row.phase, row.reason) == ("scheduled", "unmanaged_replica")
