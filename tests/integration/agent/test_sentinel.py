"""A real Sentinel: at a failover it calls CONFIG REWRITE on each server, and each of them starts again."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from rollout.messages import Phase
from tests.integration.agent import test_all_dead
from tests.integration.agent.conftest import SERVERS
from tests.integration.agent.test_all_dead import follow
from tests.plugins.server import free_port
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("binary", SERVERS, ids=lambda path: path.name)]
shard = test_all_dead.shard


@pytest.fixture
def failover(short_folder: Path, binary: Path) -> Iterator[Callable[[Any], None]]:
    """Lets a Sentinel of the server's own program fail over from a master."""
    port, file = free_port(), short_folder / "sentinel.conf"
    started: list[subprocess.Popen[bytes]] = []

    def run(master: Any) -> None:
        file.write_text(f"port {port}\ndir {short_folder}\nsentinel monitor m 127.0.0.1 {master.server.port} 1\n")
        started.append(subprocess.Popen([binary, file, "--sentinel"], stdout=subprocess.DEVNULL))
        with redis.Redis(port=port, decode_responses=True, protocol=2) as sentinel:
            wait_for(lambda: _begins(sentinel))

    yield run
    for each in started:
        each.kill()
        each.wait()


def _begins(sentinel: Any) -> bool:
    """Start the failover, once the Sentinel knows the replicas."""
    try:
        sentinel.execute_command("SENTINEL", "FAILOVER", "m")
    except (redis.ConnectionError, redis.ResponseError):
        return False
    return True


def test_each_server_starts_after_a_failover(shard, built, failover):
    master, *replicas = shard
    for each in (*replicas, master):
        each.runner.heartbeat(hello=True)
        assert each.install(built("greet")).phase is Phase.SUCCEEDED
    for each in replicas:
        follow(each, master)
    failover(master)
    wait_for(lambda: all(each.server.loads() == ["greet/10000/greet.so"] for each in shard))
    for each in shard:
        if each.environ["MODFLEET_PERSISTENCE"] == "include":  # the agent resolves it; with `rewrite` none is needed
            each.runner.heartbeat(hello=False)
        each.server.restart()
        assert each.server.loaded() == {("greet", 10000)}
    for each in shard:
        assert each.install(built("greet", 10001)).phase is Phase.SUCCEEDED
        each.server.restart()
        assert each.server.loaded() == {("greet", 10001)}
