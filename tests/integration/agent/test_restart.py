"""Versions that a server loads by a restart: modules with data types, and servers that refuse MODULE LOAD."""

import json
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from rollout.agent.node import maintenance as node_maintenance
from rollout.agent.operations.runner import Runner
from rollout.agent.restart.held import Held
from rollout.agent.settings import settings_from
from rollout.messages import Action, Phase, Reason, Way
from tests.integration.agent.conftest import SERVERS, Built, Site
from tests.shards import Machine
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

both = pytest.mark.parametrize("binary", SERVERS, ids=["valkey", "redis"])


@dataclass
class Supervised(Site):
    """A node whose server is started again whenever it ends."""

    server: Machine  # type: ignore[assignment]  # the tests use what both have

    def restart(self, built: Built, **changes):
        return self.install(built, way=Way.RESTART, **changes)


@pytest.fixture
def node(short_folder, shelf, binary) -> Iterator[Supervised]:
    server = Machine("n1", short_folder / "s", binary)
    environ = {
        "MODFLEET_NODE": "n1",
        "MODFLEET_BROKER_URL": "redis://127.0.0.1:1/0",
        "MODFLEET_CONTROL_URL": shelf.url,
        "MODFLEET_SERVER_URL": f"unix://{server.socket}",
        "MODFLEET_MODULES_DIR": str(server.modules),
        "MODFLEET_JOURNAL_DIR": str(short_folder / "journal"),
        "MODFLEET_ACCESS": "restart",
        "MODFLEET_RESTART": "shutdown",
    }
    server.modules.mkdir(parents=True)
    site = Supervised(short_folder, server, shelf, Runner(settings_from(environ)), environ)
    site.runner.recover()
    server.start()
    yield site
    server.stop()


def keep(node, count=1000):
    node.server.call_each(("KEEPS.SET", f"key{key}", key) for key in range(count))


def kept(node):
    return kept_by(node.server)


def kept_by(server: Machine) -> int:
    """How many of the 1,000 keys the server has."""
    answers = server.call_each(("KEEPS.GET", f"key{key}") for key in range(1000))
    return sum(answer == key for key, answer in enumerate(answers))


@both
def test_a_module_with_a_data_type(node, built):
    one, two = built("keeps", 1), built("keeps", 2)
    report = node.restart(one)
    assert report.phase is Phase.SUCCEEDED, report
    keep(node)
    run_id = node.server.run_id
    report = node.restart(two)
    assert report.phase is Phase.SUCCEEDED, report
    assert report.restart.downtime_seconds > 0
    assert node.server.run_id != run_id
    assert node.server.loaded() == [("keeps", 2)]
    assert kept(node) == 1000
    assert node.server.lines() == ["keeps/2/keeps.so"]
    assert node.runner.node.maintenance.held.read() is None


@both
@pytest.mark.parametrize("name", ["keeps", "greet"])
def test_lines_that_a_person_has_doubled_since_the_last_heartbeat(node, built, name):
    assert node.restart(built(name, 1)).phase is Phase.SUCCEEDED
    node.server.call("CONFIG", "REWRITE")
    report = node.restart(built(name, 2))
    assert report.phase is Phase.SUCCEEDED, report
    assert node.server.loaded() == [(name, 2)]
    assert len(node.server.lines()) == 1


@both
def test_a_server_that_refuses_module_load(node, built):
    text = node.server.file.read_text()
    node.server.file.write_text(text.replace("enable-module-command local\n", ""))
    node.server.restart()
    for version in (1, 2):
        assert node.restart(built("keeps", version)).phase is Phase.SUCCEEDED
        assert node.server.loaded() == [("keeps", version)]


@both
@pytest.mark.parametrize("may_discard_data", [False, True])
def test_a_server_that_saves_nothing(node, built, may_discard_data):
    node.server.call("CONFIG", "SET", "save", "")
    run_id = node.server.run_id
    report = node.restart(built("keeps", 1), may_discard_data=may_discard_data)
    if may_discard_data:
        assert report.phase is Phase.SUCCEEDED
    else:
        assert (report.phase, report.reason) == (Phase.FAILED, Reason.WOULD_LOSE_DATA)
    assert (node.server.run_id == run_id) is not may_discard_data


@both
def test_a_version_with_which_it_does_not_start(node, built, repack):
    """No scratch server has tried it. The former version is loaded again, with all keys."""
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    keep(node)
    node.environ["MODFLEET_SCRATCH"] = "off"
    node.restart_agent()
    report = node.restart(repack(built("keeps", 2), version=2, module=built("fails", 2)))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.RESTART_FAILED), report
    assert node.server.answers()
    assert node.server.loaded() == [("keeps", 1)]
    assert kept(node) == 1000
    assert node.runner.node.maintenance.held.read() is None


@both
def test_the_way_back_is_closed(node, built):
    """The new version has saved the keys in an encoding that the former one cannot read. So it stays, and no key is lost."""
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    keep(node)
    report = node.restart(built("keeps", 2000), commands=("keeps.missing",))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PROBE_FAILED), report
    assert "loads version 2000 again" in report.message
    assert node.server.loaded() == [("keeps", 2000)]
    assert node.server.lines() == ["keeps/2000/keeps.so"]
    assert kept(node) == 1000
    assert node.runner.node.maintenance.held.read() is None


@pytest.fixture
def other(short_folder, binary) -> Iterator[Machine]:
    """Another server, which may be the node's master or its replica."""
    machine = Machine("other", short_folder / "o", binary)
    machine.start()
    yield machine
    machine.stop()


def in_step(replica: Machine, master: Machine) -> None:
    replica.follow(master)
    wait_for(lambda: replica.is_in_step(master) and master.info("replication")["connected_slaves"] == 1)


@both
def test_a_master_with_a_replica(node, built, other):
    in_step(other, node.server)
    run_id = node.server.run_id
    report = node.restart(built("keeps", 1))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.RESTART_REQUIRED)
    assert "master with replicas" in report.message
    assert node.server.run_id == run_id


@both
def test_a_replica_whose_file_does_not_know_its_master(node, built, other):
    """After a restart, it would be a second master."""
    in_step(node.server, other)
    run_id = node.server.run_id
    report = node.restart(built("keeps", 1))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.RESTART_REQUIRED)
    assert "would be a master" in report.message
    assert node.server.run_id == run_id

    node.server.call("CONFIG", "REWRITE")
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    assert node.server.run_id != run_id
    assert node.server.is_in_step(other)
    assert other.info("stats")["sync_partial_ok"] == 1


@both
def test_a_replica_with_an_append_only_file(node, built, other):
    """It forgets its place in its master's history. The plan says so: `full_sync_expected`."""
    in_step(node.server, other)
    node.server.append_only(True)
    node.server.call("CONFIG", "REWRITE")
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    wait_for(lambda: node.server.is_in_step(other))
    found = other.info("stats")
    assert (found["sync_full"], found["sync_partial_ok"]) == (2, 0)


@both
def test_the_commands_before_and_after_it(node, built, short_folder):
    script = short_folder / "hook"
    script.write_text(
        '#!/bin/sh\necho "$1 $NODE $MODULE $VERSION $ACTION $ROLLOUT $MODFLEET_BROKER_URL" >> "$0.out"\nexit $2\n'
    )
    script.chmod(0o755)
    node.environ["MODFLEET_PRE_COMMAND"] = json.dumps([str(script), "before", "0"])
    node.environ["MODFLEET_POST_COMMAND"] = json.dumps([str(script), "after", "0"])
    node.restart_agent()
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED

    def said():
        return (short_folder / "hook.out").read_text().splitlines()

    assert said() == ["before n1 keeps 1 install r1 ", "after n1 keeps 1 install r1 "]

    node.environ["MODFLEET_PRE_COMMAND"] = json.dumps([str(script), "before", "3"])
    node.restart_agent()
    run_id = node.server.run_id
    report = node.restart(built("keeps", 2))
    assert (report.phase, report.reason) == (Phase.SKIPPED, Reason.PRE_COMMAND_FAILED)
    assert node.server.run_id == run_id
    assert said()[2:] == ["before n1 keeps 2 install r2 ", "after n1 keeps 2 install r2 "]
    assert node.server.lines() == ["keeps/1/keeps.so"]


@both
def test_a_server_that_gets_a_replica_while_the_command_before_it_runs(node, built, other, short_folder):
    waits = 'import pathlib, sys, time\nroot = pathlib.Path(sys.argv[1])\n(root / "ready").touch()\n'
    waits += 'while not (root / "go").exists(): time.sleep(0.01)'
    node.environ["MODFLEET_PRE_COMMAND"] = json.dumps([sys.executable, "-c", waits, str(short_folder)])
    node.restart_agent()
    run_id = node.server.run_id
    done = []
    thread = threading.Thread(target=lambda: done.append(node.restart(built("keeps", 1))))
    thread.start()
    wait_for((short_folder / "ready").exists)
    in_step(other, node.server)
    (short_folder / "go").touch()
    thread.join()
    assert (done[0].phase, done[0].reason) == (Phase.FAILED, Reason.RESTART_REQUIRED), done[0]
    assert node.server.run_id == run_id
    assert node.server.lines() == []
    assert node.runner.node.maintenance.held.read() is None


@both
def test_a_server_that_gets_a_replica_while_its_agent_is_away(node, built, other):
    """It is not restarted with the former version, although the probe fails."""
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    command = node.command(built("keeps", 2), way=Way.RESTART, commands=("NO.SUCH",))
    node.run_and_die(command, "probing")
    in_step(other, node.server)
    run_id = node.server.run_id
    node.restart_agent()
    report = node.run(command)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PROBE_FAILED), report
    assert "must not be restarted: The server is a master with replicas" in report.message
    assert node.server.run_id == run_id
    assert (node.server.loaded(), node.server.lines()) == ([("keeps", 2)], ["keeps/2/keeps.so"])


@both
@pytest.mark.parametrize("phase", ["restarting", "probing", "settling"])
def test_the_agent_is_killed(node, built, phase):
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    keep(node)
    former = node.server.run_id
    command = node.command(built("keeps", 2), way=Way.RESTART, settle_seconds=1)
    node.run_and_die(command, phase)
    node.restart_agent()
    report = node.run(command)
    assert report.phase is Phase.SUCCEEDED, report
    assert former in node.runner.node.heartbeat(hello=False).facts.ended  # else it counts as a crash
    assert node.server.loaded() == [("keeps", 2)]
    assert kept(node) == 1000
    assert node.runner.node.maintenance.held.read() is None


#: Leaves a file, and ends the server if it runs: its supervisor starts it again.
ENDS = """
import pathlib, socket, sys
pathlib.Path(sys.argv[1]).touch()
server = socket.socket(socket.AF_UNIX)
if not server.connect_ex(sys.argv[2]):
    server.sendall(b"SHUTDOWN\\r\\n")
    server.recv(100)
"""


@both
def test_a_command_that_never_comes_again(node, built, short_folder, monkeypatch):
    """The agent was killed, and the control plane has ended the operation meanwhile."""
    started = short_folder / "started"
    words = [sys.executable, "-c", ENDS, str(started), str(node.server.socket)]
    node.environ |= {"MODFLEET_RESTART": "command", "MODFLEET_RESTART_COMMAND": json.dumps(words)}
    node.restart_agent()
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    node.run_and_die(node.command(built("keeps", 2), way=Way.RESTART), "probing")
    node.restart_agent()

    def held():
        return node.runner.heartbeat(hello=False).facts.maintenance == "restart"

    assert held()
    monkeypatch.setattr(node_maintenance, "LEFT_SECONDS", 0.0)
    node.server.stop()
    started.unlink()
    wait_for(lambda: held() and started.exists())
    tried = set()

    def tries_both() -> bool:
        tried.update(node.server.lines())
        return held() and tried == {"keeps/1/keeps.so", "keeps/2/keeps.so"}

    wait_for(tries_both)
    node.server.start()
    wait_for(lambda: not held())
    assert node.server.loaded() in ([("keeps", 1)], [("keeps", 2)])


@both
@pytest.mark.parametrize("is_stock", [False, True], ids=["module commands", "stock"])
def test_a_removal(node, built, is_stock):
    """Not while a key needs the module. Afterwards, the server starts without it."""
    if is_stock:
        text = node.server.file.read_text()
        node.server.file.write_text(text.replace("enable-module-command local\n", ""))
        node.server.restart()
    one = built("keeps", 1)
    assert node.restart(one).phase is Phase.SUCCEEDED
    node.server.call("KEEPS.SET", "key", 1)
    node.server.call("SET", "other", "text")
    run_id = node.server.run_id
    report = node.remove(one, way=Way.RESTART, even_if_used=True)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.DATA_IN_USE), report
    assert node.server.run_id == run_id
    node.server.call("DEL", "key")
    report = node.remove(one, way=Way.RESTART, even_if_used=True)
    assert report.phase is Phase.SUCCEEDED, report
    assert report.restart.downtime_seconds > 0
    assert node.server.run_id != run_id
    assert (node.server.loaded(), node.server.lines()) == ([], [])
    assert node.server.call("GET", "other") == "text"
    assert not (node.server.modules / "keeps/1").exists()


@both
@pytest.mark.parametrize("kill_at", ["restarting"])
def test_the_agent_is_killed_while_it_removes(node, built, kill_at):
    one = built("keeps", 1)
    assert node.restart(one).phase is Phase.SUCCEEDED
    command = node.command(one, way=Way.RESTART, action=Action.REMOVE, package=None, even_if_used=True)
    node.run_and_die(command, kill_at)
    node.restart_agent()
    report = node.run(command)
    assert report.phase is Phase.SUCCEEDED, report
    assert (node.server.loaded(), node.server.lines()) == ([], [])
    assert node.runner.node.maintenance.held.read() is None


@both
def test_a_removal_after_which_it_does_not_start(node, built, short_folder):
    """A client makes a key of the module's type after the check: the module comes back, with the key."""
    one = built("keeps", 1)
    assert node.restart(one).phase is Phase.SUCCEEDED
    script = short_folder / "hook"  # runs between the check and the restart
    script.write_text(
        f"#!{sys.executable}\nimport redis\nredis.Redis(unix_socket_path={str(node.server.socket)!r}).execute_command('KEEPS.SET', 'key', 7)\n"
    )
    script.chmod(0o755)
    node.environ["MODFLEET_PRE_COMMAND"] = json.dumps([str(script)])
    node.restart_agent()
    report = node.remove(one, way=Way.RESTART, even_if_used=True)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.RESTART_FAILED), report
    assert node.server.loaded() == [("keeps", 1)]
    assert node.server.lines() == ["keeps/1/keeps.so"]
    assert node.server.call("KEEPS.GET", "key") == 7
    assert node.runner.node.maintenance.held.read() is None


@both
def test_a_restart_that_its_operation_has_left(node):
    held = Held(
        rollout="r",
        module_name="keeps",
        version=1,
        generation=1,
        action=Action.INSTALL,
        run_id="",
        way="shutdown",
        unit="",
    )
    node.runner.node.maintenance.held.write(held)

    def maintenance():
        return node.runner.heartbeat(hello=False).facts.maintenance

    with node.runner.node.maintenance._lock:
        assert maintenance() == "recovery"
    wait_for(lambda: maintenance() == "")


@both
def test_a_person_restarts_it(node, built):
    node.environ["MODFLEET_RESTART"] = "external"
    node.restart_agent()
    done = []
    command = node.command(built("keeps", 1), way=Way.RESTART)
    thread = threading.Thread(target=lambda: done.append(node.run(command)))
    thread.start()
    wait_for(lambda: node.runner.node.todo)
    assert "Restart the server" in node.runner.node.todo["keeps"]
    node.server.restart()
    thread.join()
    assert done[0].phase is Phase.SUCCEEDED, done[0]
    assert node.server.loaded() == [("keeps", 1)]


@both
def test_a_person_does_not_restart_it(node, built):
    node.environ["MODFLEET_RESTART"] = "external"
    node.restart_agent()
    run_id = node.server.run_id
    report = node.restart(built("keeps", 1), deadline_seconds=3)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.RESTART_REQUIRED), report
    assert node.server.run_id == run_id
    assert node.server.lines() == []
    assert node.runner.node.todo == {}


# --- With a failover --------------------------------------------------------------------------------------------------


@pytest.fixture
def replica(node: Supervised, other: Machine) -> Machine:
    """The replica of the node's server, which may become the master."""
    node.environ |= {"MODFLEET_PERSISTENCE": "rewrite", "MODFLEET_FAILOVER": "command"}
    node.restart_agent()
    in_step(other, node.server)
    for each in (node.server, other):
        each.call("CONFIG", "REWRITE")
    return other


def has_changed_places(node: Supervised, replica: Machine) -> bool:
    """The replica is the master, writes do not wait, and the node's server is its replica."""
    replica.call("SET", "written", "now")
    wait_for(lambda: node.server.is_in_step(replica))
    return replica.master_port() == 0 and node.server.master_port() == replica.port


@both
def test_a_master_with_a_replica_that_fails_over(node, built, replica):
    node.server.call("SET", "key", "value")
    run_ids = node.server.run_id, replica.run_id
    report = node.restart(built("keeps", 1))
    assert report.phase is Phase.SUCCEEDED, report
    done = report.restart.failover
    assert (done.way, done.former, done.new) == ("command", node.server.address, replica.address)
    assert 0 < done.pause_seconds < 5
    assert (
        f"The master was {done.former} and is {done.new}; writes waited for {done.pause_seconds:.1f} s."
        in report.message
    )
    assert node.server.loaded() == [("keeps", 1)]
    assert node.server.run_id != run_ids[0]
    assert replica.run_id == run_ids[1]
    assert has_changed_places(node, replica)
    assert node.server.call("GET", "key") == "value"
    assert replica.info("stats")["sync_partial_ok"] == 2  # after the failover, and after the restart


@both
@pytest.mark.parametrize("phase", ["restarting", "probing", "settling"])
def test_the_agent_is_killed_around_a_failover(node, built, replica, phase):
    command = node.command(built("keeps", 1), way=Way.RESTART, settle_seconds=1)
    node.run_and_die(command, phase)
    node.restart_agent()
    report = node.run(command)
    assert report.phase is Phase.SUCCEEDED, report
    assert node.server.loaded() == [("keeps", 1)]
    assert has_changed_places(node, replica)
    assert node.runner.node.maintenance.held.read() is None


@both
def test_a_failover_that_is_not_possible(node, built, replica, monkeypatch):
    """The replica hangs as soon as it begins. No server is restarted, the line is as before, and that counts as no failure."""
    run_id, held = node.server.run_id, node.runner.node.maintenance.held
    write = held.write

    def write_and_stop(restart: Held) -> None:
        write(restart)
        if restart.failover:
            replica.process.send_signal(signal.SIGSTOP)

    monkeypatch.setattr(held, "write", write_and_stop)
    report = node.restart(built("keeps", 1), pause_seconds=0.5)
    replica.process.send_signal(signal.SIGCONT)
    assert (report.phase, report.reason) == (Phase.SKIPPED, Reason.FAILOVER_NOT_POSSIBLE), report
    assert (node.server.run_id, node.server.master_port(), node.server.lines()) == (run_id, 0, [])
    assert node.server.call("SET", "key", "value")
    assert held.read() is None
    assert node.runner.heartbeat(hello=False).facts.maintenance == ""


@both
def test_a_failover_that_waits(node, built, replica):
    """Before anything has changed, the operation is returned."""
    replica.process.send_signal(signal.SIGSTOP)
    report = node.restart(built("keeps", 1))
    replica.process.send_signal(signal.SIGCONT)
    assert (report.phase, report.reason) == (Phase.SCHEDULED, Reason.FAILOVER_NOT_POSSIBLE), report
    assert (node.server.master_port(), node.server.lines(), node.runner.node.maintenance.held.read()) == (0, [], None)


@both
def test_a_failed_upgrade_after_a_failover_goes_back(node, built, replica):
    """The server stays a replica, with what it had before."""
    report = node.restart(built("keeps", 1), commands=("keeps.missing",))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PROBE_FAILED), report
    assert (report.restart.failover.former, report.restart.failover.new) == (node.server.address, replica.address)
    assert f"The master was {node.server.address} and is {replica.address}." in report.message
    assert (node.server.loaded(), node.server.lines()) == ([], [])
    assert has_changed_places(node, replica)
    assert node.runner.node.maintenance.held.read() is None
