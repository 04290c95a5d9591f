"""Plain connections find the new master after a failover, and read from no replica."""

from collections.abc import Iterator

import pytest
import redis

from modfleet.failure import UsageError
from modfleet.proof import staging as proofs
from modfleet.proof.paths import ClusterPath, PlainPath
from modfleet.proof.staging import Proof
from modfleet.proof.staging_file import Staging
from modfleet.proof.topology import Topology, find_servers, path_in
from tests.fleet import remove_folder, short_folder
from tests.integration.agent.conftest import VALKEY
from tests.integration.proof.test_staging import COMMANDS
from tests.ports import free_port
from tests.shards import Machine
from tests.waiting import wait_for


@pytest.fixture
def pair() -> Iterator[tuple[Machine, Machine]]:
    folder = short_folder()
    a, b = (Machine(name, folder / name, VALKEY) for name in "ab")
    try:
        for each in (a, b):
            each.start()
        b.follow(a)
        wait_for(lambda: b.is_in_step(a))
        yield a, b
    finally:
        for each in (a, b):
            each.stop()
        remove_folder(folder)


def url(machine: Machine) -> str:
    return f"redis://{machine.reached}:{machine.port}"


def test_the_new_master_is_found(pair):
    a, b = pair
    path = path_in(PlainPath(urls=(url(a),)), find_servers(PlainPath(urls=(url(a),))))
    assert path == PlainPath(urls=(url(a), url(b)))
    connections = path.open()
    assert connections.call(("SET", "key", "1"), "key") == (True, url(a))
    b.follow(None)
    a.follow(b)
    with pytest.raises(redis.ReadOnlyError):
        connections.call(("SET", "key", "2"), "key")
    assert connections.call(("GET", "key"), "key") == ("1", url(b))
    assert connections.call(("SET", "key", "2"), "key") == (True, url(b))
    connections.close()


def test_without_a_master_nothing_is_read(pair):
    a, b = pair
    connections = PlainPath(urls=(url(a), url(b))).open()
    a.follow(b)
    with pytest.raises(redis.ConnectionError, match="no server says that it is a master"):
        connections.call(("GET", "key"), "key")
    connections.close()


def test_a_server_with_two_names_keeps_the_one_it_had(pair):
    a, b = pair
    found = find_servers(PlainPath(urls=(f"redis://127.0.0.1:{a.port}",)), former=[f"localhost:{a.port}"])
    master, replica = f"localhost:{a.port}", f"{b.reached}:{b.port}"
    assert {each.address: each.master for each in found.servers.values()} == {master: "", replica: master}
    assert found.unreached == {}


def test_a_replica_that_cannot_be_reached_is_an_error(pair, tmp_path, monkeypatch):
    """Its data could not be judged."""
    a, b = pair
    port = free_port()
    b.call("CONFIG", "SET", "replica-announce-port", port)
    b.follow(None)
    b.follow(a)
    wait_for(lambda: b.is_in_step(a))
    monkeypatch.setattr(proofs, "ARRIVAL", 0.0)
    staging = Staging(path=PlainPath(urls=(url(a),)), commands=COMMANDS, rate=400, clients=2)
    with pytest.raises(UsageError, match=f"{b.reached}:{port} cannot be reached: closed: .*Another server names it"):
        Proof(staging, tmp_path, seed=1, run="run").prepare()


def test_a_cluster_that_does_not_answer_is_a_connection_error():
    """redis-py raises something else than `RedisError`, which would end a recorder."""
    with pytest.raises(redis.ConnectionError):
        ClusterPath(hosts=(("127.0.0.1", free_port()),)).open()


def test_a_cluster_needs_no_other_addresses():
    path = ClusterPath(hosts=(("a", 1),))
    assert path_in(path, Topology(servers={})) is path
