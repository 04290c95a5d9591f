"""What other systems are known to have got wrong, each with where it is told. Ours must not."""

import pytest

from rollout.domain.errors import RollbackOfRollbackError, RolloutFinalError
from rollout.domain.retries import Retries
from rollout.domain.rollout.commands import Abort
from rollout.domain.strategy import Gate, Offline, OnAbort, OnFailure, Strategy
from rollout.messages import Phase, Reason
from rollout.process import offline_nodes, timeouts
from rollout.process.advance import advance
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import abort_rollout
from tests.recorded_fleet import (
    fleet,
    grew,
    installed,
    inventory,
    operation,
    overdue,
    phases,
    rollout,
    say,
    silence,
    start,
    state_of,
)
from tests.simulation.orders import Deed, Script
from tests.simulation.world import World

A, B, C = "n0000", "n0001", "n0002"
NO_RETRY = Retries(limit=0)
FAILS = Script(phase=Phase.FAILED, reason=Reason.LOAD_FAILED)


def played(scripts, *, then=None):
    """Scripts by node."""
    return lambda _, order: scripts.get(order.node, then or Script())


# --- A success is recorded though the node runs the old bytes: eclipse-hawkbit/hawkbit#3185


@pytest.mark.parametrize(
    ("has", "observed", "said"),
    [
        (installed(content="old"), "load", "has other bytes: old"),
        (installed(loaded=False), "files", "has not loaded the module"),
        (installed(version=7), "absent", "does not have the module"),
    ],
)
def test_a_node_that_says_success_and_has_something_else_has_failed(db, has, observed, said):
    fleet(2)
    uid = start(careful={})
    say(uid, A, inventory=inventory(has))
    assert (operation(uid, A).phase, operation(uid, A).reason) == ("failed", "inventory_mismatch")
    assert said in operation(uid, A).message
    assert state_of(A) == ("absent", observed, "error")
    assert (rollout(uid).phase, phases(uid)[B]) == ("paused", "scheduled")


def test_a_canary_that_falls_back_to_the_old_bytes_stops_the_rollout():
    world = World(nodes=3)
    uid = world.start(Strategy(soak_seconds=60))
    world.run(20)
    world.drift("n000", 1)
    world.run(100)
    assert world.phase(uid) == "paused"
    assert world.phases(uid) == {"n000": "succeeded", "n001": "scheduled", "n002": "scheduled"}


# --- A rollout hangs for ever on one dead node: eclipse-hawkbit/hawkbit#693


def test_a_node_that_never_answers_times_out(db):
    fleet(2)
    uid = start(careful={"canary": 0, "retries": NO_RETRY})
    say(uid, B)
    overdue(A)
    timeouts.end_overdue_operations()
    assert phases(uid) == {A: "timed_out", B: "succeeded"}
    assert (rollout(uid).phase, rollout(uid).reason) == ("completed_with_failures", "error_threshold")


@pytest.mark.parametrize(("deed", "phase"), [(Deed.HANG, "timed_out"), (Deed.DIE, "scheduled")])
def test_one_dead_node_stops_the_rollout_by_its_deadlines(deed, phase):
    dead = Script(deed=deed, seconds=1e9)
    world = World(nodes=3, scripts=played({"n000": dead}))
    uid = world.start(Strategy(retries=NO_RETRY))
    world.run(300 + 600 + 1)
    assert world.phase(uid) == "paused"
    assert world.phases(uid) == {"n000": phase, "n001": "scheduled", "n002": "scheduled"}


def test_one_node_that_stays_offline_does_not_keep_a_rollout_open_for_ever():
    world = World(nodes=3)
    world.cut("n002", 1e9)
    world.run(100)
    uid = world.start(Strategy(canary=0, on_failure=OnFailure.ABORT))
    world.run(601 + 10)
    assert world.phase(uid) == "aborted"
    assert world.rollouts[uid].reason == Reason.PROGRESS_DEADLINE


# --- A revert that fails starts a revert, and so on: hashicorp/nomad#3496


def test_a_rollback_that_fails_is_the_end_of_it():
    world = World(nodes=3)
    world.start(Strategy(canary=0))
    world.run(60)
    world._scripts = lambda *_: FAILS
    uid = world.start(Strategy(on_failure=OnFailure.ROLLBACK, retries=NO_RETRY), version=2)
    world.run(86_400)
    assert world.phase(uid) == "rollback_failed"
    assert [world.events(uid).count(name) for name in ("RollbackRequested", "RollbackStarted")] == [1, 1]
    assert len(world.rollouts) == 2


def test_a_rollback_is_not_rolled_back(db):
    fleet(1)
    uid = start()
    say(uid, A)
    rollback = roll_back_rollout(uid)
    assert roll_back_rollout(uid) == rollback
    with pytest.raises(RollbackOfRollbackError):
        roll_back_rollout(rollback)


# --- A revert goes through the canary again, while the bad version stays: hashicorp/nomad#10882


def test_a_rollback_skips_the_waves(db):
    fleet(3)
    uid = start(careful={"waves": (1,), "retries": NO_RETRY})
    for name in (A, B, C):
        say(uid, name)
    rollback = roll_back_rollout(uid)
    advance(rollback)
    assert phases(rollback) == {A: "queued", B: "queued", C: "queued"}


# --- An abort with nothing running harms the healthy: argoproj/argo-rollouts#1292


def test_an_abort_of_what_has_ended_changes_nothing(db):
    fleet(2)
    uid = start(careful={"canary": 0, "on_abort": OnAbort.UNDO})
    say(uid, A)
    say(uid, B)
    with pytest.raises(RolloutFinalError):
        abort_rollout(uid)
    assert phases(uid) == {A: "succeeded", B: "succeeded"}
    assert grew(lambda: advance(uid)) == 0


def test_an_abort_with_nothing_in_hand_leaves_those_that_have_it():
    world = World(nodes=3)
    uid = world.start(Strategy(gate=Gate.MANUAL, on_abort=OnAbort.UNDO))
    world.run(60)
    world.obey(uid, Abort(rollout=uid))
    world.run(600)
    assert world.phases(uid) == {"n000": "succeeded", "n001": "canceled", "n002": "canceled"}
    assert world.agents["n000"].disk == {("greet", 1): ("c1", True)}


# --- Failures are counted per batch, so that the fleet fails slowly: ansible/ansible#33672


def test_one_failure_in_each_wave_is_too_many_in_all():
    world = World(nodes=12, scripts=played({"n000": FAILS, "n004": FAILS, "n008": FAILS}))
    uid = world.start(Strategy(canary=0, waves=(4, 4), max_failures=1, retries=NO_RETRY))
    world.run(600)
    assert world.phase(uid) == "paused"
    assert world.rollouts[uid].message == "2 nodes failed in total; the limit is 1."
    assert not world.rows.rollouts[uid].waves[2]["started_at"]


# --- A host that cannot be reached is no failure of the batch: ansible/ansible#3661


def test_a_node_that_cannot_be_reached_counts_as_failed(db):
    fleet(2)
    silence(A)
    offline_nodes.declare_silent_nodes_offline()
    uid = start(careful={"canary": 0, "max_parallel": 1, "offline": Offline.FAIL})
    assert (operation(uid, A).phase, operation(uid, A).reason) == ("failed", "node_unreachable")
    assert rollout(uid).phase == "paused"
