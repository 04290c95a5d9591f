"""Restarts while something else goes wrong: what an agent that was killed has left, and a server that crashes meanwhile."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace

import pytest
import redis

from rollout.agent.node import maintenance as node_maintenance
from rollout.agent.restart.held import Held
from rollout.messages import Action, Phase, Reason, ServerProblem, ServerState, Way, to_json
from tests import shards
from tests.integration.agent.conftest import ROOT
from tests.integration.agent.test_restart import Supervised, both, in_step, keep, kept, node, other
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

__all__ = ["node", "other"]

#: Adds its first argument's file, and does nothing else.
TOUCHES = "import pathlib, sys\npathlib.Path(sys.argv[1]).touch()"


def held_by(node: Supervised, **changes) -> Held:
    held = Held(
        rollout="r1",
        module_name="keeps",
        version=1,
        generation=1,
        action=Action.INSTALL,
        run_id=node.server.run_id,
        way="command" if node.environ["MODFLEET_RESTART"] == "command" else "shutdown",
        unit="",
        is_stopped=True,
    )
    return replace(held, **changes)


@pytest.fixture
def started(node, short_folder):
    """The file that the command of the settings leaves when it starts the server."""
    file = short_folder / "started"
    words = [sys.executable, "-c", TOUCHES, str(file)]
    node.environ |= {"MODFLEET_RESTART": "command", "MODFLEET_RESTART_COMMAND": json.dumps(words)}
    node.restart_agent()
    return file


def begin(node, built, **changes):
    """Begin an operation as an agent that is killed directly after it has ended the server."""
    command = node.command(built("keeps", 1), way=Way.RESTART, **changes)
    node.run_and_die(command, "restarting")
    node.runner.node.maintenance.held.write(held_by(node, generation=command.generation))
    return command


@pytest.mark.parametrize("problem", [ServerProblem.SERVER_LOADING, ServerProblem.SERVER_SILENT])
def test_a_server_that_reads_its_data_is_not_restarted(node, built, started, monkeypatch, problem):
    """The command restarts it, as `docker restart` does: it would read its data from the beginning."""
    begin(node, built)
    monkeypatch.setattr(node_maintenance, "LEFT_SECONDS", 0.0)
    look, begun = node.runner.node.maintenance.look, list[object]()
    monkeypatch.setattr(node.runner.node.maintenance, "_begin", begun.append)
    look(ServerState(problem=problem))
    look(ServerState(problem=problem))
    assert not begun
    look(ServerState(problem=ServerProblem.SERVER_UNREACHABLE))
    assert begun


def test_a_server_that_was_ended_for_an_older_operation_is_started(node, built, started, monkeypatch):
    """A newer operation finds no server. It must not hide that the older one has ended it."""
    begin(node, built)
    node.server.stop()
    report = node.restart(built("keeps", 2))
    assert report.phase is not Phase.SUCCEEDED
    monkeypatch.setattr(node_maintenance, "LEFT_SECONDS", 0.0)
    wait_for(lambda: node.runner.heartbeat(hello=False).facts.maintenance and started.exists())
    node.server.start()
    wait_for(lambda: not node.runner.heartbeat(hello=False).facts.maintenance)


@both
def test_a_server_that_crashes_after_the_change_and_cannot_go_back(node, built, monkeypatch):
    """The new version has saved keys that the former one cannot read, and the server is away when the agent goes back."""
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    keep(node)
    monkeypatch.setattr(shards, "RESTART_SECONDS", 3.0)

    def crash():
        node.server.call("SAVE")
        node.server.process.send_signal(signal.SIGSEGV)
        node.server.process.wait()

    command = node.command(built("keeps", 2000), way=Way.RESTART)
    report = node.run_and(command, Phase.PROBING, crash)
    assert report.phase is Phase.FAILED, report
    monkeypatch.setattr(shards, "RESTART_SECONDS", 0.1)
    wait_for(node.server.answers)
    assert node.server.loaded() == [("keeps", 2000)]
    assert kept(node) == 1000


@both
def test_a_save_that_takes_longer_than_the_operation_may(node, built):
    """The clock does not run while the server is ended: otherwise it would be restarted twice, for nothing."""
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    keep(node)
    node.server.call("CONFIG", "SET", "rdb-key-save-delay", 6000)  # us for each key
    report = node.restart(built("keeps", 2), deadline_seconds=5)
    assert report.phase is Phase.SUCCEEDED, report
    assert report.restart.downtime_seconds > 5
    assert kept(node) == 1000


def test_an_operation_waits_for_the_restart_of_another_one(node, built):
    """Two modules: what the first one has to finish is not forgotten."""
    first = begin(node, built)
    held = node.runner.node.maintenance.held.read()
    report = node.restart(built("writes", 1))
    assert (report.phase, report.reason) == (Phase.SCHEDULED, Reason.SERVER_NOT_READY), report
    assert node.runner.node.maintenance.held.read() == held
    assert node.run(first).phase is Phase.SUCCEEDED
    assert node.restart(built("writes", 1)).phase is Phase.SUCCEEDED


def test_a_second_attempt_is_checked_as_the_first_one(node, built):
    """The file of the first one, which has failed while the server was away, stands for none of its checks."""
    command = node.command(built("keeps", 1), way=Way.RESTART, attempt=2)
    node.runner.node.maintenance.held.write(held_by(node, generation=command.generation))
    report = node.run(command)
    assert (report.phase, report.reason) == (Phase.SCHEDULED, Reason.SERVER_NOT_READY), report
    wait_for(lambda: not node.runner.heartbeat(hello=False).facts.maintenance)
    assert node.run(replace(command, release=1)).phase is Phase.SUCCEEDED


def test_a_killed_agent_has_ended_the_server(node, built):
    """Its next heartbeat says so: otherwise that would count as a crash."""
    begin(node, built)
    run_id = node.runner.node.maintenance.held.read().run_id
    node.server.restart()
    node.restart_agent()
    assert run_id in node.runner.heartbeat(hello=False).facts.ended
    node.runner.node.maintenance.end()
    assert run_id in node.runner.heartbeat(hello=False).facts.ended


#: An agent that kills itself directly before the call of a function number n, as `module:name:n`.
DIES_AT = """
import importlib, json, os, signal, sys
from rollout.agent.operations.runner import Runner
from rollout.agent.settings import settings_from
from rollout.messages import Command, from_json

name, owner, attribute, number = sys.argv[1].split(":")
place = importlib.import_module(name)
if owner:
    place = getattr(place, owner)
former, calls = getattr(place, attribute), []

def called(*args, **words):
    calls.append(args)
    if len(calls) == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return former(*args, **words)

setattr(place, attribute, called)
runner = Runner(settings_from(os.environ))
runner.recover()
print(runner.execute(from_json(Command, json.load(sys.stdin)), report=lambda _: None))
"""

RESTART = "rollout.agent.operations.restart"
PLACES = [
    f"{RESTART}::_run_pre_command:1",
    f"{RESTART}::_switch:1",
    "rollout.agent.restart.held:HeldFile:write:2",
    f"{RESTART}::end:1",
    f"{RESTART}::_wait_for_start:1",
    "rollout.agent.node.maintenance:Maintenance:end:1",
]
BACK = [
    "rollout.agent.operations.undo::take_back:1",
    f"{RESTART}::_switch:2",
    f"{RESTART}::_start_again:1",
    f"{RESTART}::end:2",
    f"{RESTART}::_wait_for_start:2",
    "rollout.agent.node.maintenance:Maintenance:end:1",
]


def run_and_die_at(node, command, place):
    words = [sys.executable, "-c", DIES_AT, place]
    done = subprocess.run(
        words,
        input=json.dumps(to_json(command)),
        text=True,
        env=os.environ | node.environ,
        cwd=ROOT,
        check=False,
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done


@pytest.mark.parametrize("place", PLACES)
def test_the_agent_is_killed_at_each_step(node, built, place):
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    keep(node)
    command = node.command(built("keeps", 2), way=Way.RESTART)
    run_and_die_at(node, command, place)
    node.restart_agent()
    report = node.run(command)
    assert report.phase is Phase.SUCCEEDED, report
    assert (node.server.loaded(), node.server.lines()) == ([("keeps", 2)], ["keeps/2/keeps.so"])
    assert kept(node) == 1000
    assert node.runner.node.maintenance.held.read() is None


@pytest.mark.parametrize("place", BACK)
def test_the_agent_is_killed_while_it_goes_back(node, built, place):
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    keep(node)
    command = node.command(built("keeps", 2), way=Way.RESTART, commands=("keeps.missing",))
    run_and_die_at(node, command, place)
    node.restart_agent()
    report = node.run(command)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.PROBE_FAILED), report
    assert (node.server.loaded(), node.server.lines()) == ([("keeps", 1)], ["keeps/1/keeps.so"])
    assert kept(node) == 1000
    assert node.runner.node.maintenance.held.read() is None


@pytest.mark.parametrize("place", [each for each in PLACES if "pre_command" not in each])
def test_the_agent_is_killed_at_each_step_of_a_removal(node, built, place):
    one = built("keeps", 1)
    assert node.restart(one).phase is Phase.SUCCEEDED
    command = node.command(one, way=Way.RESTART, action=Action.REMOVE, package=None, even_if_used=True)
    run_and_die_at(node, command, place)
    node.restart_agent()
    report = node.run(command)
    assert report.phase is Phase.SUCCEEDED, report
    assert (node.server.loaded(), node.server.lines()) == ([], [])
    assert not (node.server.modules / "keeps/1").exists()
    assert node.runner.node.maintenance.held.read() is None


@pytest.mark.parametrize("place", [*PLACES, *BACK[:-1]])
def test_the_agent_is_killed_and_the_command_never_comes_again(node, built, place, monkeypatch):
    """What the server runs is what it starts with, and nothing is left."""
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    keep(node)
    commands = ("keeps.missing",) if place in BACK[:-1] else ()
    command = node.command(built("keeps", 2), way=Way.RESTART, commands=commands)
    run_and_die_at(node, command, place)
    node.restart_agent()
    monkeypatch.setattr(node_maintenance, "LEFT_SECONDS", 0.0)
    wait_for(lambda: not node.runner.heartbeat(hello=False).facts.maintenance)
    [(name, version)] = node.server.loaded()
    assert node.server.lines() == [f"{name}/{version}/keeps.so"]


@pytest.fixture
def master(node, other):
    """The node's server is its replica, and has version 1."""
    in_step(node.server, other)
    node.server.call("CONFIG", "REWRITE")
    return other


def test_a_replica_that_crashes_goes_back(node, built, master):
    """Directly after the crash, its link to the master is down."""
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED

    def crash():
        master.process.send_signal(signal.SIGSTOP)
        node.server.die(signal.SIGSEGV)
        threading.Timer(2.0, master.process.send_signal, (signal.SIGCONT,)).start()

    report = node.run_and(node.command(built("keeps", 2), way=Way.RESTART), Phase.PROBING, crash)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.SERVER_CRASHED), report
    assert (node.server.loaded(), node.server.lines()) == ([("keeps", 1)], ["keeps/1/keeps.so"])
    wait_for(lambda: node.server.is_in_step(master))


def test_a_replica_that_crashes_while_it_reads_its_data_goes_back(node, built, master):
    """Again and again, with the new version only: at any moment it is down, or reads."""
    assert node.restart(built("keeps", 1)).phase is Phase.SUCCEEDED
    master.call_each(("SET", f"key{key}", "x" * 100) for key in range(300))
    wait_for(lambda: node.server.is_in_step(master))
    text = node.server.file.read_text()
    node.server.file.write_text(f"{text}key-load-delay 10000\nloading-process-events-interval-bytes 1024\n")
    is_over = threading.Event()

    def kill() -> None:
        while not is_over.wait(0.5):
            with suppress(redis.RedisError):
                if node.server.info("persistence")["loading"] and node.server.lines() == ["keeps/2/keeps.so"]:
                    node.server.process.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        report = node.restart(built("keeps", 2))
    finally:
        is_over.set()
        thread.join()
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.RESTART_FAILED), report
    wait_for(node.server.answers)
    assert (node.server.loaded(), node.server.lines()) == ([("keeps", 1)], ["keeps/1/keeps.so"])


def test_the_command_after_a_restart_hangs(node, built, short_folder):
    """One thread waits for it, not one for each heartbeat."""
    waits = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)"
    node.environ["MODFLEET_POST_COMMAND"] = json.dumps([sys.executable, "-c", waits, str(short_folder / "go")])
    node.restart_agent()
    node.runner.node.maintenance.held.write(held_by(node))
    for _ in range(3):
        assert node.runner.heartbeat(hello=False).facts.maintenance == "recovery"
    assert [each.name for each in threading.enumerate()].count("left-restart") == 1
    (short_folder / "go").touch()
    wait_for(lambda: not node.runner.heartbeat(hello=False).facts.maintenance)


def test_a_damaged_file(node, built):
    """It is not known what it would say: the node stays in maintenance, and nothing restarts its server."""
    (node.runner.node.settings.journal_dir / ".restart.json").write_text("{")
    run_id = node.server.run_id
    report = node.restart(built("keeps", 1))
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.IO_ERROR), report
    assert "docs/howto/restarts.md" in report.message
    assert node.server.run_id == run_id
    assert node.runner.heartbeat(hello=False).facts.maintenance == "recovery"
