"""Rollouts in shards: replicas before their master, and one copy at a time."""

from datetime import timedelta

import pytest

from eventstore import database_now, read
from rollout.domain.errors import UnmanagedReplicaError
from rollout.domain.request import RolloutRequest
from rollout.messages import Action, Activation, Phase, Reason
from rollout.models import Liveness, Operation
from rollout.planning.planner import plan_of
from rollout.process.advance import advance
from rollout.process.timeouts import end_overdue_operations
from rollout.queries.explanations import of_node, of_rollout
from rollout.services.rollback import roll_back_rollout
from tests.integration.rollout.shard_of_four import ALL_AT_ONCE, STATES, order_of, passes, shard
from tests.recorded_fleet import (
    grew,
    installed,
    inventory,
    join,
    operation,
    overdue,
    phases,
    rollout,
    start,
    upload,
)
from tests.recorded_fleet import say as answer
from tests.recorded_shards import beat, master_of, say

pytestmark = [pytest.mark.django_db, pytest.mark.dialect]


def test_an_install_goes_from_the_deepest_replica_to_the_master():
    shard()
    uid = start(careful=ALL_AT_ONCE)
    assert order_of(uid, installed()) == ["n2", "n4", "n3", "n1"]
    assert rollout(uid).phase == "succeeded"


def test_a_removal_goes_the_other_way():
    shard()
    order_of(start(careful=ALL_AT_ONCE), installed())
    uid = start(action=Action.REMOVE, careful=ALL_AT_ONCE)
    assert order_of(uid) == ["n1", "n2", "n3", "n4"]
    assert rollout(uid).phase == "succeeded"


def test_a_rollback_takes_the_reverse_order():
    shard()
    uid = start(careful=ALL_AT_ONCE)
    order_of(uid, installed())
    roll_back_rollout(uid)
    undo = rollout(uid).rolled_back_by
    assert order_of(undo) == ["n1", "n2", "n3", "n4"]
    assert rollout(undo).phase == "rolled_back"


def test_a_downgrade_goes_to_the_master_first():
    shard()
    upload(version=2, content="c2")
    order_of(start(version=2, careful=ALL_AT_ONCE), installed(2, "c2"))
    files = installed(2, "c2", loaded=False)
    assert order_of(start(careful=ALL_AT_ONCE), installed(), files) == ["n1", "n2", "n3", "n4"]


def test_files_have_no_order():
    shard()
    uid = start(activation=Activation.FILES, careful=ALL_AT_ONCE)
    assert set(phases(uid).values()) == {"queued"}


def test_the_canary_of_a_shard_is_a_replica_and_the_plan_shows_the_shard():
    shard()
    plan = plan_of(RolloutRequest(action=Action.INSTALL, module_name="greet", version=1))
    assert [(each.name, each.wave, each.role, each.shard) for each in plan.nodes] == [
        ("n2", 0, "replica", "n1"),
        ("n4", 1, "replica", "n1"),
        ("n3", 1, "replica", "n1"),
        ("n1", 1, "master", "n1"),
    ]


def test_a_replica_that_is_no_node_stops_the_plan():
    shard()
    say(beat("n1", master_of("a:2", "a:3", "b:9", addresses=("a:1",))))
    with pytest.raises(UnmanagedReplicaError, match=r"n1 \(b:9\).*ignore-replica b:9"):
        start()
    start(nodes=("n2",))  # it is a replica itself


def test_a_replica_that_is_no_node_appears_after_the_plan():
    shard()
    uid = start(careful=ALL_AT_ONCE)
    say(beat("n1", master_of("a:2", "a:3", "b:9", addresses=("a:1",))))
    order_of(uid, installed())
    row = operation(uid, "n1")
    assert (row.phase, row.reason) == ("scheduled", "unmanaged_replica")
    assert "b:9, which copies n1 and is no node of the fleet" in of_node(uid, "n1").document["summary"]
    say(beat("n1", STATES["n1"]))
    assert phases(uid)["n1"] == "queued"


def test_a_master_alone_is_skipped_and_so_is_a_replica_on_a_removal():
    shard()
    plan = plan_of(RolloutRequest(action=Action.INSTALL, module_name="greet", version=1, nodes=("n1", "n4")))
    assert [each.name for each in plan.nodes] == ["n4"]
    (skipped,) = plan.skipped
    assert (skipped.name, skipped.reason) == ("n1", Reason.REPLICA_LACKS_MODULE)
    order_of(start(careful=ALL_AT_ONCE), installed())
    plan = plan_of(RolloutRequest(action=Action.REMOVE, module_name="greet", version=1, nodes=("n4", "n1")))
    assert [(each.name, each.reason) for each in plan.skipped] == [("n4", Reason.MASTER_HAS_MODULE)]


def test_an_agent_that_does_not_check_the_role_gets_nothing_in_a_shard():
    shard()
    Liveness.objects.filter(node="n4").update(capabilities=["files", "load", "remove", "undo"])
    plan = plan_of(RolloutRequest(action=Action.INSTALL, module_name="greet", version=1))
    assert {each.name: each.reason for each in plan.skipped} == {
        "n4": Reason.AGENT_TOO_OLD,
        "n3": Reason.REPLICA_LACKS_MODULE,
        "n1": Reason.REPLICA_LACKS_MODULE,
    }


def test_a_failed_replica_keeps_the_module_from_its_master():
    shard()
    uid = start(careful=ALL_AT_ONCE)
    answer(uid, "n2", Phase.FAILED, reason=Reason.LOAD_FAILED)
    assert order_of(uid, installed()) == ["n4", "n3"]
    row = operation(uid, "n1")
    assert (row.phase, row.reason) == ("skipped", "replica_lacks_module")


def test_two_rollouts_never_change_two_copies_of_a_shard():
    shard()
    upload("other")
    first = start(careful=ALL_AT_ONCE)
    second = start(module_name="other", nodes=("n4",), careful=ALL_AT_ONCE)
    assert (phases(first)["n2"], phases(second)) == ("queued", {"n4": "scheduled"})
    (wait,) = of_rollout(second).document["waits_for"][:1]
    assert (wait["what"], wait["text"]) == ("shard_busy", "the operation on n2, another copy of the shard of n4")
    answer(first, "n2", inventory=inventory(installed()))
    released = [
        name for name, phase in (phases(first) | {"other n4": phases(second)["n4"]}).items() if phase == "queued"
    ]
    assert len(released) == 1


def test_an_operation_that_was_given_up_still_keeps_its_shard():
    """The node may still carry out the command that it has not answered."""
    shard()
    uid = start(careful=ALL_AT_ONCE, deadline=1.0)
    assert phases(uid)["n2"] == "queued"
    overdue("n2")
    end_overdue_operations()
    assert phases(uid) == {"n1": "scheduled", "n2": "timed_out", "n3": "scheduled", "n4": "scheduled"}
    Operation.objects.filter(node="n2").update(may_run_until=database_now())
    advance(uid)
    assert phases(uid)["n4"] == "queued"


def test_a_rollout_that_only_waits_for_a_late_operation_is_not_stopped():
    shard()
    uid = start(careful=ALL_AT_ONCE | {"progress_deadline_seconds": 600.0}, deadline=7200.0)
    overdue("n2")
    end_overdue_operations()
    passes(uid, 600)
    assert grew(lambda: advance(uid)) == 1
    (event,) = [each.event for each in read() if each.type == "rollout.deadline_extended.v1"]
    assert event.message == "the operation on n2, another copy of the shard of n4"
    passes(uid, 299)
    assert grew(lambda: advance(uid)) == 0
    Operation.objects.filter(node="n2").update(may_run_until=database_now())
    advance(uid)
    assert (rollout(uid).phase, phases(uid)["n4"]) == ("running", "queued")
    passes(uid, 301)  # half of the time was left
    advance(uid)
    assert (rollout(uid).phase, rollout(uid).reason) == ("paused", "progress_deadline")


def test_a_rollout_that_waits_for_another_rollout_on_its_host_is_not_stopped():
    upload()
    upload("other")
    join("n1", "n2")
    say(beat("n1", host="h"), beat("n2", host="h"))
    start(module_name="other", nodes=("n1",), careful=ALL_AT_ONCE)
    uid = start(nodes=("n2",), careful=ALL_AT_ONCE)
    passes(uid, 3600)
    advance(uid)
    assert (rollout(uid).phase, phases(uid)) == ("running", {"n2": "scheduled"})


def test_a_rollout_that_waits_for_an_older_operation_on_its_node_is_not_stopped():
    upload()
    upload(version=2)
    join("n1")
    say(beat("n1"))
    older = start(careful=ALL_AT_ONCE, deadline=7200.0)
    uid = start(version=2, supersede=True, careful=ALL_AT_ONCE | {"progress_deadline_seconds": 600.0})
    began = rollout(uid).progressed_at
    assert began
    assert advance(uid) == began + timedelta(seconds=300)
    passes(uid, 600)
    assert grew(lambda: advance(uid)) == 1
    (event,) = [each.event for each in read() if each.type == "rollout.deadline_extended.v1"]
    assert event.message == "the older operation on n1"
    passes(uid, 299)
    answer(older, "n1")
    advance(uid)
    assert (rollout(uid).phase, phases(uid)) == ("running", {"n1": "queued"})
    passes(uid, 301)  # half of the time was left
    advance(uid)
    assert (rollout(uid).phase, rollout(uid).reason) == ("paused", "progress_deadline")


def test_the_canary_of_a_shard_changes_although_a_replica_of_it_has_the_module():
    shard()
    say(beat("n4", STATES["n4"], modules=[installed()]))
    say(beat("n2", STATES["n2"], modules=[installed()]))
    request = RolloutRequest(action=Action.INSTALL, module_name="greet", version=1)
    waves = {each.name: each.wave for each in plan_of(request).nodes}
    assert [name for name, wave in waves.items() if wave == 0] == ["n3"]
