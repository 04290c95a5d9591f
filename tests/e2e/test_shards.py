"""Shards of real servers with real agents: order, persistence and removal, with clients that write all the time."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import count
from pathlib import Path

import pytest
import redis

from tests.e2e.conftest import FAILED
from tests.fleet import PAUSE, ROLLOUTS, Fleet, remove_folder, running_fleet, short_folder
from tests.integration.agent.conftest import VALKEY
from tests.shards import Machine, Shard, Writer, machines, module, run, sentinel, stranger, upload
from tests.waiting import wait_for

REDIS = Path(shutil.which("redis-server") or "redis-server")
SERVERS = {"valkey": VALKEY, "redis": REDIS}
SETTINGS = {"MODFLEET_BEAT_SECONDS": "1", "MODFLEET_SCRATCH_SECONDS": "5"}
both = pytest.mark.parametrize("kind", SERVERS)


@pytest.fixture(scope="module")
def control(tmp_path_factory) -> Iterator[Fleet]:
    """A control plane without nodes of its own, with the modules of these tests."""
    with running_fleet(nodes=0) as fleet:
        folder = tmp_path_factory.mktemp("packages")
        for version in (1, 2):
            upload(fleet, module(folder, "writes", version, "writes.set"))
        upload(fleet, module(folder, "writes", 3, "writes.set", "writes.more", MORE="1"))
        upload(fleet, module(folder, "crashes", 1))
        upload(fleet, module(folder, "hangs", 1))
        yield fleet


class Shards:
    """A shard of each server, once a test needs it. What a failed test leaves is replaced."""

    def __init__(self, fleet: Fleet, root: Path) -> None:
        self._fleet, self._root = fleet, root
        self._made: dict[str, tuple[Shard, ExitStack]] = {}
        self._number = count(1)

    def take(self, kind: str) -> Shard:
        if kind not in self._made:
            names = [f"{kind}{number}-{each}" for number in [next(self._number)] for each in "abcd"]
            made = [Machine(name, self._root / name, SERVERS[kind], settings=SETTINGS) for name in names]
            stack = ExitStack()
            self._made[kind] = Shard(self._fleet, stack.enter_context(machines(self._fleet, made))), stack
        return self._made[kind][0]

    def discard(self, kind: str) -> None:
        """The next test gets another one. Operations on the nodes of this one end."""
        shard, stack = self._made.pop(kind)
        stack.close()
        for name in shard.names:
            self._fleet.post(f"/v2/nodes/{name}/decommission", status=200)

    def end(self) -> None:
        for _, stack in self._made.values():
            stack.close()


@pytest.fixture(scope="module")
def shards(control) -> Iterator[Shards]:
    root = short_folder()
    made = Shards(control, root)
    try:
        yield made
    finally:
        made.end()
        remove_folder(root)


@pytest.fixture
def kind() -> str:
    """The server; a test may ask for another one by a parameter of this name."""
    return "redis"


@pytest.fixture
def shard(request, shards, kind) -> Iterator[Shard]:
    """A master with two replicas, one of which has a replica, without a module."""
    found = shards.take(kind)
    try:
        found.clear()
    except BaseException:
        shards.discard(kind)
        raise
    yield found
    if request.node.stash[FAILED]:
        shards.discard(kind)


@contextmanager
def append_only(shard: Shard) -> Iterator[None]:
    """The servers keep their data in an append-only file, also after a restart."""
    for each in shard.machines:
        each.append_only(True)
    yield
    # A full sync switches it off for a moment.
    wait_for(lambda: all(each.info("persistence")["aof_enabled"] == 1 for each in shard.machines))
    for each in shard.machines:
        each.append_only(False)


@pytest.mark.parametrize("persistence", [nullcontext, append_only], ids=["rdb", "aof"])
@both
def test_no_write_is_lost_and_no_command_is_refused(shard, persistence):
    with persistence(shard):
        _writes_during_install_upgrade_and_removal(shard)
        before = [_digest(each) for each in shard.machines]
        _restart_all(shard)
        wait_for(lambda: [_digest(each) for each in shard.machines] == before, pause=PAUSE)


def _digest(machine: Machine) -> str:
    """Of the server's data; empty while it loads them, as a replica after its restart."""
    try:
        return str(machine.call("DEBUG", "DIGEST"))
    except redis.RedisError:
        return ""


def _writes_during_install_upgrade_and_removal(shard: Shard) -> None:
    a, b, c, d = shard.machines
    run_ids = [each.run_id for each in shard.machines]  # a restart would set the counts of errors to 0
    errors = [each.unexpected_error_replies for each in (b, c, d)]
    with Writer(a) as writer:
        first = shard.carry_out("install", "writes", 1)
        writer.wait_for_more()
        second = shard.carry_out("install", "writes", 2)
        writer.wait_for_more()
        assert [each.loaded() for each in shard.machines] == [[("writes", 2)]] * 4
        body = shard.body("remove", "writes", 2)
        assert shard.fleet.post(ROLLOUTS, body, status=409)["error_code"] == "in_use"
        assert writer.refused == []
        third = shard.carry_out("remove", "writes", 2, even_if_used=True)
        wait_for(lambda: writer.refused)
    assert all("unknown command" in each for each in writer.refused)
    assert writer.is_refused_to_the_end
    for uid in (first, second):
        turns = shard.turns(uid)
        assert sorted(turns) == shard.names
        assert turns[-1] == a.name
        assert turns.index(d.name) < turns.index(b.name)
    turns = shard.turns(third)
    assert sorted(turns) == shard.names
    assert turns[0] == a.name
    assert turns.index(b.name) < turns.index(d.name)
    wait_for(lambda: all(each.is_in_step(a) for each in (b, c, d)))
    assert a.call("DBSIZE") >= writer.done
    assert {each.call("DEBUG", "DIGEST") for each in (b, c, d)} == {a.call("DEBUG", "DIGEST")}
    assert [each.unexpected_error_replies for each in (b, c, d)] == errors
    assert [each.run_id for each in shard.machines] == run_ids


def test_a_rollback_takes_the_reverse_order_while_a_client_writes(shard):
    a, b, c, d = shard.machines
    shard.carry_out("install", "writes", 1)
    run_ids = [each.run_id for each in shard.machines]
    errors = [each.unexpected_error_replies for each in (b, c, d)]
    less = a.folder / "less"  # the new version does not have all of its commands in this server
    less.touch()
    with Writer(a) as writer:
        uid = shard.start("install", "writes", 3, strategy={"on_failure": "rollback"})
        assert shard.fleet.end_of(uid)["phase"] == "rolled_back", shard.fleet.state(uid)
        writer.wait_for_more()
    less.unlink()
    assert writer.refused == []
    turns = shard.turns(uid)
    there, back = turns[:4], turns[4:]
    assert sorted(there) == sorted(back) == shard.names
    assert (there[-1], there.index(d.name) < there.index(b.name)) == (a.name, True)
    assert back.index(b.name) < back.index(d.name)  # their master has been restored by its agent
    assert [each.loaded() for each in shard.machines] == [[("writes", 1)]] * 4
    wait_for(lambda: all(each.is_in_step(a) for each in (b, c, d)))
    assert {each.call("DEBUG", "DIGEST") for each in (b, c, d)} == {a.call("DEBUG", "DIGEST")}
    assert [each.unexpected_error_replies for each in (b, c, d)] == errors
    assert [each.run_id for each in shard.machines] == run_ids


@both
def test_an_abort_undoes_what_runs_while_a_client_writes(shard):
    """A replica has the new version, and settles. It gets the old one back."""
    a, b, c, d = shard.machines
    shard.carry_out("install", "writes", 1)
    run_ids = [each.run_id for each in shard.machines]
    errors = [each.unexpected_error_replies for each in (b, c, d)]
    with Writer(a) as writer:
        uid = shard.start("install", "writes", 2, strategy={"on_abort": "undo", "settle_seconds": 60})
        wait_for(lambda: [("writes", 2)] in [each.loaded() for each in (c, d)])
        writer.wait_for_more()
        shard.fleet.post(f"{ROLLOUTS}/{uid}/abort")
        assert shard.fleet.end_of(uid)["phase"] == "aborted", shard.fleet.state(uid)
        writer.wait_for_more()
    assert set(shard.fleet.phases(uid).values()) == {"canceled"}
    assert [each.loaded() for each in shard.machines] == [[("writes", 1)]] * 4
    assert writer.refused == []
    wait_for(lambda: all(each.is_in_step(a) for each in (b, c, d)))
    assert {each.call("DEBUG", "DIGEST") for each in (b, c, d)} == {a.call("DEBUG", "DIGEST")}
    assert [each.unexpected_error_replies for each in (b, c, d)] == errors
    assert [each.run_id for each in shard.machines] == run_ids


def test_a_replica_without_an_agent_stops_the_plan_until_a_person_answers_for_it(shard, folder):
    a, *_ = shard.machines
    with stranger(a, folder / "stranger") as unknown:
        wait_for(lambda: shard.fleet.node(a.name)["unmanaged_replicas"] == [unknown.address], pause=PAUSE)
        refused = shard.fleet.post(ROLLOUTS, shard.body("install", "writes", 1), status=409)
        assert refused["error_code"] == "unmanaged_replica"
        assert unknown.address in refused["description"]
        run(shard.fleet, "nodes", "ignore-replica", unknown.address, "--reason", "A reporting server")
        shard.carry_out("install", "writes", 1)
        assert unknown.loaded() == []


@pytest.mark.parametrize("kind", ["valkey"])
def test_a_failover_between_two_waves(shard):
    """By hand; a Sentinel does it below."""
    a, b, c, d = shard.machines
    strategy = {"canary": 1, "gate": "manual"}
    uid = shard.start("install", "writes", 1, strategy=strategy)
    shard.fleet.wait_for_wave(uid, 0, "gated")
    (canary,) = [each for each in shard.machines if each.loaded()]
    assert canary in (c, d)
    new = b if canary is c else c
    new.follow(None)
    for each in (a, b, c):
        if each is not new:
            each.follow(new)
    shard.fleet.post(f"{ROLLOUTS}/{uid}/promote", {"wave": 0})
    shard.succeeded(uid)
    assert shard.turns(uid)[-1] == new.name
    assert [each.loaded() for each in shard.machines] == [[("writes", 1)]] * 4


@contextmanager
def copying(machine: Machine) -> Iterator[None]:
    """`redis-cli --rdb` copies the server's data, into a pipe that is never read."""
    pipe = machine.folder / "copy"
    os.mkfifo(pipe)
    words = ["redis-cli", "-s", str(machine.socket), "--rdb", str(pipe)]
    tool = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: int(machine.info("replication")["connected_slaves"]) == 1)  # it has no replica
        yield
    finally:
        tool.kill()
        tool.wait()
        pipe.unlink()


@both
def test_it_waits_for_a_backup(shard):
    a, *_, d = shard.machines
    a.call("SET", "ballast", os.urandom(20_000_000))  # more than the buffers between server and tool take
    wait_for(lambda: d.is_in_step(a))
    with copying(d):
        uid = shard.start("install", "writes", 1)
        wait_for(lambda: shard.fleet.operation(uid, d.name)["reason"] == "backup_running", pause=PAUSE)
        assert shard.fleet.get(f"{ROLLOUTS}/{uid}/nodes/{d.name}/why")["waits_for"]
        assert (d.loaded(), shard.fleet.operation(uid, d.name)["phase"]) == ([], "scheduled")
    shard.succeeded(uid)
    assert shard.fleet.rollout(uid)["progress"]["failed_before"] == 0


@both
def test_an_acl_user_that_names_a_command_keeps_the_module(shard):
    a, *_ = shard.machines
    shard.carry_out("install", "writes", 1)
    a.call("ACL", "SETUSER", "app", "on", "nopass", "~*", "+writes.set")
    run_id = a.run_id
    uid = shard.start("remove", "writes", 1, even_if_used=True)  # a test before this one may have called its command
    shard.fleet.wait_for_rollout(uid, "paused")
    operation = shard.fleet.operation(uid, a.name)
    assert (operation["phase"], operation["reason"]) == ("failed", "acl_references_module")
    assert "app" in operation["message"]
    assert [each.loaded() for each in shard.machines] == [[("writes", 1)]] * 4
    shard.fleet.post(f"{ROLLOUTS}/{uid}/abort")
    shard.fleet.end_of(uid)
    assert any("writes.set" in rule for rule in a.call("ACL", "LIST"))
    a.call("ACL", "DELUSER", "app")
    shard.carry_out("remove", "writes", 1, even_if_used=True)
    assert a.run_id == run_id


def fails_over(watcher: Machine) -> bool:
    """Ask for a failover. A Sentinel that has not heard from the replicas yet refuses it."""
    try:
        return bool(watcher.call("SENTINEL", "FAILOVER", "main"))
    except redis.ResponseError:
        return False


@both
def test_what_a_sentinel_writes_into_the_configuration_does_not_stop_the_next_start(shard, folder):
    a, b, c, d = shard.machines
    shard.carry_out("install", "writes", 1)
    with sentinel(folder, a) as watcher:
        wait_for(lambda: int(watcher.info("sentinel")["master0"]["slaves"]) == 2)
        wait_for(lambda: fails_over(watcher), pause=PAUSE)
        wait_for(lambda: a.master_port() and {a.master_port()} == {each.master_port() or each.port for each in (b, c)})
        wait_for(lambda: shard.fleet.node(a.name)["server_state"]["sentinels"] == 1, pause=PAUSE)
    d.call("CONFIG", "REWRITE")  # no Sentinel knows of a replica's replica
    _restart_with(shard, 1)
    shard.carry_out("install", "writes", 2)
    for each in shard.machines:
        each.call("CONFIG", "REWRITE")
    _restart_with(shard, 2)
    shard.carry_out("remove", "writes", 2)
    _restart_all(shard)
    assert [each.loaded() for each in shard.machines] == [[]] * 4


def test_a_sentinel_fails_over_between_two_waves(control, folder):
    """It rewrites the file of each server, as the agents do after each change."""
    settings = {"MODFLEET_BEAT_SECONDS": "1", "MODFLEET_PERSISTENCE": "rewrite"}
    made = [Machine(f"rewrite-{each}", folder / each, REDIS, settings=settings) for each in "abc"]
    a, *replicas = made
    shard = Shard(control, made)
    with machines(control, made), sentinel(folder, a) as watcher:
        for each in replicas:
            each.follow(a)
        wait_for(lambda: shard.masters() == {a.name: "", **{each.name: a.name for each in replicas}}, pause=PAUSE)
        shard.carry_out("install", "writes", 1)
        uid = shard.start("install", "writes", 2, strategy={"canary": 1, "gate": "manual"})
        control.wait_for_wave(uid, 0, "gated")
        (new,) = [each for each in replicas if each.loaded() == [("writes", 1)]]
        new.call("CONFIG", "SET", "replica-priority", 1)
        wait_for(lambda: 1 in _priorities(watcher))
        wait_for(lambda: fails_over(watcher), pause=PAUSE)
        places = {each.name: "" if each is new else new.name for each in made}
        wait_for(lambda: shard.masters() == places, pause=PAUSE)
        wait_for(lambda: all(each.is_in_step(new) for each in made))
        control.post(f"{ROLLOUTS}/{uid}/promote", {"wave": 0})
        shard.succeeded(uid)
        turns = shard.turns(uid)
        assert (sorted(turns), turns[-1]) == (shard.names, new.name)
        assert [control.node(each.name)["server_state"]["sentinels"] for each in made] == [1] * 3
        _restart_with(shard, 2)


def test_a_tool_that_owns_the_configuration_gets_the_line_of_each_server_in_turn(control, folder):
    """It writes the line and restarts the server. The agents do neither."""
    settings = {"MODFLEET_BEAT_SECONDS": "1", "MODFLEET_PERSISTENCE": "external"}
    made = [Machine(f"external-{each}", folder / each, REDIS, settings=settings) for each in "ab"]
    a, b = made
    shard = Shard(control, made)
    with machines(control, made):
        b.follow(a)
        b.call("CONFIG", "REWRITE")
        wait_for(lambda: shard.masters() == {a.name: "", b.name: a.name}, pause=PAUSE)
        uid = shard.start("install", "writes", 1)
        after = [_add_line_and_restart(each, control, uid) for each in (b, a)]
        shard.succeeded(uid)
        assert shard.turns(uid) == [b.name, a.name]
        assert [each.loaded() for each in made] == [[("writes", 1)]] * 2
        assert [(each.run_id, each.file.read_text()) for each in (b, a)] == after
        assert [each.include.exists() for each in made] == [False] * 2


def _line_for(fleet: Fleet, uid: str, machine: Machine) -> str:
    """The line that the operation waits for, empty as long as it does not."""
    operation = fleet.operation(uid, machine.name)
    is_waiting = operation["reason"] == "external_configuration"
    return str(operation["message"].split("`")[1]) if is_waiting else ""


def _add_line_and_restart(machine: Machine, fleet: Fleet, uid: str) -> tuple[str, str]:
    """Return what names the server's process, and its configuration."""
    line = wait_for(lambda: _line_for(fleet, uid, machine), pause=PAUSE, state=lambda: fleet.state(uid))
    assert (machine.loaded(), machine.lines()) == ([], [])
    with machine.file.open("a") as file:
        file.write(f"{line}\n")
    machine.restart()
    return machine.run_id, machine.file.read_text()


def _priorities(watcher: Machine) -> list[int]:
    """Of the replicas, as the Sentinel knows them."""
    found = [dict(zip(each[::2], each[1::2], strict=True)) for each in watcher.call("SENTINEL", "REPLICAS", "main")]
    return [int(each["slave-priority"]) for each in found]


def _restart_with(shard: Shard, version: int) -> None:
    """Restart each server once its agent has left one line for the module."""
    count = len(shard.machines)
    wait_for(lambda: [each.lines() for each in shard.machines] == [[f"writes/{version}/writes.so"]] * count)
    assert all("loadmodule" in each.file.read_text() for each in shard.machines)
    _restart_all(shard)
    assert [each.loaded() for each in shard.machines] == [[("writes", version)]] * count


def _restart_all(shard: Shard) -> None:
    for each in shard.machines:
        each.restart()
    shard.forget()


@pytest.mark.parametrize(("name", "reason"), [("crashes", "scratch_load_failed"), ("hangs", "scratch_hung")])
@both
def test_a_scratch_server_catches_it(shard, name, reason):
    run_ids = [each.run_id for each in shard.machines]
    uid = shard.start("install", name, 1)
    shard.fleet.wait_for_rollout(uid, "paused")
    failed = [each for each in shard.fleet.outcomes(uid) if each[1] != "scheduled"]
    assert [each[1:3] for each in failed] == [("failed", reason)]
    assert [each.run_id for each in shard.machines] == run_ids
