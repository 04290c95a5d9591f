"""What happens to the product with each fault: as little as shows it to clients."""

import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import redis

from modfleet.proof.history import Way
from modfleet.proof.paths import SentinelPath
from tests.fleet import PAUSE, ROLLOUTS
from tests.integration.agent.conftest import VALKEY
from tests.proof.packages import NEW_ENCODING
from tests.proof.power.stage import Scenario, Stage
from tests.proof.power.topologies import Topology, chain, untried
from tests.proof.topologies import replicas, standalone, watched
from tests.shards import Machine
from tests.waiting import PATIENCE, wait_for

REDIS = Path(shutil.which("redis-server") or "redis-server")
#: Longer than an agent needs for its next heartbeat, seconds.
SLOW = 4


# --- One server -------------------------------------------------------------------------------------------------------


def a_large_module_is_upgraded(stage: Stage) -> None:
    stage.install("large", 1)
    stage.install("large", 2)


def an_unload_is_refused(stage: Stage) -> None:
    """The module has a data type. The control plane does not know that before."""
    stage.change("keeps", 1)
    stage.see_traffic()
    stage.change("keeps", 2, fails=True)
    stage.see_traffic()


def a_module_that_another_one_needs_is_upgraded(stage: Stage) -> None:
    stage.install("base", 1)
    stage.install("needs", 1)
    stage.install("base", 2)


def an_upgrade_is_undone(stage: Stage) -> None:
    """Its probe fails."""
    stage.install("writes", 1)
    (stage.server("a").folder / "less-2").touch()
    stage.change("writes", 2, fails=True)
    stage.see_traffic()


def an_upgrade_changes_the_arguments(stage: Stage) -> None:
    stage.install("writes", 1)
    stage.install("writes", 2)
    stage.see_traffic()


def the_agent_is_killed_after_the_swap(stage: Stage) -> None:
    server = stage.server("a")

    def kill(ends: threading.Event) -> None:
        wait_for(lambda: ends.is_set() or ("writes", 2) in server.loaded())
        server.leave()
        server.join(stage.fleet)

    stage.install("writes", 1)
    with stage.meanwhile(kill):
        stage.change("writes", 2, strategy={"settle_seconds": SLOW})


# --- A shard ----------------------------------------------------------------------------------------------------------


def clients_use_a_new_module_at_once(stage: Stage) -> None:
    with stage.use_as_soon_as("writes", 1, stage.server("a")):
        stage.install("writes", 1)
    stage.see_traffic()


def a_probe_fails(stage: Stage) -> None:
    stage.install("writes", 1)
    stage.fail("writes", 2, stage.server("b"))
    stage.see_traffic()


def a_replica_lags_at_the_failover(stage: Stage) -> None:
    """But not for long, and before the failover has begun."""
    a = stage.server("a")
    stage.install("keeps", 1)
    with stage.meanwhile(partial(_make_lag, stage, milliseconds=400, until=lambda: _fails_over(a))):
        stage.install("keeps", 2)


def replicas_do_not_catch_up(stage: Stage) -> None:
    """The failover is given up."""
    a = stage.server("a")
    stage.install("keeps", 1)
    stage.change("keeps", 2, way=Way.RESTART, servers=("b", "c"))
    with stage.meanwhile(partial(_make_lag, stage, milliseconds=3 * SLOW * 1000, until=lambda: _fails_over(a))):
        stage.change("keeps", 2, way=Way.RESTART, servers=("a",), fails=True, strategy={"pause_seconds": 1})


def _make_lag(stage: Stage, ends: threading.Event, *, milliseconds: int, until: Callable[[], bool]) -> None:
    """Let the replicas execute nothing that their master sends, from the end of the last restart of a replica on."""
    b, c = stage.server("b"), stage.server("c")
    wait_for(lambda: ends.is_set() or all(("keeps", 2) in _loaded(each) for each in (b, c)), seconds=2 * PATIENCE)
    while not ends.is_set() and not until():
        for each in (b, c):
            each.call("CLIENT", "PAUSE", milliseconds, "WRITE")
        ends.wait(milliseconds / 4000)


def _loaded(machine: Machine) -> list[tuple[str, int]]:
    """Nothing while the server does not answer."""
    with suppress(redis.RedisError):
        return machine.loaded()
    return []


def _fails_over(machine: Machine) -> bool:
    with suppress(redis.RedisError):
        info = machine.info("replication")
        return bool(info["role"] != "master" or info["master_failover_state"] != "no-failover")
    return True


# --- A master that accepts writes only with a replica -----------------------------------------------------------------


def a_replica_needs_long_for_its_link(stage: Stage) -> None:
    """After its restart, it waits for all data of its master."""
    stage.install("writes", 1)
    _accept_writes_with_a_replica(stage.server("a"))
    with stage.meanwhile(partial(_synchronize_late, stage, "writes", 2)):
        stage.change("writes", 2, way=Way.RESTART, activation="restart")


def a_full_sync_between_two_waves(stage: Stage) -> None:
    """A replica gets all data of its master again. The control plane hears of it before the next wave begins."""
    a, b = stage.server("a"), stage.server("b")

    def synchronize(ends: threading.Event) -> None:
        wait_for(lambda: ends.is_set() or _newest(stage)[2][0] == "soaking", seconds=2 * PATIENCE, pause=PAUSE)
        a.call("CONFIG", "SET", "repl-diskless-sync-delay", 6 * SLOW)
        b.follow(None)
        b.follow(a)

    stage.install("writes", 1)
    _accept_writes_with_a_replica(a)
    with stage.meanwhile(synchronize):
        strategy = {"canary": 1, "soak_seconds": 2 * SLOW}
        stage.change("writes", 2, way=Way.RESTART, activation="restart", strategy=strategy)


def _newest(stage: Stage) -> tuple[str, int, Sequence[str]]:
    """Module and version of the newest rollout, and the phase of each wave."""
    uid = stage.fleet.get(ROLLOUTS)["results"][0]["uid"]
    found = stage.fleet.rollout(uid)
    return found["module_name"], found["version"], [each["phase"] for each in found["waves"]]


def both_replicas_need_a_restart(stage: Stage) -> None:
    stage.install("writes", 1)
    _accept_writes_with_a_replica(stage.server("a"))
    with stage.meanwhile(partial(_synchronize_late, stage, "keeps", 1)):
        stage.change("keeps", 1, way=Way.RESTART, activation="restart", strategy={"canary": 0})


def _accept_writes_with_a_replica(server: Machine) -> None:
    server.call("CONFIG", "SET", "min-replicas-to-write", 1)
    server.call("CONFIG", "REWRITE")


def _synchronize_late(stage: Stage, module: str, version: int, ends: threading.Event) -> None:
    """From the begin of this rollout on, a replica that connects again needs all data, and gets them some seconds later."""
    wait_for(lambda: ends.is_set() or _newest(stage)[:2] == (module, version), pause=PAUSE)
    master = stage.server("a")
    master.call("CONFIG", "SET", "repl-diskless-sync-delay", 2 * SLOW)
    master.call("DEBUG", "CHANGE-REPL-ID")


# --- A pair under Sentinel --------------------------------------------------------------------------------------------


def sentinel_fails_over(stage: Stage) -> None:
    stage.install("keeps", 1)
    stage.install("keeps", 2)
    stage.see_traffic()


def a_new_encoding_waits_for_a_person(stage: Stage) -> None:
    """Meanwhile Sentinel is asked for a failover, and the master sends all its data again."""
    a, b = stage.site.machines
    _accept_writes_with_a_replica(b)  # it does not become the master
    stage.install("keeps", 1)
    with stage.restarts("keeps", 1, NEW_ENCODING, "b"):
        uid = stage.start("keeps", NEW_ENCODING)
        wait_for(lambda: stage.fleet.rollout(uid)["one_way"], pause=PAUSE, state=lambda: stage.fleet.state(uid))
        withheld = b.folder / "journal/.withheld.json"  # the next heartbeat asks; the fault holds nothing
        wait_for(lambda: not withheld.exists() or _priority(b) == "0")
        wait_for(lambda: _priority_at_sentinel(stage) == _priority(b))
        with suppress(redis.ResponseError):  # it knows no replica that may become the master
            _sentinel(stage, "FAILOVER", "main", "COORDINATED")
            wait_for(lambda: b.master_port() == 0 and a.master_port() != 0)
        master = b if b.master_port() == 0 else a
        synchronizations = master.info("stats")["sync_full"]
        master.call("DEBUG", "CHANGE-REPL-ID")
        master.call("CLIENT", "KILL", "TYPE", "replica")
        wait_for(lambda: master.info("stats")["sync_full"] > synchronizations)
        stage.see_traffic()
        stage.abort(uid)


def _sentinel(stage: Stage, *words: str) -> Any:
    """What Sentinel answers."""
    assert isinstance(stage.site.path, SentinelPath)
    ((host, port),) = stage.site.path.hosts
    with redis.Redis(host, port, decode_responses=True, protocol=2) as client:
        return client.execute_command("SENTINEL " + words[0], *words[1:])


def _priority(replica: Machine) -> str:
    return str(replica.call("CONFIG", "GET", "replica-priority")[1])


def _priority_at_sentinel(stage: Stage) -> str:
    """The replica-priority of the one replica, as Sentinel knows it."""
    (found,) = _sentinel(stage, "SLAVES", "main")
    return str(found["slave-priority"])


def _scenario(play: Callable[[Stage], None], topology: Topology, binary: Path = REDIS) -> Scenario:
    return Scenario(topology=topology, binary=binary, play=play)


SCENARIOS = {
    each.name: each
    for each in (
        _scenario(a_large_module_is_upgraded, standalone, VALKEY),
        _scenario(an_unload_is_refused, untried, VALKEY),
        _scenario(a_module_that_another_one_needs_is_upgraded, standalone),
        _scenario(an_upgrade_is_undone, standalone),
        _scenario(an_upgrade_changes_the_arguments, standalone),
        _scenario(the_agent_is_killed_after_the_swap, standalone),
        _scenario(clients_use_a_new_module_at_once, chain),
        _scenario(a_probe_fails, replicas),
        _scenario(a_replica_lags_at_the_failover, replicas),
        _scenario(replicas_do_not_catch_up, replicas),
        _scenario(a_replica_needs_long_for_its_link, replicas),
        _scenario(a_full_sync_between_two_waves, replicas),
        _scenario(both_replicas_need_a_restart, replicas),
        _scenario(sentinel_fails_over, watched),
        _scenario(a_new_encoding_waits_for_a_person, watched, VALKEY),
    )
}
