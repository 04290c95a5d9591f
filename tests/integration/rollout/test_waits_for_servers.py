"""Servers that have to wait, and those that are waited for in vain."""

from datetime import timedelta

import pytest

from eventstore import database_now
from rollout.models import Liveness, Operation, Rollout
from rollout.process.advance import advance
from rollout.process.offline_nodes import declare_silent_nodes_offline
from rollout.queries.explanations import of_node, of_rollout
from tests.integration.rollout.shard_of_four import ALL_AT_ONCE, STATES, passes, shard
from tests.recorded_fleet import (
    differences,
    installed,
    inventory,
    join,
    operation,
    phases,
    rollout,
    silence,
    start,
    upload,
)
from tests.recorded_fleet import say as answer
from tests.recorded_shards import beat, master_of, say

pytestmark = [pytest.mark.django_db, pytest.mark.dialect]


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
