"""Recorders, final data and clean-up against a cluster of real servers, without a control plane."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from modfleet.failure import UsageError
from modfleet.proof import staging as proofs
from modfleet.proof.checker import Limits, check
from modfleet.proof.history import FINAL, Kind, read_dumps
from modfleet.proof.own_commands import Commands
from modfleet.proof.paths import ClusterPath
from modfleet.proof.staging import Proof, shape
from modfleet.proof.staging_file import Staging
from modfleet.proof.topology import find_servers
from modfleet.sample import compile_module
from tests.fleet import remove_folder, short_folder
from tests.integration.agent.conftest import VALKEY
from tests.ports import free_port
from tests.shards import SOURCES, Machine
from tests.waiting import wait_for

COMMANDS = Commands(
    module="entries",
    prefix="p:",
    kind=Kind.ADD,
    write=("entries.add", "{key}", "{entry}"),
    get=("entries.get", "{key}"),
    delete=("DEL", "{key}"),
    entries_at=2,
)
LIMITS = Limits(stall_ratio=None, restarted=False)


def compiled(folder: Path, version: int) -> str:
    defines = {"NAME": '"entries"', "VERSION": str(version)}
    return str(compile_module(SOURCES / "entries.c", folder / f"entries-{version}.so", defines=defines))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Sequence[Machine]]:
    """Two masters, and a replica of the first one, with the module."""
    folder = short_folder()
    made = [
        Machine(name, folder / name, VALKEY, extra=["cluster-enabled yes", f"cluster-port {free_port()}"])
        for name in "abc"
    ]
    try:
        for each in made:
            each.start()
            each.call("MODULE", "LOAD", compiled(folder, 1))
        a, b, c = made
        bus = a.call("CONFIG", "GET", "cluster-port")[1]
        for each in (b, c):
            each.call("CLUSTER", "MEET", "127.0.0.1", a.port, bus)
        a.call("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        b.call("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
        wait_for(lambda: a.call("CLUSTER", "MYID") in c.call("CLUSTER", "NODES"))
        c.call("CLUSTER", "REPLICATE", a.call("CLUSTER", "MYID"))
        wait_for(lambda: all("cluster_state:ok" in str(each.call("CLUSTER", "INFO")) for each in made))
        wait_for(lambda: all(each.call("CLUSTER", "NODES").count("slave") == 1 for each in made))
        wait_for(lambda: c.is_in_step(a))
        yield made
    finally:
        for each in made:
            if each.process is not None:
                each.stop()
        remove_folder(folder)


@pytest.fixture
def proof(cluster, tmp_path) -> Iterator[Proof]:
    path = ClusterPath(hosts=(("127.0.0.1", cluster[0].port),))
    made = Proof(Staging(path=path, commands=COMMANDS, rate=400, clients=2), tmp_path, seed=1, run="run")
    yield made
    made.end()
    for each in cluster[:2]:
        for key in each.call("KEYS", "p:*"):
            each.call("DEL", key)


def keys(cluster: Sequence[Machine]) -> list[str]:
    return [key for each in cluster for key in each.call("KEYS", "p:*")]


def record(proof: Proof, calls: int = 200) -> None:
    more = proof.count().acknowledged + calls
    wait_for(lambda: proof.count().acknowledged > more)


def test_the_servers_are_found(cluster):
    found = find_servers(ClusterPath(hosts=(("localhost", cluster[2].port),)))
    a, b, c = (f"127.0.0.1:{each.port}" for each in cluster)
    assert {each.address: each.master for each in found.servers.values()} == {a: "", b: "", c: a}
    assert (found.servers[a].slots, found.servers[c].slots) == (((0, 8191),), ())
    assert shape(found) == "2 masters, 1 replica"


def test_it_works(cluster, proof, tmp_path):
    proof.prepare()
    assert keys(cluster) == []
    proof.start()
    record(proof)
    proof.end()
    assert proof.dump(print) == []
    verdict = check(tmp_path, LIMITS)
    assert (verdict.violations, verdict.writes > 100, verdict.reads > 20) == ([], True, True)
    first, second, third = (found for _, found in read_dumps(tmp_path, FINAL))
    assert len({*first, *second, *third}) == len(proof.keys()) > 10
    assert keys(cluster)
    assert proof.clean_up(print) == []
    assert keys(cluster) == []


def test_a_write_that_a_replica_lacks_is_found(cluster, proof, tmp_path):
    proof.prepare()
    proof.start()
    record(proof)
    proof.end()
    lost = cluster[2].call("KEYS", "p:*")[0]
    cluster[0].call("DEL", lost)
    proof.dump(print)
    assert "lost" in {each.rule for each in check(tmp_path, LIMITS).violations}


def test_keys_that_cannot_be_deleted_are_named(cluster, proof, monkeypatch):
    monkeypatch.setattr(proofs, "DELETIONS", 1)
    proof.prepare()
    proof.start()
    record(proof, 20)
    proof.end()
    cluster[1].call("CLIENT", "PAUSE", 60_000, "WRITE")
    monkeypatch.setattr("modfleet.proof.paths.PATIENCE", 0.5)
    left = proof.clean_up(print)
    cluster[1].call("CLIENT", "UNPAUSE")
    assert "p:run:client" in left[0]
    assert "timeout: " in left[0]


def test_a_module_that_is_not_loaded(cluster, proof):
    cluster[2].call("MODULE", "UNLOAD", "entries")
    try:
        with pytest.raises(UsageError, match=f"entries is not loaded on 127.0.0.1:{cluster[2].port}"):
            proof.prepare()
    finally:
        cluster[2].call("MODULE", "LOAD", compiled(cluster[2].folder, 1))
