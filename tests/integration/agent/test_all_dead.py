"""Control plane, broker and agents are dead: each server starts again with its modules, serves, and takes another's place."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rollout.messages import Phase
from tests.integration.agent.conftest import SERVERS, Site
from tests.integration.agent.nodes import started_node
from tests.integration.agent.test_persistence import Configured
from tests.ports import free_port
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("binary", SERVERS, ids=lambda path: path.name)]


class Member(Configured):
    """A server of a replica set: it also listens at a port."""

    port = 0

    def write(self) -> None:
        super().write()
        self.file.write_text(self.file.read_text().replace("port 0", f"port {self.port}"))


def started(root: Path, shelf: Any, binary: Path, owner: str) -> Site:
    root.mkdir()
    more = [f"include {root}/modules/*.conf"] if owner == "include" else []
    server = Member(root / "s", binary=binary, aof="no", more=[*more, "save 3600 1", "repl-diskless-sync-delay 0"])
    server.port = free_port()
    return started_node(root, server, shelf, owner)


@pytest.fixture(params=["include", "rewrite"])
def shard(request: pytest.FixtureRequest, short_folder: Path, shelf: Any, binary: Path) -> Iterator[list[Site]]:
    """A master and two replicas."""
    made = [started(short_folder / each, shelf, binary, request.param) for each in "abc"]
    yield made
    for each in made:
        each.server.kill()


def follow(site: Any, master: Any) -> None:
    site.server.call("REPLICAOF", "127.0.0.1", master.server.port)
    wait_for(lambda: site.server.call("INFO", "replication")["master_link_status"] == "up")


def save(site: Any) -> None:
    wait_for(lambda: site.server.call("INFO", "persistence")["rdb_bgsave_in_progress"] == 0)
    site.server.call("SAVE")


def test_each_server_starts_serves_and_fails_over(shard, built):
    master, *replicas = shard
    for each in (*replicas, master):
        assert each.install(built("keeps", 1), has_types=True).phase is Phase.SUCCEEDED
        assert each.install(built("greet")).phase is Phase.SUCCEEDED
    master.server.call("KEEPS.SET", "k", "7")
    for each in replicas:
        follow(each, master)
    for each in shard:  # neither control plane nor broker ever ran, and now no agent does
        each.runner = None
        save(each)
    assert [each.name for each in threading.enumerate() if each.name in {"heartbeats", "doctor"}] == []
    master.shelf.server.shutdown()
    for each in shard:
        each.server.restart()
        assert {("keeps", 1), ("greet", 10000)} <= each.server.loaded()
        assert each.server.call("KEEPS.GET", "k") == 7
    new, other = replicas
    new.server.call("REPLICAOF", "NO", "ONE")
    new.server.call("SET", "n", "8")
    for each in (other, master):
        follow(each, new)
        assert (each.server.call("GET", "n"), each.server.call("KEEPS.GET", "k")) == ("8", 7)
    for each in shard:
        each.server.restart()
        assert each.server.call("GREET.HELLO")
