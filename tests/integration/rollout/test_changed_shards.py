"""Shards that change during a rollout."""

from datetime import timedelta

import pytest

from eventstore import database_now
from rollout.messages import Action, Phase, Reason, SlotMigration
from rollout.models import Operation, ShardMember
from rollout.process.advance import advance
from rollout.queries.explanations import of_rollout
from tests.integration.rollout.shard_of_four import ALL_AT_ONCE, order_of, shard
from tests.recorded_fleet import (
    installed,
    join,
    operation,
    phases,
    rollout,
    start,
    upload,
)
from tests.recorded_fleet import say as answer
from tests.recorded_shards import beat, master_of, replica_of, say

pytestmark = [pytest.mark.django_db, pytest.mark.dialect]


def test_a_node_that_becomes_a_replica_after_the_plan_keeps_the_module_from_its_master():
    shard()
    uid = start(careful=ALL_AT_ONCE)
    join("n5")
    say(beat("n5", replica_of("a:1", addresses=("a:5",))))
    say(beat("n1", master_of("a:2", "a:3", "a:5", addresses=("a:1",))))
    assert order_of(uid, installed()) == ["n2", "n4", "n3"]
    row = operation(uid, "n1")
    assert (row.phase, row.reason) == ("skipped", "replica_lacks_module")
    assert "n5, which copies n1" in row.message


def test_a_node_that_changes_its_shard_during_a_rollout():
    """n2 leaves its shard for the one of n5, which waits for it from then on."""
    shard()
    join("n5")
    say(beat("n5", master_of(addresses=("a:5",))))
    uid = start(careful=ALL_AT_ONCE | {"max_parallel": 1})
    assert [name for name, phase in phases(uid).items() if phase == "queued"] == ["n2"]
    answer(uid, "n2", Phase.SCHEDULED, reason=Reason.ROLE_CHANGED, release=1)
    say(beat("n2", replica_of("a:5", addresses=("a:2",))), beat("n5", master_of("a:2", addresses=("a:5",))))
    say(beat("n1", master_of("a:3", addresses=("a:1",))))
    ShardMember.objects.update(former_shards={})
    advance(uid)
    assert (phases(uid)["n5"], ShardMember.objects.get(node="n2").shard) == ("scheduled", "n5")
    order = order_of(uid, installed())
    assert order.index("n2") < order.index("n5")
    assert order.index("n4") < order.index("n3") < order.index("n1")
    assert rollout(uid).phase == "succeeded"


def test_a_master_that_is_demoted_while_its_operation_is_in_the_broker():
    """Its agent finds another role than the command expects. A removal then goes to the new master first."""
    shard()
    order_of(start(careful=ALL_AT_ONCE), installed())
    uid = start(action=Action.REMOVE, careful=ALL_AT_ONCE)
    row = operation(uid, "n1")
    assert row.expects
    assert (row.phase, row.expects["role"]) == ("queued", "master")
    has = [installed()]
    say(
        beat("n1", replica_of("a:3", addresses=("a:1",)), modules=has),
        beat("n3", master_of("a:1", "a:2", "a:4", addresses=("a:3",)), modules=has),
        beat("n2", replica_of("a:3", addresses=("a:2",)), modules=has),
    )
    advance(uid)
    assert (operation(uid, "n1").phase, operation(uid, "n3").phase) == ("queued", "scheduled")
    answer(uid, "n1", Phase.SCHEDULED, reason=Reason.ROLE_CHANGED, message="It is a replica now.", release=1)
    say(beat("n1", replica_of("a:3", addresses=("a:1",)), modules=has))
    assert order_of(uid)[0] == "n3"
    assert (operation(uid, "n1").attempt, rollout(uid).phase) == (1, "succeeded")


def test_after_ten_minutes_a_wait_for_slots_names_slot_source_target_and_age():
    upload()
    join("n1")
    migrations = (SlotMigration(slots="93", source="10.0.0.1:6379", target="10.0.0.2:6379"),)
    say(beat("n1", master_of(cluster_enabled=True, cluster_state="ok", migrations=migrations)))
    uid = start(careful=ALL_AT_ONCE)
    earlier = database_now() - timedelta(seconds=601)
    Operation.objects.update(waiting_since=earlier, wait_noted_at=earlier)
    advance(uid)
    waits = "the server of n1: Slot 93 migrates from 10.0.0.1:6379 to 10.0.0.2:6379"
    assert operation(uid, "n1").message == f"It waits for {waits}. It has waited for 10 minutes."
    assert of_rollout(uid).document["waits_for"][0]["text"] == waits


def test_a_failover_of_which_only_one_server_has_told():
    """The new master seems to be a shard of its own, and the operation on its sibling to be in another shard."""
    shard()
    uid = start(careful=ALL_AT_ONCE)
    assert phases(uid)["n2"] == "queued"
    say(beat("n3", master_of("a:4", addresses=("a:3",))))
    assert ShardMember.objects.get(node="n4").shard == "n3"
    advance(uid)
    assert {name for name, phase in phases(uid).items() if phase == "queued"} == {"n2"}
    left = (database_now() - timedelta(seconds=61)).timestamp()
    ShardMember.objects.filter(node="n4").update(former_shards={"n1": left})
    advance(uid)
    assert phases(uid)["n4"] == "queued"
