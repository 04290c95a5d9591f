"""Each rule is seen to be able to fail: something is broken on purpose, and the rule says so."""

from dataclasses import replace

import pytest

from rollout.domain.placement import rollback
from rollout.domain.placement.commands import Schedule
from rollout.domain.placement.decider import PLACEMENT
from rollout.domain.placement.events import (
    OperationFinished,
    OperationReleased,
    OperationReportedLate,
    OperationScheduled,
    Target,
    placement_stream,
)
from rollout.domain.rollout import releasable
from rollout.domain.rollout import turns as domain_turns
from rollout.domain.rollout.commands import Pause
from rollout.domain.rollout.events import (
    NodesReleased,
    RollbackRequested,
    RolloutResumed,
    WaveFailed,
    WavePhase,
    rollout_stream,
)
from rollout.domain.rollout.step import Step, step
from rollout.domain.rollout.turns import Block, blocked, master_goes_first, out_of_order, together
from rollout.domain.strategy import OnFailure, Strategy
from rollout.domain.topology.places import places_of
from rollout.messages import Activation, Reason
from rollout.planning import shards
from rollout.projections import rollouts
from rollout.queries import turns
from tests.simulation import agents, heartbeats
from tests.simulation.chance import simulate
from tests.simulation.orders import Script
from tests.simulation.rules import Broken
from tests.simulation.test_world import ALL, late_downgrade, played, run, shard
from tests.simulation.world import World

pytestmark = pytest.mark.slow

#: A fault has to show in so many random runs.
SEEDS = 300

# --- A step that is wrong, in random runs


def with_strategy(**changes):
    """A step that takes the strategy for another one."""

    def wrong(state, started, fleet):
        other = replace(started, strategy=replace(started.strategy, **changes))
        return step(replace(state, started=other), other, fleet)

    return wrong


def does_not_stop(state, started, fleet):
    taken = step(state, started, fleet)
    nodes = tuple(each.node for each in fleet.ready[:1])
    if nodes and any(isinstance(each, WaveFailed) for each in taken.events):
        return Step(
            events=[taken.events[0], NodesReleased(rollout=started.rollout, nodes=nodes)], commands=[], wake_at=None
        )
    return taken


def does_not_wait(state, started, fleet):
    phase = WavePhase.PASSED if state.wave_phase == WavePhase.RUNNING else state.wave_phase
    return step(replace(state, wave_phase=phase), started, fleet)


def rolls_back_everything(state, started, fleet):
    if started.rollback_of:
        return Step(events=[RollbackRequested(rollout=started.rollout)], commands=[], wake_at=None)
    return step(state, started, fleet)


def does_nothing(state, started, fleet):
    return Step(events=[], commands=[], wake_at=None)


def never_rests(state, started, fleet):
    return Step(events=[RolloutResumed(rollout=started.rollout)], commands=[], wake_at=None)


def does_not_end(state, started, fleet):
    taken = step(state, started, fleet)
    return taken if fleet.ended < fleet.total else replace(taken, events=[])


def releases_when_frozen(state, started, fleet):
    return step(state, started, replace(fleet, frozen=False))


def forgets_to_wake(state, started, fleet):
    return replace(step(state, started, fleet), wake_at=None)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (with_strategy(max_parallel=100), "max_parallel in progress"),
        (with_strategy(min_healthy=0), "min_healthy stay untouched"),
        (with_strategy(max_failures="100%"), "max_failures"),
        (does_not_stop, "nothing after a threshold"),
        (does_not_wait, "waves one after the other"),
        (rolls_back_everything, "a rollback never starts a rollback"),
        (does_nothing, "what is scheduled has a clock"),
        (never_rests, "advance comes to rest"),
        (does_not_end, "every rollout waits for something"),
        (releases_when_frozen, "nothing while the fleet is frozen"),
        (forgets_to_wake, "everything ends"),
    ],
)
def test_a_step_that_is_wrong_is_found(wrong, rule):
    for seed in range(SEEDS):
        try:
            simulate(seed, step=wrong)
        except Broken as broken:
            if broken.rule.startswith(rule):
                return
    pytest.fail(f"nothing found that breaks: {rule}")


# --- Turns that are wrong


@pytest.mark.parametrize(
    ("block", "rule"),
    [
        (Block.SHARD_BUSY, "one copy of a shard at a time"),
        (Block.HOST_BUSY, "one node of a host at a time"),
        (Block.DOMAIN_BUSY, "one failure domain at a time"),
        (Block.SHARD_ORDER, "replicas before their master"),
        (Block.SHARD_ORDER, "a master before its replicas"),
    ],
)
def test_turns_that_are_wrong_are_found(monkeypatch, block, rule):
    def overlooked(turn, fleet):
        found = blocked(turn, fleet)
        return None if found is not None and found.block == block else found

    monkeypatch.setattr(releasable, "blocked", overlooked)
    monkeypatch.setattr(
        releasable, "together", lambda one, other: None if together(one, other) == block else together(one, other)
    )
    finds(rule)


def finds(rule):
    """Run seeds until the rule breaks."""
    for seed in range(SEEDS):
        try:
            simulate(seed)
        except Broken as broken:
            if broken.rule == rule:
                return
    pytest.fail(f"nothing found that breaks: {rule}")


@pytest.mark.parametrize("rule", ["replicas before their master", "a master before its replicas"])
def test_the_order_the_other_way_round_is_found(monkeypatch, rule):
    def reversed_order(turn, loaded):
        return not master_goes_first(turn, loaded)

    monkeypatch.setattr(domain_turns, "master_goes_first", reversed_order)
    monkeypatch.setattr(shards, "master_goes_first", reversed_order)
    finds(rule)


def test_a_replica_without_an_agent_that_is_overlooked_is_found(monkeypatch):
    def overlooked(servers, ignored):
        return {name: replace(place, unmanaged=()) for name, place in places_of(servers, ignored).items()}

    monkeypatch.setattr(heartbeats, "places_of", overlooked)
    finds("no master before a replica without an agent")


def test_a_shard_that_is_forgotten_in_a_failover_is_found(monkeypatch):
    """While a replica is changed that does not follow the new master yet, the new master is changed."""
    monkeypatch.setattr(turns, "lately_left", lambda *_: {})
    world = shard(scripts=played(then=Script(seconds=40)))
    world.start(ALL, nodes=["n001", "n002"])
    world.servers.promote("n002", world.now)
    world.tell_of("n002")
    breaks("one copy of a shard at a time", world.run, 30)


def test_a_release_without_a_fresh_heartbeat_is_found(monkeypatch):
    monkeypatch.setattr(turns, "FRESH_SECONDS", 1e6)
    world = World(nodes=1)
    world.cut("n000", 60)
    world.run(25)
    breaks("a release needs a fresh heartbeat", world.start, ALL)


def test_a_server_that_is_not_ready_is_found(monkeypatch):
    monkeypatch.setattr(agents, "why_not_ready", lambda *_: None)
    world = World(nodes=1)
    world.start(ALL)
    world.back_up("n000", 30)
    breaks("only a server that is ready", world.run, 10)


def test_a_direction_that_a_late_operation_changes_is_found(monkeypatch):
    """A server with version 9 gets version 1 too late and then version 3: not a downgrade any more."""
    monkeypatch.setattr(domain_turns, "out_of_order", of_idle)
    breaks("no master before a replica without an agent", late_downgrade().run, 100)


def of_idle(turn, place, fleet):
    return out_of_order(turn, place, replace(fleet, busy=()))


def test_a_change_by_an_old_heartbeat_is_found(monkeypatch):
    """Without the agent's own check, a master is changed that has a new replica without the module."""
    monkeypatch.setattr(agents, "what_changed", lambda *_: "")
    world = World(nodes=2)
    world.start(ALL, nodes=["n000"])
    world.replicate("n001", "n000")
    breaks("replicas before their master", world.run, 10)


def test_a_wait_without_end_is_found(monkeypatch):
    def patient(strategy, now, limit, **more):
        return releasable.Releasable(replace(strategy, ready_deadline_seconds=1e6), now, limit, **more)

    monkeypatch.setattr(turns, "Releasable", patient)
    world = World(nodes=1)
    world.load_data("n000", 1e6)
    world.run(20)
    world.start(replace(ALL, ready_deadline_seconds=60.0))
    breaks("each wait ends", world.run, 1000)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [({"attempt": 2}, "a return uses up no attempt"), ({"healthy": False}, "a return is no failure")],
)
def test_a_return_that_counts_is_found(monkeypatch, changes, rule):
    def counts(fold, event, now):
        give_back(fold, event, now)
        vars(fold._operation(event)).update(changes)

    give_back = rollouts.RolloutFold._give_back
    monkeypatch.setattr(rollouts.RolloutFold, "_give_back", counts)
    world = World(nodes=1)
    world.start(ALL)
    world.load_data("n000", 20.0)
    breaks(rule, world.run, 100)


# --- A decider or a fold that is wrong


def test_two_live_operations_are_found():
    def careless(state, command):
        return PLACEMENT.decide(replace(state, live=None) if isinstance(command, Schedule) else state, command)

    world = World(placement=replace(PLACEMENT, decide=careless))
    world.start(ALL)
    breaks("one live operation", world.start, ALL, version=2)


def test_a_rollback_to_something_else_is_found(monkeypatch):
    world = World()
    uid = world.start(ALL)
    run(world, uid)
    two = Target(version=2, activation=Activation.LOAD, content_sha256="c2")
    monkeypatch.setattr(rollback, "restored", lambda *_: (two, None))
    into = world.roll_back(uid)
    breaks("a rollback restores what the node had", run, world, into)


def keeps_what_failed(state, event):
    """As it was: the state before is what was released last, and what fails stays desired."""
    after = PLACEMENT.evolve(state, event)
    if isinstance(event, OperationReleased) and state.live is not None and state.live.before is None:
        assert after.live
        return replace(after, live=replace(after.live, before=state.desired))
    is_over = isinstance(event, OperationFinished) and after.undone
    return replace(after, desired=state.desired, had=state.desired) if is_over else after


def forgets_late_successes(state, event):
    return state if isinstance(event, OperationReportedLate) else PLACEMENT.evolve(state, event)


def knows_no_inventory(state, event):
    return PLACEMENT.evolve(state, replace(event, before=()) if isinstance(event, OperationReleased) else event)


@pytest.mark.parametrize("wrong", [keeps_what_failed, forgets_late_successes, knows_no_inventory])
def test_a_state_before_that_the_node_never_had_is_found(wrong):
    for seed in range(SEEDS):
        try:
            simulate(seed, placement=replace(PLACEMENT, evolve=wrong))
        except Broken as broken:
            if broken.rule in {"a rollback restores what the node had", "what is known is there"}:
                return
    pytest.fail("nothing found")


def test_work_without_a_deadline_is_found(monkeypatch):
    monkeypatch.setattr(World, "_note", lambda *_: None)  # it would want the deadline itself
    monkeypatch.setattr(rollouts, "deadline", lambda *_: None)
    breaks("what is in hand has a deadline", World().start, ALL)


# --- An event that is wrong


def breaks(rule, function, *args, **more):
    with pytest.raises(Broken) as caught:
        function(*args, **more)
    assert caught.value.rule == rule


def record(world, uid, *events):
    world.record([(rollout_stream(uid), event) for event in events])


def test_a_release_while_it_is_paused_is_found():
    world = World()
    uid = world.start(Strategy(max_parallel=1))
    world.obey(uid, Pause(rollout=uid))
    breaks("nothing while it is paused", record, world, uid, NodesReleased(rollout=uid, nodes=("n001",)))


def test_a_release_after_a_threshold_is_found():
    world = World()
    uid = world.start(Strategy(max_parallel=1))
    failed = WaveFailed(rollout=uid, wave=0, reason=Reason.ERROR_THRESHOLD, message="")
    wrong = NodesReleased(rollout=uid, nodes=("n001",))
    breaks("nothing after a threshold", record, world, uid, failed, wrong)


def test_a_second_rollback_is_found():
    world = World()
    uid = world.start(Strategy(on_failure=OnFailure.ROLLBACK))
    wrong = RollbackRequested(rollout=uid)
    breaks("a rollout is rolled back at most once", record, world, uid, wrong, wrong)


def test_an_event_after_the_end_is_found():
    world = World()
    uid = world.start(ALL)
    run(world, uid)
    breaks("final is final", record, world, uid, RolloutResumed(rollout=uid))


def test_an_operation_released_before_its_wave_is_found():
    world = World()
    world.start(Strategy())
    wrong = next(each.event for each in world.log if isinstance(each.event, OperationReleased))
    event = replace(wrong, node="n001")
    breaks("waves one after the other", world.record, [(placement_stream("n001", "greet"), event)])


def test_an_operation_scheduled_twice_is_found():
    world = World()
    world.start(ALL)
    again = next(each for each in world.log if isinstance(each.event, OperationScheduled))
    breaks("one live operation", world.record, [(again.stream, again.event)])


def test_a_counter_that_is_wrong_is_found():
    world = World()
    uid = world.start(ALL)
    world.rows.rollouts[uid].succeeded += 1
    breaks("counters add up", run, world, uid)


def ended():
    world = World()
    uid = world.start(ALL)
    run(world, uid)
    world.rules.at_end()
    return world, uid


def test_counters_that_add_up_and_are_wrong_are_found():
    world, uid = ended()
    world.rows.rollouts[uid].succeeded, world.rows.rollouts[uid].failed = 2, 1
    breaks("counters add up", world.rules.at_end)


def test_an_outcome_that_was_overwritten_is_found():
    world, uid = ended()
    world.operation(uid, "n001").message = "newer"
    breaks("every outcome stays", world.rules.at_end)


def test_rows_that_the_log_does_not_tell_are_found():
    world, uid = ended()
    world.operation(uid, "n001").seconds = 99.0
    breaks("replay equals state", world.rules.at_end)


def test_a_state_that_the_log_does_not_tell_is_found():
    world, uid = ended()
    world.rollouts[uid] = replace(world.rollouts[uid], message="x")
    breaks("replay equals state", world.rules.at_end)


def test_a_success_with_the_old_bytes_is_found():
    world, _ = ended()
    world.agents["n001"].disk["greet", 1] = ("c0", True)
    breaks("a success was one", world.rules.at_end)


def test_what_has_not_ended_is_found():
    world = World()
    world.start(ALL)
    breaks("everything ends", world.rules.at_end)


def test_what_breaks_says_how_to_see_it_again():
    world = World(seed=17)
    world.start(ALL)
    with pytest.raises(Broken, match=r"(?s)seed 17: not so: everything ends.*MODFLEET_SEED=17"):
        world.rules.at_end()
