"""Changes by restart, through the REST API, on real servers with real agents."""

import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel as SentinelClient

from tests.fleet import FINAL, PAUSE, ROLLOUTS, Fleet, remove_folder, running_fleet, short_folder
from tests.integration.agent.conftest import VALKEY
from tests.ports import free_port
from tests.shards import ADDRESS, Machine, Shard, machines, module, online, run, sentinel, upload
from tests.topologies import RESTARTING, cluster, trio
from tests.waiting import PATIENCE, wait_for

REDIS = Path(shutil.which("redis-server") or "redis-server")
both = pytest.mark.parametrize("binary", [VALKEY, REDIS], ids=["valkey", "redis"])
KEYS = 1000
#: Each key takes so many microseconds to load in the version SLOW.
SLOW, SLEEP = 3, 10_000
#: Versions before cannot read what this one writes.
ONE_WAY = 2000


@pytest.fixture(scope="module")
def control(tmp_path_factory) -> Iterator[Fleet]:
    """A control plane without nodes of its own, with the modules of these tests."""
    with running_fleet(nodes=0) as fleet:
        folder = tmp_path_factory.mktemp("packages")
        for version in (1, 2):
            upload(fleet, module(folder, "keeps", version, "keeps.set"))
        upload(fleet, module(folder, "keeps", SLOW, "keeps.set", SLEEP=str(SLEEP)))
        upload(fleet, module(folder, "keeps", ONE_WAY, "keeps.set"))
        yield fleet


@contextmanager
def stock(control: Fleet, name: str, binary: Path, *lines: str) -> Iterator[Machine]:
    """A server as packages install it: it refuses MODULE LOAD."""
    extra = ("enable-module-command no", "loading-process-events-interval-bytes 1024", *lines)
    folder = short_folder()
    machine = Machine(name, folder / name, binary, extra=extra, settings=RESTARTING)
    try:
        with machines(control, [machine]):
            yield machine
        control.post(f"/v2/nodes/{name}/decommission", status=200)
    finally:
        remove_folder(folder)


def body(node: Machine, action: str, version: int, **fields: Any) -> dict[str, Any]:
    strategy = {"settle_seconds": 0.1, **fields.pop("strategy", {})}
    body = {"action": action, "module_name": "keeps", "version": version, "strategy": strategy, "nodes": [node.name]}
    return {**body, **fields}


def carry_out(
    control: Fleet, node: Machine, action: str, version: int, *, patience: float = PATIENCE, **fields: Any
) -> dict[str, Any]:
    """The operation on the node when its rollout has ended."""
    uid = control.post(ROLLOUTS, body(node, action, version, **fields))["uid"]

    def has_ended() -> bool:
        return control.rollout(uid)["phase"] in {*FINAL, "paused"}

    wait_for(has_ended, seconds=patience, pause=PAUSE, state=lambda: control.state(uid))
    found: dict[str, Any] = control.get(f"{ROLLOUTS}/{uid}/nodes/{node.name}")
    return found


def keep(node: Machine) -> None:
    with redis.Redis(unix_socket_path=str(node.socket)) as client, client.pipeline(transaction=False) as pipe:
        for key in range(KEYS):
            pipe.execute_command("KEEPS.SET", f"key{key}", key)
        pipe.execute()


def kept(node: Machine) -> int:
    return sum(node.call("KEEPS.GET", f"key{key}") == key for key in range(KEYS))


@both
def test_a_stock_server(control, binary):
    """Nothing, installed, upgraded, removed: each time by a restart."""
    with stock(control, f"stock-{binary.name}", binary) as node:
        planned = control.post(f"{ROLLOUTS}/plan", body(node, "install", 1, may_interrupt=True), status=200)
        assert planned["waves"][0]["nodes"][0]["restart"] == {
            "away_seconds": pytest.approx(1, abs=1),
            "failover": "",
            "full_sync_expected": False,
        }
        done = carry_out(control, node, "install", 1, may_interrupt=True)
        assert (done["phase"], done["way"]) == ("succeeded", "restart"), done
        keep(node)
        done = carry_out(control, node, "install", 2, may_interrupt=True)
        assert (done["phase"], node.loaded(), kept(node)) == ("succeeded", [("keeps", 2)], KEYS), done
        assert 0 < done["restart"]["downtime_seconds"] < 60

        run_id = node.run_id
        assert carry_out(control, node, "remove", 2, may_interrupt=True, even_if_used=True)["reason"] == "data_in_use"
        assert (node.run_id, kept(node)) == (run_id, KEYS)
        node.call("FLUSHALL")
        done = carry_out(control, node, "remove", 2, may_interrupt=True, even_if_used=True)
        assert (done["phase"], node.loaded(), node.lines()) == ("succeeded", [], []), done
        wait_for(lambda: control.get(f"/v2/nodes/{node.name}")["server_state"]["maintenance"] == "", pause=PAUSE)


@both
@pytest.mark.parametrize("activation", [None, "files"])
def test_the_rollback_of_a_first_installation(control, binary, activation):
    """It restarts the server too. Files that were there before stay."""
    with stock(control, f"first-{binary.name}-{activation}", binary) as node:
        if activation is not None:
            assert carry_out(control, node, "install", 1, activation=activation)["phase"] == "succeeded"
        before = node.files().keys()
        carry_out(control, node, "install", 1, may_interrupt=True)
        uid = control.get(ROLLOUTS)["results"][0]["uid"]
        assert node.loaded() == [("keeps", 1)]
        undo = control.post(f"{ROLLOUTS}/{uid}/rollback")["uid"]
        wait_for(lambda: control.rollout(undo)["phase"] in FINAL, pause=PAUSE, state=lambda: control.state(undo))
        done = control.get(f"{ROLLOUTS}/{undo}/nodes/{node.name}")
        assert (done["way"], done["phase"], node.loaded(), node.lines()) == ("restart", "rolled_back", [], []), done
        assert node.files().keys() == before


@both
def test_what_is_not_restarted(control, binary):
    with stock(control, f"kept-{binary.name}", binary, 'save ""') as node:
        run_id = node.run_id
        for fields, reason in (
            ({}, "restart_required"),
            ({"activation": "load", "may_interrupt": True}, "restart_required"),
            ({"may_interrupt": True}, "would_lose_data"),
        ):
            done = carry_out(control, node, "install", 1, **fields)
            assert (done["phase"], done["reason"]) == ("skipped", reason), done
        assert (node.run_id, node.loaded()) == (run_id, [])
        done = carry_out(control, node, "install", 1, may_interrupt=True, may_discard_data=True)
        assert (done["phase"], node.loaded()) == ("succeeded", [("keeps", 1)]), done


def _loads_slowly(control: Fleet, binary: Path, keys: int, deadline: float) -> None:
    with stock(control, f"slow-{binary.name}-{keys}", binary) as node:
        assert carry_out(control, node, "install", 1, may_interrupt=True)["phase"] == "succeeded"
        for key in range(keys):
            node.call("KEEPS.SET", f"key{key}", key)
        limits = {"node_deadline_seconds": deadline, "progress_deadline_seconds": deadline}
        patience = PATIENCE + keys * SLEEP / 1e6
        done = carry_out(control, node, "install", SLOW, patience=patience, may_interrupt=True, strategy=limits)
        assert (done["phase"], node.loaded()) == ("succeeded", [("keeps", SLOW)]), done
        assert done["restart"]["downtime_seconds"] > deadline
        assert node.call("DBSIZE") == keys


@both
def test_a_load_that_takes_longer_than_the_deadline(control, binary):
    _loads_slowly(control, binary, keys=800, deadline=6)


@pytest.mark.full
@both
def test_a_load_that_takes_two_minutes(control, binary):
    _loads_slowly(control, binary, keys=12_000, deadline=30)


@both
def test_a_shard_without_persistence(control, binary):
    """Replica, replica, failover, former master. No key is lost."""
    with trio(control, f"trio-{binary.name}", binary, MODFLEET_FAILOVER="command") as shard:
        a, b, c = shard.machines
        shard.carry_out("install", "keeps", 1)
        keep(a)
        run_ids = [each.run_id for each in shard.machines]
        planned = control.post(f"{ROLLOUTS}/plan", shard.body("install", "keeps", 2), status=200)
        assert [each["restart"]["failover"] for wave in planned["waves"] for each in wave["nodes"]] == [
            "",
            "",
            "command",
        ]
        uid = shard.carry_out("install", "keeps", 2)
        assert shard.turns(uid) == [b.name, c.name, a.name]
        done = control.get(f"{ROLLOUTS}/{uid}/nodes/{a.name}")["restart"]["failover"]
        assert (done["way"], done["former"], 0 < done["pause_seconds"] < 5) == ("command", a.address, True), done
        (new,) = [each for each in (b, c) if each.address == done["new"]]
        assert [each.loaded() for each in shard.machines] == [[("keeps", 2)]] * 3
        assert not set(run_ids) & {each.run_id for each in shard.machines}
        assert new.master_port() == 0
        assert all(each.master_port() == new.port for each in shard.machines if each is not new)
        wait_for(lambda: [kept(each) for each in shard.machines] == [KEYS] * 3)
        for each in shard.machines:  # each starts as what it is now
            if each is not new:
                each.restart()
                wait_for(partial(each.is_in_step, new))
                assert (each.master_port(), kept(each)) == (new.port, KEYS)


def versions(shard: Shard) -> list[int]:
    return [dict(each.loaded())["keeps"] for each in shard.machines]


def priority(node: Machine) -> str:
    return str(node.call("CONFIG", "GET", "replica-priority")[1])


@both
def test_an_upgraded_replica_does_not_become_the_master(control, binary):
    """Not while the other replica has the former version; but there is always one that can."""
    with trio(control, f"withheld-{binary.name}", binary, MODFLEET_FAILOVER="command") as shard:
        a, b, c = shard.machines
        shard.carry_out("install", "keeps", 1)
        keep(a)
        uid = shard.start("install", "keeps", 2, strategy={"settle_seconds": 3.0})
        seen = set()

        def has_ended() -> bool:
            with suppress(redis.RedisError):
                seen.add((tuple(versions(shard)), priority(b), priority(c)))
            return control.rollout(uid)["phase"] in FINAL

        wait_for(has_ended, pause=PAUSE, state=lambda: control.state(uid))
        assert control.rollout(uid)["phase"] == "succeeded", control.state(uid)
        assert ((1, 2, 1), "0", "100") in seen
        assert not [each for each in seen if each[1:] == ("0", "0")]
        wait_for(lambda: [priority(each) for each in (a, b, c)] == ["100"] * 3, pause=PAUSE)
        files = [each.folder / "journal/.withheld.json" for each in shard.machines]
        wait_for(lambda: not any(each.exists() for each in files), pause=PAUSE)
        assert not [each for each in shard.machines if "replica-priority 0" in each.file.read_text()]


def sync_all(master: Machine, *replicas: Machine) -> None:
    """Let each replica get all data of its master anew."""
    before = master.info("stats")["sync_full"]
    master.call("DEBUG", "CHANGE-REPL-ID")
    master.call("CLIENT", "KILL", "TYPE", "replica")
    wait_for(lambda: master.info("stats")["sync_full"] == before + len(replicas))
    wait_for(lambda: all(each.is_in_step(master) for each in replicas))


def waits_as_one_way(control: Fleet, uid: str) -> bool:
    found = control.rollout(uid)["one_way"]
    return found is not None and not found["promoted"]


@both
def test_a_new_encoding_is_one_way(control, binary):
    """The rollout stops after one replica, until a person promotes it. Meanwhile the shard survives full synchronizations, and
    the replica does not become the master."""
    with trio(control, f"one-way-{binary.name}", binary, MODFLEET_FAILOVER="command") as shard:
        a, b, c = shard.machines
        shard.carry_out("install", "keeps", 1)
        keep(a)
        run_ids = [each.run_id for each in (a, c)]
        uid = shard.start("install", "keeps", ONE_WAY)
        wait_for(lambda: waits_as_one_way(control, uid), pause=PAUSE, state=lambda: control.state(uid))
        found = control.rollout(uid)["one_way"]
        assert (found["node"], found["result"], found["former_version"]) == (b.name, "closed", 1), found
        assert (versions(shard), [each.run_id for each in (a, c)]) == ([1, ONE_WAY, 1], run_ids)
        assert [priority(each) for each in (b, c)] == ["0", "100"]
        refused = control.post(f"{ROLLOUTS}/{uid}/rollback", status=409)
        assert refused["error_code"] == "one_way"

        c.leave()  # so that its agent counts the next full synchronization as the first
        c.join(control)
        wait_for(lambda: c.name in online(control), pause=PAUSE)
        sync_all(a, b, c)
        assert [kept(each) for each in (a, b, c)] == [KEYS] * 3
        assert control.rollout(uid)["phase"] == "running"

        control.post(f"{ROLLOUTS}/{uid}/promote", {})
        wait_for(lambda: control.rollout(uid)["phase"] in FINAL, pause=PAUSE, state=lambda: control.state(uid))
        assert (control.rollout(uid)["phase"], versions(shard)) == ("succeeded", [ONE_WAY] * 3), control.state(uid)
        assert "there is no rollback" in run(control, "rollout", "status", uid)
        assert "there is no rollback" in run(control, "rollout", "watch", uid)
        (new,) = [each for each in shard.machines if each.master_port() == 0]
        wait_for(lambda: [kept(each) for each in shard.machines] == [KEYS] * 3)
        wait_for(lambda: [priority(each) for each in shard.machines] == ["100"] * 3, pause=PAUSE)
        assert new in (b, c)


@both
def test_the_way_back_of_a_one_way_canary(control, binary):
    """After an abort, the one node that has the new version gets the former one again, with the data of its master."""
    with trio(control, f"canary-{binary.name}", binary, MODFLEET_FAILOVER="command") as shard:
        a, b, c = shard.machines
        shard.carry_out("install", "keeps", 1)
        keep(a)
        uid = shard.start("install", "keeps", ONE_WAY)
        wait_for(lambda: waits_as_one_way(control, uid), pause=PAUSE, state=lambda: control.state(uid))
        control.post(f"{ROLLOUTS}/{uid}/abort")
        wait_for(lambda: control.rollout(uid)["phase"] in FINAL, pause=PAUSE, state=lambda: control.state(uid))
        b.call("SAVE")  # the new version writes what the former one cannot read
        done = carry_out(control, b, "install", 1, may_discard_data=True)
        assert (done["phase"], versions(shard)) == ("succeeded", [1, 1, 1]), done
        wait_for(lambda: b.is_in_step(a))
        assert [kept(each) for each in (a, b, c)] == [KEYS] * 3
        wait_for(lambda: priority(b) == "100", pause=PAUSE)


class Anywhere:
    """A client that asks one server after the other until one accepts its command."""

    def __init__(self, nodes: Sequence[Machine]) -> None:
        self._clients = [
            redis.Redis(port=each.port, socket_timeout=60, retry=Retry(NoBackoff(), 0), protocol=2) for each in nodes
        ]

    def execute_command(self, *words: Any) -> Any:
        try:
            return self._clients[0].execute_command(*words)
        except redis.RedisError:
            self._clients.append(self._clients.pop(0))
            raise

    def close(self) -> None:
        for each in self._clients:
            each.close()


@pytest.mark.parametrize(
    "binary",
    [pytest.param(VALKEY, id="valkey", marks=pytest.mark.full), pytest.param(REDIS, id="redis")],
)
def test_the_former_master_is_the_master_again(control, binary):
    """In a rollout of its own, without another restart, and no acknowledged write is lost."""
    with trio(control, f"back-{binary.name}", binary, save="3600 1", MODFLEET_FAILOVER="command") as shard:
        a, *_ = shard.machines
        shard.carry_out("install", "keeps", 1)
        client = Anywhere(shard.machines)
        with Writer(client) as writer:
            uid = shard.carry_out("install", "keeps", 2, failback=True)
            run_ids = [each.run_id for each in shard.machines]
            back = control.rollout(uid)["failed_back_by"]
            wait_for(lambda: control.rollout(back)["phase"] in FINAL, pause=PAUSE, state=lambda: control.state(back))
            writer.wait_for_more()
        (done,) = control.get(f"{ROLLOUTS}/{back}/nodes")["results"]
        assert (done["phase"], done["fails_back_to"]) == ("succeeded", a.name), done
        failover = done["restart"]["failover"]
        assert (failover["new"], done["restart"]["downtime_seconds"]) == (a.address, None)
        assert f"The master was {failover['former']} and is {a.address}" in done["message"]
        shown = " ".join(run(control, "rollout", "status", uid).split())
        assert f"{a.name}: the master was {a.address} and is {failover['former']}." in shown
        assert f"failed back by rollout {back}" in shown
        wait_for(lambda: all(each.is_in_step(a) for each in shard.machines))
        assert [each.run_id for each in shard.machines] == run_ids
        with redis.Redis(port=a.port) as final:
            assert writer.lost(final) == []
        client.close()
        states = {
            each["state"]
            for name in shard.names
            for each in control.get(f"/v2/nodes/{name}")["modules"]
            if each["version"] == 2
        }
        assert states == {"in_sync"}
        for each in shard.machines:  # each starts as what it is now
            each.restart()
        wait_for(lambda: all(each.is_in_step(a) for each in shard.machines))


@pytest.mark.parametrize(
    ("binary", "turn", "victim"),
    [
        pytest.param(
            binary,
            turn,
            victim,
            marks=() if (binary, turn) == (REDIS, "master") and victim != "worker" else pytest.mark.full,
            id=f"{binary.name}-{turn}-{victim}",
        )
        for binary in (VALKEY, REDIS)
        for turn in ("replica", "master")
        for victim in ("agent", "worker", "server")
    ],
)
def test_a_process_is_killed_while_a_server_is_restarted(control, binary, turn, victim):
    """The rollout goes on by itself, or after a person resumes it, and the shard ends healthy."""
    name = f"killed-{binary.name}-{turn}-{victim}"
    with trio(control, name, binary, save="3600 1", MODFLEET_FAILOVER="command") as shard:
        a, b, c = shard.machines
        shard.carry_out("install", "keeps", 1)
        keep(a)
        killed = b if turn == "replica" else a
        uid = shard.start("install", "keeps", 2, strategy={"settle_seconds": 1.0})
        path = f"{ROLLOUTS}/{uid}/nodes/{killed.name}"
        phases = {"restarting", "probing", "settling"}
        wait_for(lambda: control.get(path)["phase"] in phases, pause=PAUSE, state=lambda: control.state(uid))
        match victim:
            case "agent":
                killed.leave()
                killed.join(control)
            case "server":
                killed.die(signal.SIGKILL)
            case _:
                control.up.kill("worker")

        uids = [uid]

        def goes_on() -> bool:
            phase = control.rollout(uids[-1])["phase"]
            if phase in {"paused", "completed_with_failures"}:
                uids.append(control.post(f"{ROLLOUTS}/{uids[-1]}/retry", status=202)["uid"])
                return False
            return phase in FINAL

        wait_for(goes_on, pause=PAUSE, state=lambda: control.state(uids[-1]))
        assert control.rollout(uids[-1])["phase"] == "succeeded", control.state(uids[-1])
        (new,) = [each for each in (b, c) if each.master_port() == 0]
        wait_for(lambda: all(each.is_in_step(new) for each in (a, b, c)))
        states = "\n\n".join(map(control.state, uids))
        assert [each.loaded() for each in (a, b, c)] == [[("keeps", 2)]] * 3, states
        assert [kept(each) for each in (a, b, c)] == [KEYS] * 3
        assert new.call("SET", "written", "now")
        maintenance = (control.get(f"/v2/nodes/{each}")["server_state"]["maintenance"] for each in shard.names)
        wait_for(lambda: set(maintenance) <= {""}, pause=PAUSE)


class Writer(threading.Thread):
    """A client that writes from the start of the block to its end, and knows which writes were acknowledged."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self.acknowledged = 0
        #: The longest time between two acknowledged writes, seconds.
        self.stall = 0.0
        self._client = client
        self._ends = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        self.wait_for_more()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self.join()

    def run(self) -> None:
        last = time.monotonic()
        while not self._ends.wait(0.001):
            with suppress(redis.RedisError):
                self._client.execute_command("KEEPS.SET", f"written{self.acknowledged}", self.acknowledged)
                self.acknowledged += 1
                self.stall, last = max(self.stall, time.monotonic() - last), time.monotonic()

    def wait_for_more(self) -> None:
        before = self.acknowledged
        wait_for(lambda: self.acknowledged >= before + 100)

    def lost(self, client: Any) -> list[int]:
        """The acknowledged writes that the masters do not have."""
        return [
            each for each in range(self.acknowledged) if client.execute_command("KEEPS.GET", f"written{each}") != each
        ]


@both
def test_clients_of_sentinel_lose_no_write(control, binary, capsys):
    name = f"watched-{binary.name}"
    port = free_port()
    urls = json.dumps([f"redis://{ADDRESS}:{port}"])
    sentinel_settings = {
        "MODFLEET_FAILOVER": "sentinel",
        "MODFLEET_SENTINEL_URLS": urls,
        "MODFLEET_SENTINEL_MASTER": "main",
    }
    with trio(control, name, binary, **sentinel_settings) as shard:
        a = shard.machines[0]
        with sentinel(a.folder.parent, a, port=port) as watcher:
            wait_for(lambda: len(watcher.call("SENTINEL", "REPLICAS", "main")) == 2)
            shard.carry_out("install", "keeps", 1)
            client = SentinelClient([(ADDRESS, port)]).master_for("main", retry=Retry(NoBackoff(), 0))
            with Writer(client) as writer:
                uid = shard.carry_out("install", "keeps", 2)
                writer.wait_for_more()
            assert writer.lost(client) == []
            client.close()
            done = control.get(f"{ROLLOUTS}/{uid}/nodes/{a.name}")["restart"]["failover"]
            with capsys.disabled():
                pass
            assert done["way"] == "sentinel"
            assert [each.loaded() for each in shard.machines] == [[("keeps", 2)]] * 3
            assert a.master_port() != 0


@both
def test_clients_of_a_cluster_lose_no_write(control, binary, capsys):
    """Three masters and three replicas: afterwards, the replicas are the masters."""
    name = f"cluster-{binary.name}"
    with cluster(control, name, binary) as shard:
        shard.carry_out("install", "keeps", 1)
        former, others = shard.machines[:3], shard.machines[3:]
        client = RedisCluster("127.0.0.1", former[0].port)
        with Writer(client) as writer:
            uid = shard.carry_out("install", "keeps", 2)
            writer.wait_for_more()
        assert writer.lost(client) == []
        client.close()
        with capsys.disabled():
            pass
        done = {each: control.get(f"{ROLLOUTS}/{uid}/nodes/{each}") for each in shard.names}
        for master, replica in zip(former, others, strict=True):
            assert done[replica.name]["finished_at"] <= done[master.name]["released_at"]
        assert [each.loaded() for each in shard.machines] == [[("keeps", 2)]] * 6
        assert [each.info("replication")["role"] for each in shard.machines] == ["slave"] * 3 + ["master"] * 3
