"""Other servers of the node's shard, and what happens to them. On Debian's Redis and on the Valkey of the wheel."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from rollout.messages import ServerState
from tests.integration.agent.conftest import SERVERS, Site, Valkey
from tests.ports import free_port
from tests.waiting import wait_for

both = pytest.mark.parametrize("binary", SERVERS, ids=["valkey", "redis"])


def state_of(site: Site) -> ServerState:
    facts = site.runner.heartbeat(hello=False).facts
    assert facts
    return facts


def at(site: Site, server: Valkey) -> Site:
    """Let the node's agent manage this server."""
    site.environ["MODFLEET_SERVER_URL"] = server.url
    site.restart_agent()
    return site


@contextmanager
def started(server: Valkey) -> Iterator[Valkey]:
    server.start()
    try:
        yield server
    finally:
        if server.process and server.process.poll() is None:
            server.kill()


@contextmanager
def another(site: Site, name: str = "other") -> Iterator[Valkey]:
    """A server with a TCP port, of which nothing else is known."""
    with started(Valkey(site.root / name, binary=site.server.binary, options=("--port", str(free_port())))) as server:
        yield server


def port_of(server: Valkey) -> str:
    """Return the TCP port of the server, which gets one if it has none."""
    port = str(server.call("CONFIG GET", "port")["port"])
    if port == "0":
        port = str(free_port())
        server.call("CONFIG", "SET", "port", port)
    return port


def follow(replica: Valkey, master: Valkey) -> None:
    """Make the one a replica of the other, and wait until their link is up."""
    master.call("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    port_of(replica)
    replica.call("REPLICAOF", "127.0.0.1", port_of(master))
    wait_for(lambda: replica.call("INFO", "replication")["master_link_status"] == "up")
    ports = lambda: [each["port"] for each in _replicas(master) if each["state"] == "online"]  # noqa: E731
    wait_for(lambda: int(port_of(replica)) in ports())


def _replicas(master: Valkey) -> list[dict[str, object]]:
    info = master.call("INFO", "replication")
    return [info[f"slave{number}"] for number in range(info["connected_slaves"])]


@contextmanager
def copying(server: Valkey) -> Iterator[None]:
    """`redis-cli --rdb` copies the server's data, into a pipe that is read only at the end."""
    pipe = server.folder / "copy"
    os.mkfifo(pipe)
    try:
        with _tool(server, "--rdb", pipe):
            yield
    finally:
        pipe.unlink()


@contextmanager
def listening(server: Valkey) -> Iterator[None]:
    """`redis-cli --replica` has copied the server's data, and shows each write."""
    server.call("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    with _tool(server, "--replica"):
        wait_for(lambda: [each["state"] for each in _replicas(server)] == ["online"])
        yield


@contextmanager
def _tool(server: Valkey, *words: str | Path) -> Iterator[None]:
    tool = subprocess.Popen(
        ["redis-cli", "-s", server.socket, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: any(each["port"] == 0 for each in _replicas(server)))
        yield
    finally:
        tool.kill()
        tool.wait()
        wait_for(lambda: not _replicas(server))


@contextmanager
def synchronizing(replica: Valkey, master: Valkey) -> Iterator[None]:
    """The replica waits for all data of the master, whose process that sends them takes a minute for each key."""
    assert master.process
    master.call("CONFIG", "SET", "repl-diskless-sync", "yes", "repl-diskless-sync-delay", "0")
    master.call("CONFIG", "SET", "rdb-key-save-delay", 60_000_000)
    master.call("SET", "key", "value")
    port_of(replica)
    replica.call("REPLICAOF", "127.0.0.1", port_of(master))
    children = Path(f"/proc/{master.process.pid}/task/{master.process.pid}/children")
    try:
        wait_for(lambda: replica.call("INFO", "replication")["master_sync_in_progress"] == 1)
        yield
    finally:
        master.call("CONFIG", "SET", "rdb-key-save-delay", 0)
        for child in children.read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
    wait_for(lambda: replica.call("INFO", "replication")["master_link_status"] == "up")


@dataclass(frozen=True)
class Cluster:
    """Two masters, which have half of the slots each, and a replica of the first one. The node's server is the first."""

    first: Valkey
    second: Valkey
    replica: Valkey

    def begin_migration(self, slot: int) -> None:
        """As `redis-cli --cluster reshard` does for each slot."""
        first, second = (each.call("CLUSTER", "MYID") for each in (self.first, self.second))
        self.second.call("CLUSTER", "SETSLOT", slot, "IMPORTING", first)
        self.first.call("CLUSTER", "SETSLOT", slot, "MIGRATING", second)

    def end_migration(self, slot: int) -> None:
        for each in (self.first, self.second):
            each.call("CLUSTER", "SETSLOT", slot, "STABLE")

    @contextmanager
    def atomic_migration(self, first: int, last: int) -> Iterator[None]:
        """All of these slots migrate at once; the second master does not answer, so that they are on their way."""
        assert self.second.process
        target = self.second.call("CLUSTER", "MYID")
        self.second.process.send_signal(signal.SIGSTOP)
        try:
            self.first.call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", first, last, "NODE", target)
            yield
        finally:
            self.second.process.send_signal(signal.SIGCONT)


@contextmanager
def cluster_of(site: Site) -> Iterator[Cluster]:
    site.server.kill()
    site.server.options = _cluster_options()
    site.server.start()
    with ExitStack() as stack:
        others = [
            stack.enter_context(
                started(Valkey(site.root / name, binary=site.server.binary, aof="no", options=_cluster_options()))
            )
            for name in ("second", "replica")
        ]
        cluster = Cluster(site.server, *others)
        servers = (cluster.first, *others)
        for other in others:
            other.call("CLUSTER", "MEET", "127.0.0.1", port_of(cluster.first), cluster.first.options[5])
        cluster.first.call("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        cluster.second.call("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
        # Until their epochs differ, and each knows all others.
        wait_for(lambda: all(each.call("CLUSTER INFO")["cluster_state"] == "ok" for each in servers))
        wait_for(lambda: all(each.call("CLUSTER INFO")["cluster_known_nodes"] == "3" for each in servers))
        cluster.replica.call("CLUSTER", "REPLICATE", cluster.first.call("CLUSTER", "MYID"))
        wait_for(lambda: cluster.replica.call("INFO", "replication").get("master_link_status") == "up")
        yield cluster


def _cluster_options() -> tuple[str, ...]:
    ports = ("--port", str(free_port()), "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    return (*ports, "--repl-diskless-sync-delay", "0")
