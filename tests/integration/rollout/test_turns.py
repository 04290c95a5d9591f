"""Rollouts in shards: replicas before their master, one copy at a time, and servers that have to wait."""

from dataclasses import replace
from datetime import timedelta

import pytest
from django.db.models import F

from eventstore import database_now, head, read
from rollout.domain.errors import UnmanagedReplicaError
from rollout.domain.request import RolloutRequest
from rollout.messages import Action, Activation, Phase, Reason, SlotMigration
from rollout.models import Liveness, Operation, Rollout, ShardMember
from rollout.planning.planner import plan_of
from rollout.process.advance import advance
from rollout.process.offline_nodes import declare_silent_nodes_offline
from rollout.process.timeouts import end_overdue_operations
from rollout.queries.explanations import of_node, of_rollout
from rollout.services.ignored_replicas import ignore_replica
from rollout.services.nodes import decommission_node
from rollout.services.rollback import roll_back_rollout
from tests.recorded_fleet import (
    differences,
    grew,
    installed,
    inventory,
    join,
    operation,
    overdue,
    phases,
    rollout,
    silence,
    start,
    upload,
)
from tests.recorded_fleet import say as answer
from tests.recorded_shards import beat, master_of, replica_of, say

pytestmark = [pytest.mark.django_db, pytest.mark.dialect]

ALL_AT_ONCE = {"canary": 0, "max_parallel": "100%", "max_failures": "100%"}
#: A master, two replicas, and a replica of the second one.
STATES = {
    "n1": master_of("a:2", "a:3", addresses=("a:1",)),
    "n2": replica_of("a:1", addresses=("a:2",)),
    "n3": replica_of("a:1", "a:4", addresses=("a:3",)),
    "n4": replica_of("a:3", addresses=("a:4",)),
}


def shard(**more):
    upload()
    join(*STATES)
    say(*(beat(name, state, **more) for name, state in STATES.items()))


def order_of(uid, *modules):
    """The nodes in the order in which they are released; each one succeeds at once."""
    found: list[str] = []
    advance(uid)
    while released := [name for name, phase in phases(uid).items() if phase == "queued"]:
        found.append(*released)
        answer(uid, released[0], inventory=inventory(*modules))
        advance(uid)
    return found


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
    assert (wait["what"], wait["text"]) == ("shard_busy", "the operation on n2, another copy of its shard")
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
    assert event.message == "the operation on n2, another copy of its shard"
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


def passes(uid, seconds):
    """So much time passes for the progress deadline."""
    row = rollout(uid)
    assert row.progressed_at
    Rollout.objects.filter(uid=uid).update(progressed_at=row.progressed_at - timedelta(seconds=seconds))


def test_two_nodes_of_one_host_are_not_changed_at_the_same_time():
    upload()
    join("n1", "n2", "n3")
    say(beat("n1", host="h"), beat("n2", host="h"), beat("n3", host="i"))
    uid = start(careful=ALL_AT_ONCE)
    assert phases(uid) == {"n1": "queued", "n2": "scheduled", "n3": "queued"}
    answer(uid, "n1", inventory=inventory(installed()))
    assert phases(uid)["n2"] == "queued"


def test_a_server_that_loads_is_waited_for_and_no_deadline_runs():
    upload()
    join("n1")
    uid = start(released=False, careful=ALL_AT_ONCE | {"progress_deadline_seconds": 1.0})
    say(beat("n1", master_of(loading=True)))
    advance(uid)
    row = operation(uid, "n1")
    assert (row.phase, row.reason) == ("scheduled", "server_not_ready")
    assert row.message == "It waits for the server of n1: The server is loading its data."
    Rollout.objects.update(progressed_at=database_now() - timedelta(hours=1))
    advance(uid)
    assert rollout(uid).phase == "running"
    say(beat("n1"))
    row = operation(uid, "n1")
    assert (row.phase, row.reason, row.message) == ("queued", "", "")
    assert differences() == {}


def test_a_server_that_is_never_ready_is_skipped():
    upload()
    join("n1")
    say(beat("n1", master_of(backups=1)))
    uid = start(careful=ALL_AT_ONCE | {"ready_deadline_seconds": 60.0})
    Operation.objects.update(waiting_since=database_now() - timedelta(seconds=61))
    advance(uid)
    row = operation(uid, "n1")
    assert (row.phase, row.reason, rollout(uid).phase) == ("skipped", "backup_running", "succeeded")


def test_an_old_heartbeat_is_not_acted_on():
    upload()
    join("n1")
    Liveness.objects.update(facts_at=database_now() - timedelta(seconds=31), interval_seconds=20.0)
    uid = start(careful=ALL_AT_ONCE)
    assert phases(uid) == {"n1": "scheduled"}
    assert of_node(uid, "n1").document["rule"]["id"] == "heartbeat"
    Liveness.objects.update(facts_at=database_now() - timedelta(seconds=20))
    advance(uid)
    assert phases(uid) == {"n1": "queued"}


def has_module_but(silent):
    """All replicas have the module, and only the master's turn is left; the facts of one replica are old."""
    shard()
    for name in ("n2", "n3", "n4"):
        say(beat(name, STATES[name], modules=[installed()]))
    Liveness.objects.filter(node=silent).update(facts_at=database_now() - timedelta(seconds=300))


@pytest.mark.parametrize("silent", ["n2", "n4"])
def test_a_master_waits_for_a_heartbeat_of_each_replica(silent):
    """It may have been restarted without the module since."""
    has_module_but(silent)
    uid = start(nodes=("n1",), careful=ALL_AT_ONCE)
    row = operation(uid, "n1")
    assert (row.phase, row.reason) == ("scheduled", "replica_silent")
    for why in (of_node(uid, "n1"), of_rollout(uid)):
        assert f"the next heartbeat of {silent}, which copies n1" in why.document["summary"]
    say(beat(silent, STATES[silent], modules=[installed()]))
    advance(uid)
    assert (phases(uid), operation(uid, "n1").reason) == ({"n1": "queued"}, "")


def test_a_replica_that_missed_one_heartbeat_is_not_recorded():
    has_module_but("n4")
    Liveness.objects.filter(node="n4").update(facts_at=database_now() - timedelta(seconds=50))
    uid = start(nodes=("n1",), careful=ALL_AT_ONCE)
    assert (operation(uid, "n1").phase, operation(uid, "n1").reason) == ("scheduled", "")
    assert of_node(uid, "n1").document["rule"]["id"] == "heartbeat"


@pytest.mark.parametrize("offline", ["wait", "skip"])
def test_a_master_whose_replica_stays_offline_is_skipped(offline):
    has_module_but("n4")
    silence("n4")
    declare_silent_nodes_offline()
    uid = start(nodes=("n1", "n4"), careful=ALL_AT_ONCE | {"ready_deadline_seconds": 60.0, "offline": offline})
    advance(uid)
    advance(uid)
    passes(uid, 3600)
    advance(uid)
    assert (rollout(uid).phase, operation(uid, "n1").reason) == ("running", "replica_silent")
    Operation.objects.filter(node="n1").update(waiting_since=database_now() - timedelta(seconds=61))
    advance(uid)
    row = operation(uid, "n1")
    assert (row.phase, row.reason) == ("skipped", "replica_silent")
    assert "the next heartbeat of n4, which copies n1" in row.message


# --- Operations that agents return ------------------------------------------------------------------------------------


def test_a_returned_operation_counts_no_failure_and_is_released_again_after_a_heartbeat():
    shard()
    uid = start(careful={"max_failures": 0})
    assert operation(uid, "n2").expects == {"role": "replica", "master": "a:1", "replicas": []}
    answer(uid, "n2", Phase.SCHEDULED, reason=Reason.ROLE_CHANGED, message="It is a master now.", release=1)
    row = operation(uid, "n2")
    assert (row.phase, row.reason, row.message) == ("scheduled", "role_changed", "It is a master now.")
    assert (row.releases, row.attempt, rollout(uid).phase) == (1, 1, "running")
    say(beat("n2", STATES["n2"]))
    advance(uid)
    row = operation(uid, "n2")
    assert (row.phase, row.releases, row.reason) == ("queued", 2, "")
    answer(uid, "n2", Phase.SCHEDULED, reason=Reason.ROLE_CHANGED, release=1)  # it arrives again
    answer(uid, "n2", Phase.FETCHING, release=1)
    assert operation(uid, "n2").phase == "queued"
    answer(uid, "n2", Phase.FETCHING, release=2)
    assert operation(uid, "n2").phase == "fetching"
    assert differences() == {}


def test_a_server_that_is_ready_only_by_its_heartbeats_is_skipped_in_the_end():
    """Each release is returned at once, and a heartbeat comes every 10 s. Without a pause, that was 18 events each minute."""
    upload()
    join("n1")
    uid = start(released=False, careful=ALL_AT_ONCE | {"ready_deadline_seconds": 600.0})
    before, seconds = head(), 0
    while phases(uid)["n1"] != "skipped" and seconds < 3600:
        advance(uid)
        if (row := operation(uid, "n1")).phase == "queued":
            why = "The server is loading its data."
            answer(uid, "n1", Phase.SCHEDULED, reason=Reason.SERVER_NOT_READY, message=why, release=row.releases)
        for model, columns in (
            (Operation, ("returned_at", "waiting_since", "wait_noted_at")),
            (Rollout, ("progressed_at",)),
        ):
            model.objects.update(**{each: F(each) - timedelta(seconds=30) for each in columns})
        seconds += 30
        say(beat("n1"))
    row = operation(uid, "n1")
    assert (row.phase, row.reason, rollout(uid).phase) == ("skipped", "server_not_ready", "succeeded")
    assert "The agent has returned each of" in row.message
    assert 600 <= seconds <= 600 + 330
    assert head() - before < 30


def test_only_a_heartbeat_counts_after_a_return():
    upload("other")
    shard()
    uid = start(careful={"max_failures": 0})
    other = start(module_name="other", nodes=("n2",), activation=Activation.FILES, careful=ALL_AT_ONCE)
    answer(uid, "n2", Phase.SCHEDULED, reason=Reason.ROLE_CHANGED, release=1)
    answer(other, "n2", module_name="other")
    advance(uid)
    assert (operation(uid, "n2").phase, of_node(uid, "n2").document["rule"]["id"]) == ("scheduled", "heartbeat")
    say(beat("n2", STATES["n2"]))
    advance(uid)
    assert operation(uid, "n2").phase == "queued"


def test_a_report_makes_no_old_facts_fresh():
    shard()
    upload("other")
    other = start(module_name="other", nodes=("n2",), activation=Activation.FILES, careful=ALL_AT_ONCE)
    Liveness.objects.update(facts_at=database_now() - timedelta(seconds=60))
    answer(other, "n2", module_name="other")
    uid = start(nodes=("n2",), careful=ALL_AT_ONCE)
    assert phases(uid) == {"n2": "scheduled"}


def test_what_is_said_before_a_return_and_arrives_after_it():
    shard()
    uid = start(careful={"max_failures": 0})
    answer(uid, "n2", Phase.SCHEDULED, reason=Reason.BACKUP_RUNNING, release=1)
    answer(uid, "n2", Phase.FETCHING, release=1)
    assert operation(uid, "n2").phase == "scheduled"


def test_a_return_without_its_reason_is_rejected():
    shard()
    uid = start(careful={"max_failures": 0})
    answer(uid, "n2", Phase.SCHEDULED, reason=Reason.DISK_FULL)
    assert operation(uid, "n2").phase == "queued"


# --- Failovers --------------------------------------------------------------------------------------------------------


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


# --- A replica that is no node, and has replicas that are nodes


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


# --- What changes during a rollout


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
