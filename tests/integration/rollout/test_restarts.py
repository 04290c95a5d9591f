"""Which nodes a plan restarts, and which it skips because they must not be restarted."""

from dataclasses import replace
from datetime import timedelta

import pytest

from eventstore import database_now
from rollout.delivery import ingestion
from rollout.domain.request import RolloutRequest
from rollout.domain.retries import Retries
from rollout.domain.rollout.events import RolloutPhase
from rollout.messages import Action, Activation, Phase, Reason, Replica, ServerState, Way, Ways
from rollout.models import Liveness, NodeFacts, Operation, Rollout
from rollout.planning.planner import plan_of
from rollout.process.advance import advance
from rollout.process.timeouts import end_overdue_operations
from rollout.reconciliation.reconciler import reconcile
from rollout.services.rollback import roll_back_rollout
from tests.recorded_fleet import (
    fleet,
    installed,
    inventory,
    join,
    operation,
    overdue,
    report_of,
    rollout,
    start,
    upload,
)
from tests.recorded_shards import beat, master_of, replica_of, say

pytestmark = pytest.mark.django_db

REQUEST = RolloutRequest(action=Action.INSTALL, module_name="greet", version=1, ways=Ways.AUTO)
REFUSES = [{"check": "enable_module_command", "status": "warn", "message": "no", "fix": ""}]
ALLOWED = {"restart": "shutdown", "min_replicas_to_write": 0, "persistence": "rewrite"}
DURABLE = {"aof_enabled": True}


def stock(name, state, *, modules=(), **more):
    """A heartbeat of a node whose server refuses MODULE LOAD, and has loaded these modules."""
    return beat(name, replace(state, **{**ALLOWED, **more}), modules=modules) | {"doctor": REFUSES}


def shard(*, modules=(), **of_master):
    """A master and its replicas, all of them stock servers."""
    addresses = ["a:2", "a:3"]
    online = tuple(Replica(address=each, state="online") for each in addresses)
    master = replace(master_of(*addresses, addresses=("a:1",)), replicas=online)
    copies = [replica_of("a:1", addresses=(each,)) for each in addresses]
    say(
        stock("n0000", master, modules=modules, **of_master),
        *(stock(f"n{number + 1:04}", each, modules=modules) for number, each in enumerate(copies)),
    )


def planned(**changes):
    """Way and failover by node, and the reasons of the skipped ones."""
    plan = plan_of(replace(REQUEST, **changes))
    ways = {each.name: (each.way, each.restart.failover if each.restart else "") for each in plan.nodes}
    return ways, {each.name: each.reason for each in plan.skipped}


def test_a_server_that_loads_modules_is_not_restarted():
    fleet(1)
    assert planned() == ({"n0000": (Way.LOAD, "")}, {})


def test_a_server_alone():
    fleet(1)
    say(stock("n0000", master_of(), **DURABLE))
    assert planned() == ({}, {"n0000": Reason.RESTART_REQUIRED})
    assert planned(may_interrupt=True) == ({"n0000": (Way.RESTART, "")}, {})
    assert planned(may_interrupt=True, ways=Ways.LOAD) == ({}, {"n0000": Reason.RESTART_REQUIRED})
    assert planned(activation=Activation.FILES) == ({"n0000": (Way.LOAD, "")}, {})
    say(stock("n0000", master_of(), aof_enabled=False, save_points=""))
    assert planned(may_interrupt=True) == ({}, {"n0000": Reason.WOULD_LOSE_DATA})


def test_a_shard_that_fails_over():
    fleet(3)
    shard(failover="command")
    ways, skips = planned()
    assert (list(ways), skips) == (["n0001", "n0002", "n0000"], {})  # the master last
    assert ways == {"n0001": (Way.RESTART, ""), "n0002": (Way.RESTART, ""), "n0000": (Way.RESTART, "command")}


@pytest.mark.parametrize("node", ["n0000", "n0001"])
def test_a_server_that_cannot_be_used_now(node):
    """It may be in the middle of a restart. Before its release, it is known what it is."""
    fleet(3)
    shard(failover="command")
    say(stock(node, ServerState(problem="server_unreachable")))
    ways, skips = planned()
    assert (sorted(ways), skips) == (["n0000", "n0001", "n0002"], {})


def test_a_master_whose_agent_has_found_that_no_replica_can_take_over():
    fleet(3)
    shard(failover="command")
    found = {"check": "failover", "status": "warn", "message": "no", "fix": "Each replica has replica-priority 0."}
    beats = stock("n0000", master_of("a:2", "a:3", addresses=("a:1",)), failover="command")
    say(beats | {"doctor": [*REFUSES, found]})
    plan = plan_of(REQUEST)
    (skipped,) = plan.skipped
    assert (skipped.name, skipped.reason) == ("n0000", Reason.RESTART_REQUIRED)
    assert skipped.message.endswith("Each replica has replica-priority 0.")


def test_a_replica_whose_file_would_load_a_module_twice_after_the_failover():
    fleet(3)
    shard(failover="command")
    say(stock("n0002", replica_of("a:1", addresses=("a:3",)), persistence="include"))
    ways, skips = planned()
    assert (sorted(ways), skips) == (["n0001", "n0002"], {"n0000": Reason.RESTART_REQUIRED})
    shard(failover="cluster", persistence="include")
    assert planned()[1] == {}


def test_a_shard_that_does_not_fail_over():
    """Its replicas are restarted, its master is not."""
    fleet(3)
    shard(failover="none")
    assert planned(may_interrupt=True, may_discard_data=True) == (
        {"n0001": (Way.RESTART, ""), "n0002": (Way.RESTART, "")},
        {"n0000": Reason.RESTART_REQUIRED},
    )


def test_a_removal_goes_to_the_replicas_first():
    fleet(3)
    shard(modules=[installed()], failover="command")
    ways, skips = planned(action=Action.REMOVE)
    assert (list(ways), skips) == (["n0001", "n0002", "n0000"], {})


def test_a_removal_from_a_shard_that_does_not_fail_over():
    """A replica must not lose what its master keeps."""
    fleet(3)
    shard(modules=[installed()], failover="none")
    assert planned(action=Action.REMOVE) == (
        {},
        {
            "n0000": Reason.RESTART_REQUIRED,
            "n0001": Reason.MASTER_HAS_MODULE,
            "n0002": Reason.MASTER_HAS_MODULE,
        },
    )


def test_one_server_of_a_shard_that_needs_it_decides_for_all():
    fleet(3)
    shard(failover="command")
    say(beat("n0001", replica_of("a:1", addresses=("a:2",), **ALLOWED)))  # it loads modules
    ways, _ = planned()
    assert {way for way, _ in ways.values()} == {Way.RESTART}


def test_the_reconciler_restarts_no_server():
    """It says that a restart is needed."""
    fleet(1)
    say_succeeded(start(), "n0000")
    join("new")
    say(stock("new", master_of(), **DURABLE))
    reconcile()
    own = Operation.objects.get(node="new")
    assert (own.way, own.phase, own.reason) == (Way.LOAD, Phase.SKIPPED, Reason.RESTART_REQUIRED)
    reconcile()
    assert Operation.objects.filter(node="new").count() == 1


@pytest.mark.parametrize(
    ("reason", "phase"),
    [
        (Reason.FAILOVER_NOT_POSSIBLE, Phase.SKIPPED),
        (Reason.PRE_COMMAND_FAILED, Phase.SKIPPED),
        (Reason.LOAD_FAILED, Phase.FAILED),
    ],
)
def test_what_prevents_a_restart_is_no_failure(reason, phase):
    """For any other reason, a node that says that nothing is to do must have the module."""
    fleet(1)
    uid = start()
    say_reported(uid, "n0000", Phase.SKIPPED, reason=reason, inventory=inventory())
    assert operation(uid, "n0000").phase == phase


def test_a_failed_restart_is_not_retried_by_itself():
    fleet(1)
    say(stock("n0000", master_of(), **DURABLE))
    retries = Retries(limit=3, backoff_seconds=0, reasons=(Reason.RESTART_FAILED, Reason.SERVER_UNREACHABLE))
    careful = {"canary": 0, "max_failures": "100%", "retries": retries}
    uid = start(ways=Ways.AUTO, may_interrupt=True, careful=careful)
    say_reported(uid, "n0000", Phase.FAILED, reason=Reason.SERVER_UNREACHABLE)
    advance(uid)
    assert (operation(uid, "n0000").attempt, operation(uid, "n0000").phase) == (1, Phase.FAILED)


def test_a_rollback_restarts_what_the_rollout_has_restarted():
    fleet(1)
    upload(version=2, content="c2")
    say(stock("n0000", master_of(), **DURABLE))
    say_succeeded(start(ways=Ways.AUTO, may_interrupt=True), "n0000")
    uid = start(version=2, ways=Ways.AUTO, may_interrupt=True)
    say_succeeded(uid, "n0000", installed(2, "c2"))
    undoing = roll_back_rollout(uid)
    advance(undoing)
    row = operation(undoing, "n0000")
    assert (row.rollback, row.way, row.version) == (True, Way.RESTART, 1)


def test_so_does_the_rollback_of_a_first_installation():
    fleet(1)
    say(stock("n0000", master_of(), **DURABLE))
    uid = start(ways=Ways.AUTO, may_interrupt=True)
    say_succeeded(uid, "n0000")
    undoing = roll_back_rollout(uid)
    advance(undoing)
    row = operation(undoing, "n0000")
    assert (row.action, row.way, row.version) == (Action.REMOVE, Way.RESTART, 1)


def test_no_deadline_runs_while_a_server_is_restarted():
    fleet(1)
    say(stock("n0000", master_of(), **DURABLE))
    uid = start(ways=Ways.AUTO, may_interrupt=True, deadline=60.0)
    say_reported(uid, "n0000", Phase.RESTARTING)
    say(stock("n0000", master_of(), maintenance="restart", **DURABLE))
    overdue("n0000")
    assert end_overdue_operations() == 0
    say(stock("n0000", master_of(), **DURABLE))  # the report is still on its way
    assert end_overdue_operations() == 0
    last_said(seconds_ago=61)
    assert end_overdue_operations() == 1
    assert operation(uid, "n0000").reason == Reason.NODE_DEADLINE


def test_the_progress_deadline_starts_again_after_a_restart():
    """The end of the restart may be heard before the success."""
    fleet(1)
    say(stock("n0000", master_of(), **DURABLE))
    uid = start(ways=Ways.AUTO, may_interrupt=True, careful={"progress_deadline_seconds": 30.0})
    say_reported(uid, "n0000", Phase.RESTARTING)
    Rollout.objects.update(progressed_at=database_now() - timedelta(seconds=100))
    for maintenance in ("restart", ""):
        say(stock("n0000", master_of(), maintenance=maintenance, **DURABLE))
        advance(uid)
        assert rollout(uid).phase == RolloutPhase.RUNNING
    last_said(seconds_ago=60 + 31)
    advance(uid)
    assert (rollout(uid).phase, rollout(uid).reason) == (RolloutPhase.PAUSED, Reason.PROGRESS_DEADLINE)


def last_said(*, seconds_ago):
    """The node has spoken of its restart before."""
    Liveness.objects.update(restarting_at=database_now() - timedelta(seconds=seconds_ago))


def test_a_restart_by_the_agent_is_no_crash():
    fleet(1)
    run_ids = [letter * 40 for letter in "abcd"]
    say(stock("n0000", master_of(), run_id=run_ids[0]))
    say(stock("n0000", master_of(), run_id=run_ids[1], ended=(run_ids[0],)))
    assert NodeFacts.objects.get(node="n0000").restarts == []
    say(stock("n0000", master_of(), run_id=run_ids[2], ended=(run_ids[0],)))
    assert len(NodeFacts.objects.get(node="n0000").restarts) == 1


def say_reported(uid, node, phase, **more):
    ingestion.record_reports([report_of(uid, node, phase, **more)])


def say_succeeded(uid, node, has=None):
    say_reported(uid, node, Phase.SUCCEEDED, inventory=inventory(has or installed()))
    advance(uid)
