"""Servers of a shard or of a host whose processes die: what each of them loads at its next start."""

import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from modfleet.packing.write import pack
from modfleet.sample import SOURCE, compile_module, sample_metadata
from tests.fleet import PAUSE, ROLLOUTS, Fleet, Up, remove_folder, running_fleet, sample, short_folder
from tests.integration.agent.conftest import VALKEY
from tests.shards import Machine, Shard, machines, module, stranger, upload
from tests.waiting import wait_for

REDIS = Path(shutil.which("redis-server") or "redis-server")
#: Aborts its server five seconds after it was loaded.
ABORTS = """
#include <stdlib.h>
#define RedisModule_OnLoad greet_on_load
{greet}
#undef RedisModule_OnLoad
static void aborts(void *context, void *nothing) {{
    (void)context, (void)nothing;
    abort();
}}
__attribute__((visibility("default"))) int RedisModule_OnLoad(Context *context, String **words, int count) {{
    unsigned long long (*create_timer)(void *, long long, void (*)(void *, void *), void *);
    if (greet_on_load(context, words, count) == ERR) return ERR;
    if ((*(int (**)(const char *, void *))context)("RedisModule_CreateTimer", &create_timer)) return ERR;
    create_timer(context, 5000, aborts, 0);
    return 0;
}}
"""
VERSION = 77700


def aborting(folder: Path) -> Path:
    source = folder / "aborts.c"
    source.write_text(ABORTS.format(greet=SOURCE.read_text()))
    built = compile_module(source, folder / "greet.so", defines={"GREET_VERSION": str(VERSION)})
    return pack(built, sample_metadata(built, version=VERSION), folder / "greet.zip")


@pytest.fixture(scope="module")
def hosts() -> Iterator[Shard]:
    """Two nodes on one host, and one on another, which share no data. Their agents have the default settings."""
    root = short_folder()
    made = [
        Machine("one", root / "one", REDIS, host="both"),
        Machine("two", root / "two", VALKEY, host="both"),
        Machine("three", root / "three", REDIS),
    ]
    try:
        with running_fleet(nodes=0) as fleet, machines(fleet, made):
            yield Shard(fleet, made)
    finally:
        remove_folder(root)


def test_two_nodes_of_one_host(hosts, tmp_path):
    one, two, three = hosts.machines
    upload(hosts.fleet, sample(tmp_path, 10000))
    uid = hosts.carry_out("install", "greet", 10000, strategy={"canary": 0})
    assert not hosts.overlaps(uid, one.name, two.name)
    before = (two.files(), two.lines(), hosts.fleet.node(two.name)["modules"])
    hosts.carry_out("remove", "greet", 10000, nodes=[one.name])
    assert (one.files(), one.lines(), one.loaded()) == ({}, [], [])
    assert (two.files(), two.lines(), hosts.fleet.node(two.name)["modules"]) == before
    for each, loaded in ((one, []), (two, [("greet", 10000)])):
        each.restart()
        assert each.loaded() == loaded
    hosts.carry_out("remove", "greet", 10000, nodes=[two.name, three.name])


@pytest.fixture(scope="module")
def aborts(hosts, tmp_path_factory):
    upload(hosts.fleet, aborting(tmp_path_factory.mktemp("aborts")))


@pytest.mark.parametrize(
    ("first", "strategy"), [("one", {}), ("two", {"canary": 0, "max_parallel": 1})], ids=["redis", "valkey"]
)
@pytest.mark.usefixtures("aborts")
def test_a_module_that_aborts_its_server_pauses_the_rollout_after_one_node(hosts, first, strategy):
    """Also without a canary, which alone is one node."""
    before = {each.name: each.run_id for each in hosts.machines}
    nodes = [first, *(each for each in hosts.names if each != first)]
    body = {"action": "install", "module_name": "greet", "version": VERSION, "nodes": nodes, "strategy": strategy}
    uid = hosts.fleet.post(ROLLOUTS, body)["uid"]
    hosts.fleet.wait_for_rollout(uid, "paused")
    (failed,) = [each for each in hosts.fleet.outcomes(uid) if each[1] != "scheduled"]
    assert failed[1:3] == ("failed", "server_crashed")
    assert "crash report" in failed[3]
    assert hosts.fleet.operation(uid, failed[0])["health"]["after"] is None
    wait_for(lambda: hosts.fleet.node(failed[0])["server_state"]["crash"] == "Its log has a crash report.", pause=PAUSE)
    wait_for(lambda: all(each.answers() for each in hosts.machines))
    changed = [each for each in hosts.machines if each.run_id != before[each.name]]
    assert [each.name for each in changed] == [failed[0]]
    assert [(each.loaded(), each.lines()) for each in hosts.machines] == [([], [])] * 3
    changed[0].restart()
    assert changed[0].loaded() == []
    hosts.fleet.post(f"{ROLLOUTS}/{uid}/abort")
    assert hosts.fleet.end_of(uid)["phase"] == "aborted"


def test_a_server_with_keys_of_the_module_starts_with_its_data_when_it_dies_during_the_soak(hosts, folder):
    """Killed once, which may be a person's restart, and then by a signal that it reports: with RDB and with AOF."""
    kinds = [(kind, name, binary) for kind in ("rdb", "aof") for name, binary in (("redis", REDIS), ("valkey", VALKEY))]
    made = [Machine(f"{kind}-{name}", folder / f"{kind}-{name}", binary) for kind, name, binary in kinds]
    fleet = hosts.fleet
    upload(fleet, module(folder, "keeps", 1, "keeps.set", "keeps.get"))
    with machines(fleet, made):
        for each in made[2:]:
            each.append_only(True)
        strategy = {"canary": 0, "max_parallel": 4, "max_failures": "100%", "settle_seconds": 60}
        uid = hosts.start("install", "keeps", 1, nodes=[each.name for each in made], strategy=strategy)
        settling = {each.name: "settling" for each in made}
        wait_for(lambda: fleet.phases(uid) == settling, pause=PAUSE, state=lambda: fleet.state(uid))
        for each in made:
            each.call("KEEPS.SET", "k", "7")
        for each in made[:2]:
            each.call("SAVE")
        _die(made, signal.SIGKILL)
        wait_for(lambda: _reasons(fleet, uid) == {"server_restarted"}, pause=PAUSE, state=lambda: fleet.state(uid))
        assert fleet.phases(uid) == settling
        _die(made, signal.SIGSEGV)
        hosts.fleet.end_of(uid)
        assert (set(fleet.phases(uid).values()), _reasons(fleet, uid)) == ({"failed"}, {"server_crashed"})
        for each in made:
            each.restart()
            assert each.call("KEEPS.GET", "k") == 7


def _reasons(fleet: Fleet, uid: str) -> set[str]:
    return {reason for _, _, reason, _ in fleet.outcomes(uid)}


def _die(made: Sequence[Machine], number: int) -> None:
    """The servers die, and have been started again with their key."""
    for each in made:
        each.die(number)
        assert (each.call("KEEPS.GET", "k"), each.loaded()) == (7, [("keeps", 1)])


def test_control_plane_broker_and_agents_are_dead(start, folder):
    up: Up = start("--nodes", "0", "--no-sample")
    made = [
        Machine(f"{kind}-{each}", folder / f"{kind}-{each}", binary, settings={"MODFLEET_BEAT_SECONDS": "1"})
        for kind, binary in (("redis", REDIS), ("valkey", VALKEY))
        for each in "ab"
    ]
    with (fleet := Fleet(up, nodes=0)).api, machines(fleet, made):
        pairs = [made[:2], made[2:]]
        for master, replica in pairs:
            replica.follow(master)
            replica.call("CONFIG", "REWRITE")
        wait_for(
            lambda: all(fleet.node(replica.name)["master"] == master.name for master, replica in pairs), pause=PAUSE
        )
        for version in (1, 2):
            upload(fleet, module(folder, "writes", version, "writes.set"))
        upload(fleet, module(folder, "keeps", 1, "keeps.set", "keeps.get"))
        shard = Shard(fleet, made)
        for name in ("writes", "keeps"):
            shard.carry_out("install", name, 1)
        with stranger(made[1], folder / "of-redis") as redis, stranger(made[3], folder / "of-valkey") as valkey:
            strangers = [redis, valkey]
            wait_for(lambda: _unmanaged(fleet) == {each.address for each in strangers}, pause=PAUSE)
            refused = fleet.post(ROLLOUTS, shard.body("install", "writes", 2), status=409)
            assert refused["error_code"] == "unmanaged_replica"
            assert all(each.address in refused["description"] for each in strangers)
            for each in made:
                each.leave()
            up.kill_all(up.pid("broker"))  # a server's title hides the mark
            wait_for(lambda: not up.left())
            for (master, replica), each in zip(pairs, strangers, strict=True):
                _ends_at_its_full_sync(each, master, replica)
        for master, replica in pairs:
            _serves_and_fails_over(master, replica)


def _unmanaged(fleet: Fleet) -> set[str]:
    nodes = fleet.get("/v2/nodes", params={"limit": 1000})["results"]
    return {address for each in nodes for address in each["unmanaged_replicas"]}


def _ends_at_its_full_sync(stranger: Machine, master: Machine, replica: Machine) -> None:
    """A replica's replica without the module's data type, which drops its writes before that; the others have them."""
    run_ids = [master.run_id, replica.run_id]
    master.call("KEEPS.SET", "n", 7)
    wait_for(lambda: all(each.is_in_step(master) for each in (replica, stranger)))
    assert (stranger.call("EXISTS", "n"), stranger.unexpected_error_replies) == (0, 1)
    synchronized = master.info("stats")["sync_full"]
    master.call("DEBUG", "CHANGE-REPL-ID")
    master.call("CLIENT", "KILL", "TYPE", "replica")
    wait_for(lambda: "no matching module type" in (stranger.folder / "log").read_text())
    wait_for(lambda: stranger.run_id == "")
    wait_for(lambda: master.info("stats")["sync_full"] > synchronized and replica.is_in_step(master))
    assert [each.call("KEEPS.GET", "n") for each in (master, replica)] == [7, 7]
    assert [master.run_id, replica.run_id] == run_ids


def _serves_and_fails_over(master: Machine, replica: Machine) -> None:
    master.call("WRITES.SET", "k", "before")
    wait_for(lambda: replica.is_in_step(master))
    for each in (replica, master):
        each.restart()
        assert each.loaded() == [("keeps", 1), ("writes", 1)]
        assert (each.call("GET", "k"), each.call("KEEPS.GET", "n")) == ("before", 7)
    replica.follow(None)
    master.follow(replica)
    replica.call("WRITES.SET", "k", "after")
    wait_for(lambda: master.is_in_step(replica) and master.call("GET", "k") == "after")
    assert master.call("KEEPS.GET", "n") == 7
    for each in (replica, master):
        assert each.unexpected_error_replies == 0
