"""A random run: strategies, scripts, faults and what people do, all drawn from the world's own chance."""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

from rollout.domain.placement.events import OperationGivenBack
from rollout.domain.rollout.commands import Abort, Approve, Pause, Promote, Reject, RolloutCommand
from rollout.domain.rollout.events import Origin, RolloutPhase, WavePhase
from rollout.domain.rollout.state import RolloutState
from rollout.domain.strategy import Strategy
from rollout.messages import Action, Way
from tests.simulation import draws
from tests.simulation.control_plane import BEAT_SECONDS, MODULE
from tests.simulation.draws import Luck, strategy
from tests.simulation.servers import Traits
from tests.simulation.world import World

#: How often people look at what is stuck once the faults have stopped, and how long it may all take then, seconds.
ROUND_SECONDS = 60.0
LONGEST_SECONDS = 7 * 86_400.0
#: How long servers and agents may take after that, seconds.
LONGEST_RESTART_SECONDS = 3600.0
#: Something that happens to the world, a node and a rollout.
Happening = Callable[[World, str, str], object]


def simulate(seed: int, **more: Any) -> World:
    """The world of `seed`, run to its end with every rule watched."""
    world = World(seed, nodes=0, scripts=Luck(0.0), **more)
    chance = world.chance
    restarts = chance.random() < 0.5
    world._scripts = Luck(chance.choice((0.0, 0.1, 0.3) if restarts else (0.0, 0.02, 0.1, 0.1, 0.3)))
    if restarts:
        world.typed = frozenset(each for each in draws.VERSIONS if chance.random() < 0.5)
    _join_all(world, _fleet_size(chance), restarts=restarts)
    world.is_faulty = chance.random() < 0.7
    _start_first(world, strategy(chance, has_zones=_has_zones(world)))
    span = chance.choice((30.0, 120.0, 600.0))
    for _ in range(chance.randrange(10)):
        world.after(chance.uniform(0, span), happen, world)
    for _ in range(chance.choice((0, 0, 1, 3, 6))):
        world.after(chance.uniform(0, span), happen_to_a_shard, world)
    for _ in range(chance.choice((0, 1, 3, 6)) if restarts else 0):
        world.after(chance.uniform(0, span), happen_to_a_restart, world)
    if chance.random() < 0.5:
        world.after(chance.uniform(0, span), _start_another, world)
    world.run(span)
    settle(world)
    if chance.random() < 0.5:
        _one_after_another(world)
    return world


def _start_first(world: World, chosen: Strategy) -> None:
    """Start a rollout. If replicas without an agent stop the plan, people accept them."""
    request = _request(world)
    if world.tried(world.start, chosen, **request) is None:
        for each in world.servers:
            if not each.is_node:
                world.ignore(each.address)
        world.start(chosen, **request)


def _request(world: World) -> dict[str, Any]:
    is_plain = not world.typed and all(each.traits == Traits() for each in world.servers)
    return {} if is_plain else draws.request(world.chance)


def _has_zones(world: World) -> bool:
    return all(each.zone for each in world.servers if each.is_node)


def _one_after_another(world: World) -> None:
    """Rollouts on nodes on which others have failed, timed out or succeeded before; then one of them is rolled back."""
    chance = world.chance
    world.is_faulty = chance.random() < 0.3
    for _ in range(chance.randint(1, 3)):
        world._scripts = Luck(chance.choice((0.0, 0.1, 0.5)))
        _start_another(world)
        world.run(chance.choice((30.0, 400.0)))
        if chance.random() < 0.3:
            world.tried(world.retry, world.uids[-1])
            world.run(60.0)
    world._scripts = Luck(chance.choice((0.0, 0.0, 0.3)))
    world.tried(world.roll_back, world.uids[-1] if chance.random() < 0.8 else chance.choice(world.uids))
    settle(world)


def _join_all(world: World, count: int, *, restarts: bool) -> None:
    """Servers alone and in shards, on hosts of their own or not, with a zone or without."""
    chance = world.chance
    has_shards, has_zones, shares_hosts = (chance.random() < likely for likely in (0.7, 0.4, 0.3))
    shards: list[list[str]] = []
    there = False
    for number in range(count):
        name, master = f"n{number:03d}", ""
        if has_shards and shards and len(shards[-1]) < chance.randint(2, 4):  # it has what its master has
            master = shards[-1][0 if chance.random() < 0.8 else -1]  # of the master, or of the newest replica
            shards[-1].append(name)
        else:
            shards.append([name])
            there = chance.random() < 0.2
        world.join(
            name,
            {(MODULE, 9): ("c9", True), (MODULE, 8): ("c8", False)} if there else None,
            master=master,
            host=f"host {chance.randrange(count)}" if shares_hosts else "",
            zone=chance.choice("abc") if has_zones else "",
            traits=draws.traits(chance) if restarts else Traits(),
        )
    if chance.random() < 0.15:
        _add_unmanaged(world, chance.choice(sorted(world.agents)), "")
    world.run(2 * BEAT_SECONDS)


def _fleet_size(chance: Random) -> int:
    return 40 if chance.random() < 0.01 else chance.randint(1, 12)


def happen(world: World) -> None:
    """Something that people or nodes do."""
    chance = world.chance
    name, uid = chance.choice(sorted(world.agents)), chance.choice(world.uids)
    HAPPENINGS[chance.choice(sorted(HAPPENINGS))](world, name, uid)


def happen_to_a_shard(world: World) -> None:
    chance = world.chance
    kind = chance.choice((*3 * ("fail over",), "move a replica", "stop the server", "load data", *UNMANAGED))
    HAPPENINGS[kind](world, chance.choice(sorted(world.agents)), "")


def happen_to_a_restart(world: World) -> None:
    """Something that happens to a node that is restarted, or waits for it."""
    chance = world.chance
    rows = [each for each in world.rows.operations.values() if each.way == Way.RESTART and each.finished_at is None]
    restarted = sorted(each.name for each in world.agents.values() if each.held)
    names = restarted or sorted({each.node for each in rows})
    if not names:
        return
    name = chance.choice(names)
    uid = next((each.rollout for each in rows if each.node == name), world.uids[-1])
    kind = chance.choice(
        ("die", "die", "die", "die", "cancel", "abort", "crash", "cut", "fail over", "fail over", "save data")
    )
    HAPPENINGS[kind](world, name, uid)


def _cut(world: World, name: str, uid: str) -> None:
    world.cut(name, world.chance.choice((10.0, 150.0, 500.0)))


def _freeze(world: World, name: str, uid: str) -> None:
    world.freeze()
    world.after(world.chance.uniform(1, 100), world.thaw)


def _drain(world: World, name: str, uid: str) -> None:
    world.tried(world.drain, name)
    world.after(world.chance.uniform(1, 100), world.tried, world.activate, name)


def _decommission(world: World, name: str, uid: str) -> None:
    world.tried(world.decommission, name)
    if world.chance.random() < 0.5:  # its agent is started again
        world.after(world.chance.uniform(1, 100), world.heartbeat, name)
        world.after(world.chance.uniform(1, 100), _restart, world, name)


def _restart(world: World, name: str) -> None:
    world.agents[name].stop()
    world.revive(name, hello=True)


def _drift(world: World, name: str, uid: str) -> None:
    version = world.started(uid).version
    world.tried(world.drift, name, version)
    if world.chance.random() < 0.5:
        world.after(world.chance.uniform(1, 60), world.tried, world.end_drift, name, version)


def _correct(world: World, name: str, uid: str) -> None:
    """The reconciler installs again what the node has lost, or gets the version of the rollout."""
    world.tried(
        world.start,
        Strategy(canary=0),
        version=world.started(uid).version,
        nodes=(name,),
        origin=Origin.RECONCILER,
    )


def _start_another(world: World) -> None:
    chance = world.chance
    names = sorted(world.agents)
    world.tried(
        world.start,
        strategy(chance, has_zones=_has_zones(world)),
        version=chance.choice((1, 2, 3)),
        action=chance.choice((Action.INSTALL, Action.INSTALL, Action.REMOVE)),
        supersede=chance.random() < 0.7,
        nodes=chance.sample(names, chance.randint(1, len(names))) if chance.random() < 0.3 else None,
        needs=(chance.choice(world.uids),) if chance.random() < 0.1 else (),
        **_request(world),
    )


def _fail_over(world: World, name: str, uid: str) -> None:
    world.fail_over(world.servers.top(name))


def _move_replica(world: World, name: str, uid: str) -> None:
    """The replica leaves its shard, or the server alone joins another shard."""
    server = world.servers[name]
    if world.servers.replicas(name):
        return
    if not server.is_up:
        return
    if server.master:
        world.leave_shard(name)
    else:
        world.replicate(name, world.chance.choice(sorted(world.agents)))


def _add_unmanaged(world: World, name: str, uid: str) -> None:
    """A replica without an agent appears. It has replicas of its own at times."""
    above, unmanaged = world.servers[name], f"u{sum(not each.is_node for each in world.servers):03d}"
    if above.is_up:
        world.add_unmanaged(unmanaged, name)
        free = [each.name for each in world.servers.replicas(name) if each.is_node]
        if free and world.chance.random() < 0.3:
            world.replicate(free[-1], unmanaged)


def _ignore(world: World, name: str, uid: str) -> None:
    """People accept a replica without an agent, and at times change their mind."""
    unmanaged = [each.address for each in world.servers if not each.is_node]
    if unmanaged:
        address = world.chance.choice(unmanaged)
        world.ignore(address)
        if world.chance.random() < 0.3:
            world.after(world.chance.uniform(1, 200), world.tried, world.unignore, address)


def _claim(world: World, name: str, uid: str) -> None:
    """The node lies about its address: it is that of any server, also of a replica without an agent."""
    others = sorted(each.name for each in world.servers)
    world.claim(name, world.chance.choice(others), world.chance.choice((15.0, 200.0)))


def _verb(command: Callable[[str], RolloutCommand]) -> Happening:
    return lambda world, _, uid: world.tried(world.obey, uid, command(uid))


def _cancel(world: World, name: str, uid: str) -> None:
    if world.operation(uid, name) is not None:
        world.tried(world.cancel, uid, name, force=world.chance.random() < 0.3)


UNMANAGED = ("add an unmanaged replica", "ignore a replica", "claim an address")
HAPPENINGS: dict[str, Happening] = {
    "add an unmanaged replica": _add_unmanaged,
    "ignore a replica": _ignore,
    "claim an address": _claim,
    "abort": _verb(lambda uid: Abort(rollout=uid)),
    "another": lambda world, *_: _start_another(world),
    "approve": _verb(lambda uid: Approve(rollout=uid, remark="go", by_another=True)),
    "cancel": _cancel,
    "cut": _cut,
    "cut too": _cut,
    "decommission": _decommission,
    "die": lambda world, name, _: world.kill(name, world.chance.choice((2.0, 20.0, 200.0))),
    "drain": _drain,
    "correct": _correct,
    "crash": lambda world, name, _: world.crash(
        name, world.chance.choice((2.0, 30.0)), world.chance.choice((0.0, 60.0))
    ),
    "drift": _drift,
    "fail over": _fail_over,
    "freeze": _freeze,
    "load data": lambda world, name, _: world.load_data(name, world.chance.choice((5.0, 60.0, 400.0))),
    "back up": lambda world, name, _: world.back_up(name, world.chance.choice((5.0, 60.0, 400.0))),
    "move a replica": _move_replica,
    "pause": _verb(lambda uid: Pause(rollout=uid)),
    "promote": _verb(lambda uid: Promote(rollout=uid)),
    "save data": lambda world, name, _: world.save_data(name, world.chance.choice((5.0, 60.0, 400.0))),
    "reject": _verb(lambda uid: Reject(rollout=uid, remark="no")),
    "resume": lambda world, _, uid: world.tried(world.resume, uid),
    "retry": lambda world, _, uid: world.tried(world.retry, uid),
    "rollback": lambda world, _, uid: world.tried(world.roll_back, uid),
    "stop the server": lambda world, name, _: world.stop_server(name, world.chance.choice((5.0, 60.0, 400.0))),
}


def settle(world: World) -> None:
    """The faults stop, people help where something waits for them, and all of it ends."""
    world.is_faulty = False
    for each in world.servers:
        world.start_server(each.name)
    for name in sorted(world.agents):
        world.revive(name, hello=not world.agents[name].alive)
    end = world.now + timedelta(seconds=LONGEST_SECONDS)
    while not _has_ended(world) and world.now < end:
        _help(world)
        world.run(ROUND_SECONDS, until=lambda: _has_ended(world))
    end = world.now + timedelta(seconds=LONGEST_RESTART_SECONDS)
    while not _are_in_service(world) and world.now < end:
        world.run(ROUND_SECONDS, until=lambda: _are_in_service(world))
    world.rules.at_end()


def _are_in_service(world: World) -> bool:
    return not any(each.held for each in world.agents.values()) and not any(each.is_ended for each in world.servers)


def _has_ended(world: World) -> bool:
    return all(state.phase.is_final for state in world.rollouts.values())


def _help(world: World) -> None:
    if world.fleet.frozen is not None:  # a thaw moves everything on: a moment that was forgotten would not be noticed
        world.thaw()
    for name, node in world.nodes.items():
        if node.draining and not node.decommissioned:
            world.activate(name)
        for module_name, version in [*node.drifts]:
            if module_name:
                world.tried(world.end_drift, name, version)
    for uid in list(world.uids):
        state = world.rollouts[uid]
        if state.phase == RolloutPhase.PENDING_APPROVAL:
            world.obey(uid, Approve(rollout=uid, remark="go", by_another=True))
        elif state.phase == RolloutPhase.PAUSED and _is_hopeless(world, uid, state):
            world.obey(uid, Abort(rollout=uid))
        elif state.phase == RolloutPhase.PAUSED and (names := _crashing(world, uid)):
            for name in names:
                world.tried(world.cancel, uid, name)
        elif state.phase == RolloutPhase.PAUSED:
            world.resume(uid)
        elif state.phase == RolloutPhase.RUNNING and (state.wave_phase == WavePhase.GATED or state.waits_for_promotion):
            world.obey(uid, Promote(rollout=uid))
        elif state.phase == RolloutPhase.RUNNING:
            # Nodes in two failure domains that crash in turns wait for each other, so the progress deadline is extended each time.
            for name in _crashing(world, uid, most=20):
                world.tried(world.cancel, uid, name)


def _is_hopeless(world: World, uid: str, state: RolloutState) -> bool:
    """Whether `min_healthy` may leave no room for ever: it is of nodes that have left the fleet, or of all."""
    return state.strategy.kept_healthy(state.nodes) > 0 and world.events(uid).count("WaveFailed") > 5


def _crashing(world: World, uid: str, most: int = 5) -> list[str]:
    """Return the nodes that go offline after each release of the rollout's operation, before they report anything.

    The operation is scheduled again each time, so its node deadline never passes. The rollout pauses at its progress
    deadline. Resuming it would repeat the same without end.
    """
    given_back = Counter(
        each.event.node
        for each in world.log
        if isinstance(each.event, OperationGivenBack) and each.event.rollout == uid
    )
    return [row.node for row in world.rows.of(uid) if row.finished_at is None and given_back[row.node] > most]
