"""Changes by restart: how simulated agents carry them out, and that each rule about them is able to fail."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from rollout.domain.errors import OneWayError
from rollout.domain.restarts import Permission, why_not_restart
from rollout.domain.rollout import operator_commands, releasable
from rollout.domain.rollout.commands import Promote
from rollout.domain.rollout.events import NodesReleased, Origin
from rollout.messages import Action, Phase, Reason, WayBackResult, Ways
from rollout.queries import restarts as queries
from tests.simulation import planning, restarts, snapshot, world
from tests.simulation.chance import settle
from tests.simulation.failovers import Failovers
from tests.simulation.orders import Deed, Script, Trouble
from tests.simulation.restarts import Restarts
from tests.simulation.rules import Broken
from tests.simulation.servers import Server, Traits
from tests.simulation.snapshot import FactsInMemory
from tests.simulation.test_rules import breaks, finds, record
from tests.simulation.test_world import ALL, played, reasons, run, shard
from tests.simulation.world import World

STOCK = Traits(is_stock=True)
#: Nothing but its agent starts it again.
LONELY = replace(STOCK, restart="command")
ALLOWED = {"ways": Ways.AUTO, "may_interrupt": True}


def alone(traits=STOCK, **more):
    """One server without replicas."""
    found = World(nodes=0, **more)
    found.join("n000", traits=traits)
    found.run(20)
    return found


def stock_shard(traits=STOCK, **more):
    return shard(traits=traits, **more)


def run_ids(found):
    return {each.name: each.process for each in found.servers}


# --- What agents do


def test_a_stock_server_is_restarted_and_its_master_is_not():
    found = stock_shard()
    uid = found.start(ALL, ways=Ways.AUTO)
    assert run(found, uid) == "succeeded"
    assert run_ids(found) == {"n000": 0, "n001": 1, "n002": 1}
    assert reasons(found, uid)["n000"] == Reason.RESTART_REQUIRED
    assert found.agents["n001"].loaded("greet") == 1


def test_a_server_with_data_types_loads_its_next_version_by_a_restart():
    found = alone(Traits())
    found.typed = frozenset({1})
    assert run(found, found.start(ALL, **ALLOWED)) == "succeeded"
    assert run_ids(found) == {"n000": 0}
    assert run(found, found.start(ALL, version=2, ways=Ways.LOAD)) == "succeeded"
    assert found.agents["n000"].loaded("greet") == 1
    assert run(found, found.start(ALL, version=2, **ALLOWED)) == "succeeded"
    assert (found.agents["n000"].loaded("greet"), run_ids(found)) == (2, {"n000": 1})


@pytest.mark.parametrize(
    ("trouble", "process", "reason"),
    [
        (Trouble.FETCH, 0, Reason.DISK_FULL),
        (Trouble.BEFORE, 0, Reason.PRE_COMMAND_FAILED),
        (Trouble.START, 1, Reason.RESTART_FAILED),
        (Trouble.PROBE, 2, Reason.PROBE_FAILED),
    ],
)
@pytest.mark.parametrize("traits", [STOCK, LONELY])
def test_a_restart_that_does_not_succeed(trouble, process, reason, traits):
    fails = Script(phase=Phase.FAILED, reason=Reason.DISK_FULL, trouble=trouble)
    found = alone(traits, scripts=played(then=fails))
    uid = found.start(ALL, **ALLOWED)
    run(found, uid)
    settle(found)
    assert (run_ids(found), reasons(found, uid)) == ({"n000": process}, {"n000": reason})
    assert found.agents["n000"].disk == {}


@pytest.mark.parametrize("dies_at", [0.2, 2.0, 5.0, 10.0])
@pytest.mark.parametrize("traits", [STOCK, LONELY])
def test_an_agent_that_is_killed_goes_on(dies_at, traits):
    dies = Script(deed=Deed.DIE, seconds=10, dies_at=dies_at, before_seconds=3, down_seconds=3)
    found = alone(traits, scripts=played(dies))
    assert run(found, found.start(ALL, **ALLOWED)) == "succeeded"
    settle(found)
    assert run_ids(found) == {"n000": 1}


@pytest.mark.parametrize("trouble", [Trouble.START, Trouble.PROBE])
@pytest.mark.parametrize("traits", [STOCK, LONELY])
def test_a_restart_that_is_never_resumed_ends(trouble, traits):
    """The operation times out while the agent is away."""
    dies = Script(
        deed=Deed.DIE, seconds=500, dies_at=5, down_seconds=5, phase=Phase.FAILED, trouble=trouble, checks_at=0.001
    )
    found = alone(traits, scripts=played(dies))
    uid = found.start(replace(ALL, node_deadline_seconds=20.0), **ALLOWED)
    assert run(found, uid) == "failed"
    assert reasons(found, uid) == {"n000": Reason.NODE_DEADLINE}
    settle(found)
    assert found.servers["n000"].is_up


def test_no_deadline_runs_while_a_server_reads_its_data():
    found = alone(scripts=played(then=Script(load_seconds=300)))
    uid = found.start(replace(ALL, node_deadline_seconds=20.0), **ALLOWED)
    assert run(found, uid) == "succeeded"


def test_a_failover_before_the_end_of_the_process_returns_the_operation():
    found = stock_shard(scripts=played(then=Script(before_seconds=30)))
    uid = found.start(ALL, nodes=["n001"], ways=Ways.AUTO)
    found.run(10)
    found.servers.promote("n001", found.now)
    found.replicate("n000", "n001")
    assert run(found, uid) == "succeeded"
    assert reasons(found, uid) == {"n001": Reason.REPLICA_LACKS_MODULE}
    assert run_ids(found)["n001"] == 0


def test_a_rollback_restarts_again():
    found = alone()
    assert run(found, found.start(ALL, **ALLOWED)) == "succeeded"
    uid = found.start(ALL, version=2, **ALLOWED)
    assert run(found, uid) == "succeeded"
    assert run(found, found.roll_back(uid)) == "rolled_back"
    assert (found.agents["n000"].loaded("greet"), run_ids(found)) == (1, {"n000": 3})


# --- Each rule is able to fail


def test_a_restart_outside_the_window_is_found(monkeypatch):
    monkeypatch.setattr(releasable.Releasable, "_closed", lambda *_: None)
    closed = replace(ALL, window="03:00-04:00 UTC")
    breaks("a restart only inside the window", alone().start, closed, **ALLOWED)


def test_a_replica_that_its_master_needs_is_found(monkeypatch):
    monkeypatch.setattr(queries, "why_not_restart", lambda *_: None)
    found = stock_shard(replace(STOCK, min_replicas=1))
    uid = found.start(ALL, ways=Ways.AUTO)
    found.crash("n002", 100.0, 0.0)
    breaks("no restart below min-replicas-to-write", run, found, uid)


@pytest.fixture
def careless(monkeypatch):
    """Plans, releases and agents that refuse nothing."""
    monkeypatch.setattr(queries, "why_not_restart", lambda *_: None)
    monkeypatch.setattr(restarts, "why_not_end", lambda *_, **__: None)


@pytest.mark.usefixtures("careless")
def test_a_master_with_replicas_is_found():
    found = stock_shard()
    breaks("no restart of a master with replicas", run, found, found.start(ALL, **ALLOWED))


def test_an_agent_that_does_not_look_again_is_found(monkeypatch):
    monkeypatch.setattr(Restarts, "_refusal", lambda *_: None)
    found = stock_shard(scripts=played(then=Script(before_seconds=30)))
    found.start(ALL, nodes=["n001"], ways=Ways.AUTO)
    found.run(10)
    found.servers.promote("n001", found.now)
    found.replicate("n000", "n001")
    breaks("no restart of a master with replicas", found.run, 100)


@pytest.mark.usefixtures("careless")
@pytest.mark.parametrize("may_discard_data", [False, True])
def test_the_last_copy_is_found(may_discard_data):
    found = alone(replace(STOCK, keeps=""))
    uid = found.start(ALL, may_discard_data=may_discard_data, **ALLOWED)
    if may_discard_data:
        assert run(found, uid) == "succeeded"
    else:
        breaks("no restart of the last copy", run, found, uid)


def test_the_last_copy_on_a_replica_is_found(monkeypatch):
    """A replica that is restarted with its former version saves nothing, and its master is away."""
    monkeypatch.setattr(Restarts, "_must_stay", lambda *_: False)
    fails = Script(phase=Phase.FAILED, seconds=60)
    found = stock_shard(replace(STOCK, keeps=""), scripts=played(then=fails))
    found.start(ALL, nodes=["n001"], ways=Ways.AUTO)
    found.run(30)
    assert run_ids(found)["n001"] == 1
    found.stop_server("n000", 1000)
    breaks("no restart of the last copy", found.run, 100)


def test_an_interruption_that_was_not_allowed_is_found(monkeypatch):
    def generous(node, server, master, _, *shard):
        return why_not_restart(node, server, master, Permission(may_interrupt=True), *shard)

    monkeypatch.setattr(queries, "why_not_restart", generous)
    found = alone()
    breaks("no interruption that was not allowed", run, found, found.start(ALL, ways=Ways.AUTO))


@pytest.mark.usefixtures("careless")
def test_a_server_that_would_start_in_another_role_is_found():
    found = World(nodes=1)
    found.join("n001", traits=replace(STOCK, keeps_role=False))
    found.replicate("n001", "n000")
    found.run(20)
    breaks("a restart keeps the role", run, found, found.start(ALL, nodes=["n001"], ways=Ways.AUTO))


@pytest.mark.parametrize("more", [{"ways": Ways.LOAD}, {"ways": Ways.LOAD, "origin": Origin.RECONCILER}])
def test_a_restart_for_a_rollout_that_only_loads_is_found(monkeypatch, more):
    def mistaken(request, nodes, found):
        return planning.restarts_of(replace(request, ways=Ways.AUTO), nodes, found)

    monkeypatch.setattr(world, "restarts_of", mistaken)
    found = alone()
    uid = found.start(ALL, may_interrupt=True, **more)
    breaks("no restart that was not asked for", run, found, uid)


def test_an_automatic_retry_by_restart_is_found(monkeypatch):
    monkeypatch.setattr(snapshot, "Way", SimpleNamespace(RESTART="never"))
    fails = Script(phase=Phase.FAILED, reason=Reason.FETCH_FAILED, trouble=Trouble.FETCH)
    found = alone(scripts=played(fails))
    uid = found.start(replace(ALL, retries=replace(ALL.retries, limit=1)), **ALLOWED)
    breaks("no restart that was not asked for", run, found, uid)


def test_two_restarts_in_a_shard_are_found(monkeypatch):
    """The operation of an agent that was killed is overlooked, while its server reads its data."""

    def of_agents_that_live(facts, now):
        return [each for each in in_progress(facts, now) if found.agents[each.node].alive]

    in_progress = FactsInMemory._in_progress
    monkeypatch.setattr(FactsInMemory, "_in_progress", of_agents_that_live)
    dies = Script(deed=Deed.DIE, seconds=1000, dies_at=4, load_seconds=600, checks_at=0.001)
    found = stock_shard(scripts=played(dies))
    found.start(replace(ALL, max_parallel=3), nodes=["n001", "n002"], ways=Ways.AUTO)
    breaks("one restart of a shard at a time", found.run, 100)


def test_a_node_that_stays_in_maintenance_is_found(monkeypatch):
    monkeypatch.setattr(Restarts, "look_at_left_restart", lambda *_: None)
    finds("no node is left in maintenance")


def test_a_server_that_nothing_starts_again_is_found():
    found = alone()
    found.end_process("n000", None)
    breaks("no server is left without a process", found.rules.at_end)


# --- Failovers

FAILS_OVER = replace(STOCK, keeps="", failover="command")


def failing_over(*scripts, then=None):
    """A shard of three that fails over, and a rollout of all."""
    found = stock_shard(FAILS_OVER, scripts=played(*scripts, then=then or Script()))
    return found, found.start(ALL, ways=Ways.AUTO)


def roles(found):
    return {each.name: each.master for each in found.servers}


def test_a_master_gives_its_role_to_a_replica_first():
    found, uid = failing_over()
    assert run(found, uid) == "succeeded"
    assert roles(found) == {"n000": "n001", "n001": "", "n002": "n001"}
    assert run_ids(found) == {"n000": 1, "n001": 1, "n002": 1}
    assert [found.agents[name].loaded("greet") for name in sorted(found.agents)] == [1, 1, 1]


def test_a_role_that_does_not_move_in_time():
    found, uid = failing_over(Script(), Script(), then=Script(switch_seconds=60.0))
    assert run(found, uid) == "succeeded"
    assert reasons(found, uid)["n000"] == Reason.FAILOVER_NOT_POSSIBLE
    assert (roles(found)["n000"], run_ids(found)["n000"]) == ("", 0)
    assert not found.servers["n000"].is_paused


@pytest.mark.parametrize("dies_at", [2.0, 3.0, 3.3, 4.0, 7.0])
def test_an_agent_that_dies_while_the_role_moves(dies_at):
    dies = Script(deed=Deed.DIE, seconds=20.0, dies_at=dies_at)
    found, uid = failing_over(Script(), Script(), dies)
    run(found, uid)
    settle(found)
    assert len([name for name, master in roles(found).items() if not master]) == 1
    found.rules.at_end()


def test_a_role_that_moves_while_clients_write_is_found(monkeypatch):
    monkeypatch.setattr(Server, "is_paused", False)
    found, uid = failing_over()
    breaks("writes wait while the role moves", run, found, uid)


def test_a_new_master_without_the_version_is_found(monkeypatch):
    monkeypatch.setattr(Failovers, "_candidates", lambda self, _: self._replicas())
    found, _ = failing_over(Script(), Script(), Script(before_seconds=100))
    found.run(50)
    for name in ("n001", "n002"):
        found.agents[name].spoil("greet", 1)
    breaks("the new master has the new version", found.run, 200)


def test_a_pause_that_nothing_ends_is_found(monkeypatch):
    monkeypatch.setattr(Failovers, "_end_pause", lambda *_: None)
    found, uid = failing_over()
    run(found, uid)
    breaks("no write is left waiting", found.rules.nothing_is_left)


# --- One-way changes


def replacing(way_back=WayBackResult.OPEN, nodes=3):
    """Servers that have version 1, each alone, and a rollout of version 2 that has replaced none yet."""
    found = World(nodes=0, scripts=played(then=Script(way_back=way_back)))
    for number in range(nodes):
        found.join(f"n{number:03}", {("greet", 1): ("c1", True)}, traits=STOCK)
    found.run(20)
    return found, found.start(ALL, version=2, ways=Ways.AUTO, may_interrupt=True)


def versions(found):
    return [found.agents[name].loaded("greet") for name in sorted(found.agents)]


@pytest.mark.parametrize("way_back", [WayBackResult.CLOSED, WayBackResult.UNKNOWN])
def test_a_rollout_stops_after_the_first_node_that_cannot_go_back(way_back):
    found, uid = replacing(way_back)
    found.run(3600)
    assert (versions(found), found.rollouts[uid].phase) == ([2, 1, 1], "running")
    with pytest.raises(OneWayError):
        found.roll_back(uid)
    found.obey(uid, Promote(rollout=uid))
    assert run(found, uid) == "succeeded"
    assert versions(found) == [2, 2, 2]


def test_a_release_while_a_one_way_change_waits_is_found():
    found, uid = replacing(WayBackResult.CLOSED)
    found.run(3600)
    released = NodesReleased(rollout=uid, nodes=("n001",))
    breaks("nothing while a one-way change waits", record, found, uid, released)


def test_a_rollback_of_a_one_way_change_is_found(monkeypatch):
    monkeypatch.setattr(operator_commands, "refuse_if_one_way", lambda _: None)
    found, uid = replacing(WayBackResult.CLOSED)
    found.run(3600)
    breaks("no rollback of a one-way change", found.roll_back, uid)


def test_two_first_nodes_are_found(monkeypatch):
    monkeypatch.setattr(snapshot, "may_replace_by_restart", lambda _: False)
    with pytest.raises(Broken, match="the first version is replaced alone"):
        replacing()


def test_a_one_way_change_that_is_overlooked_is_found(monkeypatch):
    monkeypatch.setattr(snapshot, "one_way_of", lambda *_: None)
    found, _ = replacing(WayBackResult.CLOSED)
    breaks("a closed way back is known", found.run, 100)


def test_a_removal_restarts_nothing():
    found = alone()
    assert run(found, found.start(ALL, **ALLOWED)) == "succeeded"
    uid = found.start(ALL, action=Action.REMOVE, **ALLOWED)
    run(found, uid)
    assert reasons(found, uid) == {"n000": Reason.MODULE_COMMAND_DISABLED}
    assert run_ids(found) == {"n000": 1}
