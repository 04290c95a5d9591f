"""The simulator itself: a seed is a run, and its nodes play what they are told to."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.domain.errors import UnmanagedReplicaError
from rollout.domain.placement.events import OperationFinished
from rollout.domain.retries import Retries
from rollout.domain.rollout.commands import Pause
from rollout.domain.strategy import Gate, Offline, OnFailure, Strategy
from rollout.messages import Action, Phase, Reason
from tests.simulation.chance import settle, simulate
from tests.simulation.orders import Deed, Script
from tests.simulation.servers import Traits
from tests.simulation.world import World

ALL = Strategy(canary=0, max_failures="100%", retries=Retries(limit=0))


def played(*scripts, then=Script()):  # noqa: B008  # immutable
    """Each command gets the next script, and `then` once there are none left."""
    left = list(scripts)
    return lambda *_: left.pop(0) if left else then


def run(world, uid, seconds=3000):
    world.run(seconds, until=lambda: world.phase(uid).is_final)
    return str(world.phase(uid))


def reasons(world, uid):
    return {row.node: row.reason for row in world.rows.of(uid)}


@pytest.mark.parametrize("seed", range(5))
def test_a_seed_replays_a_run_exactly(seed):
    assert simulate(seed).log == simulate(seed).log


ONE = """
import django; django.setup()
from hashlib import sha256
from tests.simulation.chance import simulate
print(sha256(repr(simulate(7).log).encode()).hexdigest())
"""


@pytest.mark.slow
def test_a_seed_replays_a_run_in_another_process():
    found = set()
    for seed in ("1", "2"):
        env = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", ONE], env=env, cwd=Path.cwd(), capture_output=True, text=True, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1


def test_nodes_that_succeed_take_as_long_as_they_say():
    world = World(nodes=3, scripts=played(then=Script(seconds=5)))
    uid = world.start(ALL)
    assert run(world, uid, seconds=6) == "succeeded"
    assert world.agents["n000"].disk == {("greet", 1): ("c1", True)}


def test_a_node_that_hangs_times_out():
    world = World(nodes=2, scripts=played(Script(deed=Deed.HANG)))
    uid = world.start(ALL)
    assert run(world, uid) == "completed_with_failures"
    assert reasons(world, uid) == {"n000": Reason.NODE_DEADLINE, "n001": ""}


def test_what_a_node_says_too_late_changes_no_outcome():
    world = World(nodes=2, scripts=played(Script(deed=Deed.LATE)))
    uid = world.start(ALL)
    run(world, uid)
    world.run(400)
    assert world.phases(uid)["n000"] == "timed_out"
    assert [type(each.event).__name__ for each in world.log[-2:]] == ["OperationReportedLate", "NodeInventoryChanged"]


def test_a_node_that_dies_after_the_acknowledgement_is_told_again():
    world = World(nodes=1, scripts=played(Script(deed=Deed.DIE, seconds=20)))
    assert run(world, world.start(ALL)) == "succeeded"


def test_a_node_that_is_cut_off_is_offline_and_waited_for():
    world = World(nodes=2)
    world.cut("n001", 500)
    world.run(100)
    uid = world.start(ALL)
    world.run(100)
    assert world.phases(uid) == {"n000": "succeeded", "n001": "scheduled"}
    assert run(world, uid) == "succeeded"


def test_what_was_sent_to_a_node_that_fell_silent_is_given_back():
    world = World(nodes=1)
    world.cut("n000", 150)
    uid = world.start(ALL)
    world.run(100)
    assert world.phases(uid) == {"n000": "scheduled"}
    assert run(world, uid) == "succeeded"


def test_an_answer_twice_is_one():
    world = World(nodes=1)
    uid = world.start(ALL)
    run(world, uid)
    before = len(world.log)
    report = world.agents["n000"].journal["greet"].report
    assert report
    world.carry_report(report)
    world.run(1)
    assert len(world.log) == before


@pytest.mark.parametrize(("obeys", "phase"), [(True, "canceled"), (False, "succeeded")])
def test_a_node_obeys_a_cancel_or_does_not(obeys, phase):
    world = World(nodes=1, scripts=played(then=Script(obeys_cancel=obeys)))
    uid = world.start(ALL)
    world.run(1)
    world.cancel(uid, "n000")
    run(world, uid)
    assert world.phases(uid) == {"n000": phase}


def test_a_rollout_that_nobody_resumes_stays_paused():
    world = World(nodes=2)
    uid = world.start(ALL)
    world.obey(uid, Pause(rollout=uid))
    world.run(86_400)
    assert str(world.phase(uid)) == "paused"
    settle(world)
    assert str(world.phase(uid)) == "succeeded"


def test_a_rollback_gives_back_the_former_version():
    fails = Script(phase=Phase.FAILED, reason=Reason.LOAD_FAILED)
    world = World(nodes=3)
    run(world, world.start(ALL, version=1))
    world._scripts = played(Script(), fails)
    uid = world.start(Strategy(waves=(1,), on_failure=OnFailure.ROLLBACK), version=2)
    assert run(world, uid) == "rolled_back"
    assert world.agents["n000"].disk == {("greet", 1): ("c1", True)}
    assert world.phases(uid) == {"n000": "rolled_back", "n001": "rolled_back", "n002": "canceled"}


def test_no_tick_stands_between_waves():
    world = World(nodes=4, scripts=played(then=Script(seconds=5)))
    uid = world.start(Strategy(canary=1, waves=(1, 1), offline=Offline.SKIP))
    assert run(world, uid, seconds=4 * 5.1) == "succeeded"


def test_people_cancel_a_node_that_crashes_at_every_command():
    world = World(nodes=1, scripts=played(then=Script(deed=Deed.DIE, seconds=120)))
    uid = world.start(ALL)
    settle(world)
    assert world.events(uid).count("RolloutPaused") > 1
    assert (str(world.phase(uid)), world.phases(uid)) == ("aborted", {"n000": "canceled"})


def test_a_node_whose_server_is_away_gets_nothing():
    world = World(nodes=3)
    world.stop_server("n002", 100.0)
    uid = world.start(ALL)
    world.run(50)
    assert world.phases(uid)["n002"] == "scheduled"
    assert run(world, uid) == "succeeded"


def shard(replicas=2, traits=Traits(), **more):  # noqa: B008  # immutable
    world = World(nodes=0, **more)
    world.join("n000", traits=traits)
    for number in range(replicas):
        world.join(f"n00{number + 1}", master="n000", traits=traits)
    world.run(20)
    return world


def succeeded(world):
    found = [each.event for each in world.log if isinstance(each.event, OperationFinished)]
    return [each.node for each in found if each.phase == Phase.SUCCEEDED]


def test_replicas_come_before_their_master_and_after_it_in_a_removal():
    world = shard()
    assert run(world, world.start(ALL)) == "succeeded"
    assert run(world, world.start(ALL, action=Action.REMOVE)) == "succeeded"
    assert succeeded(world) == ["n001", "n002", "n000", "n000", "n001", "n002"]


def test_a_server_that_loads_data_returns_the_operation_and_gets_it_again():
    world = World(nodes=1)
    uid = world.start(ALL)
    world.load_data("n000", 30.0)
    assert run(world, uid) == "succeeded"
    row = world.known_operation(uid, "n000")
    assert (row.attempt, row.releases) == (1, 2)


def test_a_command_that_comes_twice_is_answered_with_the_same_return():
    world = World(nodes=1)
    uid = world.start(ALL)
    world.load_data("n000", 3.0)
    world.run(2)
    agent = world.agents["n000"]
    (first,) = [each.order for each in agent.journal.values()]
    world.run(5)
    agent.hear(first)
    assert agent.working is None
    assert run(world, uid) == "succeeded"


def test_after_a_failover_a_replica_of_a_later_wave_comes_earlier():
    world = shard(scripts=played(then=Script(seconds=5)))
    uid = world.start(Strategy(canary=1, waves=(1, 1), gate=Gate.MANUAL))
    world.run(10)
    first = succeeded(world)[0]
    world.fail_over("n000")
    world.run(600, until=lambda: {each.master for each in world.servers} != {"", "n000"})
    settle(world)
    assert str(world.phase(uid)) == "succeeded"
    (master,) = [each.name for each in world.servers if not each.master]
    assert succeeded(world)[0] == first
    assert master in succeeded(world)


def with_unmanaged_replica(*ignored):
    world = shard(replicas=1)
    world.add_unmanaged("u000", "n001")
    for each in ignored:
        world.ignore(each)
    world.run(20)
    return world


def test_a_master_above_a_replica_without_an_agent_gets_nothing():
    world = with_unmanaged_replica()
    with pytest.raises(UnmanagedReplicaError):
        world.start(ALL)
    uid = world.start(ALL, action=Action.REMOVE)
    assert run(world, uid) == "succeeded"


def test_with_an_ignored_replica_it_gets_the_module():
    world = with_unmanaged_replica("u000:6379")
    assert run(world, world.start(ALL)) == "succeeded"
    assert succeeded(world) == ["n001", "n000"]


def test_a_replica_without_an_agent_that_appears_is_waited_for():
    world = shard(replicas=1)
    uid = world.start(replace(ALL, ready_deadline_seconds=60.0))
    world.add_unmanaged("u000", "n001")
    run(world, uid)
    assert succeeded(world) == []
    assert reasons(world, uid)["n001"] == Reason.UNMANAGED_REPLICA


def test_the_direction_of_a_change_waits_for_a_late_operation():
    """A server with version 9 gets version 1 too late: version 3 is an upgrade for it now, and its replica lacks it."""
    world = late_downgrade()
    world.run(100)
    assert world.agents["n000"].loaded("greet") == 1


def late_downgrade():
    """A timed out operation may still load version 1, while version 3 is about to be released."""
    world = World(nodes=0, scripts=played(Script(deed=Deed.LATE, seconds=30)))
    world.join("n000", {("greet", 9): ("c9", True)})
    world.add_unmanaged("u000", "n000")
    world.run(20)
    hasty = replace(ALL, node_deadline_seconds=20.0)
    run(world, world.start(hasty))
    world.start(hasty, version=3)
    return world
