"""A real Sentinel: at a failover it calls CONFIG REWRITE on each server, and each of them starts again."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from rollout.agent.doctor import run_doctor
from rollout.agent.node.examinations import Examinations
from rollout.agent.node.node import Node
from rollout.agent.server.sentinels import COUNT
from rollout.messages import ChangeKind, Phase, Reason
from tests.integration.agent import test_all_dead
from tests.integration.agent.conftest import SERVERS, Site, Valkey
from tests.integration.agent.test_adopt import so_of
from tests.integration.agent.test_all_dead import follow, started
from tests.integration.agent.test_persistence import changes, rewrite
from tests.ports import free_port
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("binary", SERVERS, ids=lambda path: path.name)]
shard = test_all_dead.shard


@pytest.fixture
def alone(short_folder: Path, shelf: Any, binary: Path) -> Iterator[Site]:
    """A master whose agent has the owner `include`."""
    made = started(short_folder / "a", shelf, binary, "include")
    yield made
    made.server.kill()


def finding(site: Site) -> tuple[str, str]:
    found = next(each for each in run_doctor(site.runner.node.settings) if each.check == "sentinel")
    return found.status, f"{found.message} {found.fix}"


@pytest.fixture
def watch(short_folder: Path, binary: Path) -> Iterator[Callable[[Any], int]]:
    """Lets a Sentinel of the server's own program watch a master. Returns the Sentinel's port."""
    file = short_folder / "sentinel.conf"
    started: list[subprocess.Popen[bytes]] = []

    def run(master: Any) -> int:
        port = free_port()
        served = master.server.call("CONFIG", "GET", "port")[1]
        file.write_text(f"port {port}\ndir {short_folder}\nsentinel monitor m 127.0.0.1 {served} 1\n")
        started.append(subprocess.Popen([binary, file, "--sentinel"], stdout=subprocess.DEVNULL))
        wait_for(lambda: master.server.call(*COUNT)[1] == 1)
        return port

    yield run
    for each in started:
        each.kill()
        each.wait()


@pytest.fixture
def failover(watch: Callable[[Any], int]) -> Callable[[Any], None]:
    """Lets a Sentinel fail over from a master."""

    def run(master: Any) -> None:
        with redis.Redis(port=watch(master), decode_responses=True, protocol=2) as sentinel:
            wait_for(lambda: _begins(sentinel))

    return run


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


# --- One owner


def test_a_new_line_beside_a_sentinel_is_refused(alone, built, watch):
    assert finding(alone)[0] == "pass"
    watch(alone)
    report = alone.install(built("greet"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PERSISTENCE_CONFLICT)
    assert "modfleet agent install --name n1 --persistence rewrite" in report.message
    assert (alone.server.loaded(), alone.left(), alone.include()) == (set(), [], [])


def test_a_sentinel_that_comes_while_a_module_settles(alone, built, watch):
    command = alone.command(built("greet"), settle_seconds=0.5)
    report = alone.run_and(command, Phase.SETTLING, lambda: watch(alone))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PERSISTENCE_CONFLICT)
    assert (alone.server.loaded(), alone.left(), alone.include()) == (set(), [], [])


def test_an_upgrade_is_refused_and_a_removal_is_not(alone, built, watch):
    alone.install(built("greet"))
    watch(alone)
    assert alone.install(built("greet", 10001)).reason is Reason.PERSISTENCE_CONFLICT
    assert alone.server.loaded() == {("greet", 10000)}
    assert alone.remove(built("greet")).phase is Phase.SUCCEEDED
    rewrite(alone)
    alone.server.restart()
    assert (alone.server.loaded(), alone.include()) == (set(), [])


def test_an_adoption_without_a_line_is_refused(alone, built, watch):
    greet, foreign = built("greet"), alone.root / "foreign.so"
    foreign.write_bytes(so_of(greet))
    foreign.chmod(0o755)
    alone.server.call("MODULE", "LOAD", str(foreign))
    watch(alone)
    report = alone.install(greet, adopt=True)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PERSISTENCE_CONFLICT)
    assert (alone.include(), alone.left()) == ([], [])


def test_another_owner_moves_the_lines_before_the_failover(alone, built, watch):
    alone.install(built("greet"))
    alone.install(built("echoes", 1))
    watch(alone)
    assert alone.runner.heartbeat(hello=False).facts.sentinels == 1
    status, words = finding(alone)
    assert (status, "--persistence rewrite" in words) == ("fail", True)
    alone.environ["MODFLEET_PERSISTENCE"] = "rewrite"
    alone.restart_agent()
    assert (alone.include(), sorted(alone.server.loads())) == ([], ["echoes/1/echoes.so", "greet/10000/greet.so"])
    assert finding(alone)[0] == "pass"
    alone.runner = None  # the agent is dead
    rewrite(alone)
    alone.server.restart()
    assert alone.server.loaded() == {("greet", 10000), ("echoes", 1)}


def test_lines_are_moved_into_a_file_that_the_agent_cannot_read(alone, built):
    alone.install(built("greet"))
    alone.server.file.unlink()
    alone.environ["MODFLEET_PERSISTENCE"] = "rewrite"
    alone.restart_agent()
    assert (alone.include(), alone.server.loads()) == ([], ["greet/10000/greet.so"])
    alone.server.restart()
    assert alone.server.loaded() == {("greet", 10000)}


def test_lines_that_cannot_be_moved_are_shown(alone, built, watch):
    alone.install(built("echoes", 1), args=("two words",))
    watch(alone)
    alone.environ["MODFLEET_PERSISTENCE"] = "rewrite"
    alone.restart_agent()
    assert (len(alone.include()), alone.server.loads()) == (1, [])
    status, words = finding(alone)
    assert (status, "still loads a module" in words) == ("fail", True)


def test_a_move_removes_no_line_that_waits_for_a_restart(alone, built):
    alone.install(built("greet"))
    text = alone.server.file.read_text()
    alone.server.kill()
    alone.server.file.write_text(text.replace("enable-module-command local", ""))
    alone.server.start()
    alone.server.file.write_text(text)
    alone.environ["MODFLEET_PERSISTENCE"] = "rewrite"
    alone.restart_agent()
    assert (len(alone.include()), alone.server.file.read_text()) == (1, text)


def test_the_first_sentinel_is_in_the_heartbeats_at_once(alone, watch):
    settings = alone.runner.node.settings
    doctor = Examinations(lambda: run_doctor(settings), changed=lambda: None, interval=3600)
    node = Node(settings, examinations=doctor)

    def shown() -> list[str]:
        return [each.status for each in node.heartbeat(hello=False).doctor or () if each.check == "sentinel"]

    wait_for(lambda: shown() == ["pass"])
    watch(alone)
    wait_for(lambda: shown() == ["fail"])


def test_a_move_is_an_event(alone, built):
    alone.install(built("greet"))
    alone.runner.heartbeat(hello=False)
    alone.environ["MODFLEET_PERSISTENCE"] = "rewrite"
    alone.server.kill()
    alone.restart_agent()
    alone.server.start()
    alone.runner.node.persistence._moves_at = 0.0  # a minute later
    assert changes(alone) == [ChangeKind.RESOLVED]
    assert alone.include() == []


def test_without_the_right_it_is_not_known(alone, built):
    alone.server.call("ACL", "SETUSER", "default", "-pubsub")
    report = alone.install(built("greet"))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PERMISSION_DENIED)
    assert "+pubsub|numsub" in report.message
    assert alone.server.loaded() == set()


def test_a_server_that_cannot_be_rewritten_keeps_its_include(
    short_folder: Path, shelf: Any, binary: Path, built: Any, watch: Any
) -> None:
    """It has no configuration file, so a failover changes nothing in its next start."""
    port = free_port()
    site = started(short_folder / "a", shelf, binary, "include")
    site.server.kill()
    site.server = Valkey(short_folder / "a/s", binary=binary, aof="no", include=site.root / "modules/modfleet.conf")
    site.server.start()
    try:
        site.server.call("CONFIG", "SET", "port", port)
        watch(site)
        report = site.install(built("greet"))
        assert report
        assert report.phase is Phase.SUCCEEDED
        assert finding(site)[0] == "pass"
        with pytest.raises(redis.ResponseError):
            rewrite(site)
        site.server.restart()
        assert site.server.loaded() == {("greet", 10000)}
    finally:
        site.server.kill()
