"""What the agent finds out before it restarts a server, and the commands of its settings."""

import json
import math
import os
import sys
from pathlib import Path

import pytest

from rollout.agent.inspection.start_lines import StartLines
from rollout.agent.inspection.systemd import time_limit
from rollout.agent.restart.hooks import CommandFailedError, run_command
from rollout.agent.restart.risks import why_not_end
from rollout.agent.restart.saving import Resources, resources, why_not_save
from rollout.agent.restart.supervision import supervision
from rollout.agent.settings import SettingsError, settings_from
from rollout.messages import Reason
from tests.waiting import wait_for

ENVIRON = {
    "MODFLEET_NODE": "n1",
    "MODFLEET_BROKER_URL": "redis://127.0.0.1:1/0",
    "MODFLEET_CONTROL_URL": "http://127.0.0.1",
    "MODFLEET_SERVER_URL": "redis://127.0.0.1:2",
    "MODFLEET_MODULES_DIR": "/m",
    "MODFLEET_JOURNAL_DIR": "/j",
    "MODFLEET_ACCESS": "restart",
}


def settings(**more):
    return settings_from(ENVIRON | {f"MODFLEET_{name.upper()}": value for name, value in more.items()})


# --- What starts it again ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "unit", "values", "problem"),
    [
        ({}, "redis.service", {"Restart": "always"}, ""),
        ({}, "redis.service", {"Restart": "on-success"}, ""),
        ({}, "redis.service", {"Restart": "on-failure"}, "Restart=on-failure"),
        ({}, "redis.service", {}, "Restart=no"),
        ({}, "", None, "not known"),
        ({"restart": "shutdown"}, "", None, ""),
        ({"restart": "shutdown"}, "redis.service", {}, "Restart=no"),
        ({"restart": "systemd"}, "redis.service", {}, ""),
        ({"restart": "systemd"}, "", None, "No systemd service"),
        ({"restart": "command", "restart_command": '["true"]'}, "", None, ""),
        ({"restart": "external"}, "", None, ""),
        ({"restart": "external", "access": "load"}, "", None, ""),
        ({"restart": "none"}, "redis.service", {"Restart": "always"}, "never restarted"),
        ({"access": "load"}, "redis.service", {"Restart": "always"}, "may not restart"),
        (
            {"restart": "command", "restart_command": '["/no/such", "a"]'},
            "",
            None,
            "RESTART_COMMAND: /no/such is no program",
        ),
        ({"restart": "external", "pre_command": '["/etc/passwd"]'}, "", None, "PRE_COMMAND: /etc/passwd is no program"),
        ({"restart": "shutdown", "post_command": '["/no/such"]'}, "", None, "POST_COMMAND: /no/such is no program"),
        ({"restart": "shutdown", "restart_command": '["/no/such"]', "pre_command": '["true"]'}, "", None, ""),
    ],
)
def test_what_starts_it_again(given, unit, values, problem):
    found = supervision(settings(**given), unit, values)
    assert problem in found.problem
    assert bool(found.problem) is bool(problem)


@pytest.mark.parametrize(
    ("values", "gigabytes", "problem"),
    [
        ({}, 1.7, ""),
        ({}, 2, "TimeoutStartSec=90"),
        ({"TimeoutStartSec": "infinity"}, 2, "TimeoutStopSec=90"),
        ({"TimeoutStartSec": "infinity", "TimeoutStopSec": "infinity"}, 2000, ""),
        ({"TimeoutStartSec": "10min", "TimeoutStopSec": "5min"}, 6, ""),
        ({"TimeoutStartSec": "10min", "TimeoutStopSec": "5min"}, 7, "TimeoutStopSec=300"),
    ],
)
def test_a_unit_that_would_kill_it(values, gigabytes, problem):
    found = supervision(settings(), "redis.service", {"Restart": "always"} | values, used_bytes=int(gigabytes * 1e9))
    assert problem in found.problem
    assert bool(found.problem) is bool(problem)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", 90),
        ("90", 90),
        ("1min 30s", 90),
        ("2h", 7200),
        ("infinity", math.inf),
        ("0", math.inf),
        ("soon", 90),
        ("500ms", 0.5),
    ],
)
def test_limits_of_a_unit(value, seconds):
    assert time_limit({"TimeoutStartSec": value}, "TimeoutStartSec") == seconds


# --- Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["docker restart redis", "[]", '[""]', "[1]", '"a"', "{}"])
def test_a_command_is_a_list(text):
    with pytest.raises(SettingsError, match="MODFLEET_PRE_COMMAND is wrong"):
        settings(pre_command=text)


def test_a_way_without_its_command():
    with pytest.raises(SettingsError, match="MODFLEET_RESTART_COMMAND"):
        settings(restart="command")


# --- Risks ------------------------------------------------------------------------------------------------------------

MASTER = {"role": "master", "aof_enabled": "1", "connected_slaves": "0"}
REPLICA = {"role": "slave", "master_host": "10.0.0.1", "master_port": "6379"}
FOLLOWS = StartLines(replicaof=("10.0.0.1", "6379"))
LEADS = StartLines(replicaof=())


@pytest.mark.parametrize(
    ("info", "save", "start", "reason"),
    [
        (MASTER, "", LEADS, None),
        (MASTER | {"aof_enabled": "0"}, "3600 1", LEADS, None),
        (MASTER | {"aof_enabled": "0"}, "", LEADS, Reason.WOULD_LOSE_DATA),
        (MASTER | {"aof_enabled": "0"}, None, LEADS, Reason.WOULD_LOSE_DATA),
        (
            MASTER | {"connected_slaves": "1", "slave0": "ip=10.0.0.2,port=6379,state=online"},
            "",
            LEADS,
            Reason.RESTART_REQUIRED,
        ),
        (MASTER | {"connected_slaves": "1", "slave0": "ip=10.0.0.2,port=0,state=online"}, "", LEADS, None),  # a backup
        (MASTER, "", FOLLOWS, Reason.RESTART_REQUIRED),
        (MASTER, "", StartLines(), Reason.RESTART_REQUIRED),
        (REPLICA, "", FOLLOWS, None),
        (REPLICA, None, FOLLOWS, None),
        (REPLICA, "", LEADS, Reason.RESTART_REQUIRED),
        (REPLICA, "", StartLines(replicaof=("10.0.0.9", "6379")), Reason.RESTART_REQUIRED),
        (REPLICA | {"cluster_enabled": "1"}, "", LEADS, None),  # nodes.conf has the role
        ({}, "", LEADS, Reason.RESTART_REQUIRED),
    ],
)
def test_what_an_end_would_do(info, save, start, reason):
    found = why_not_end(info, save, start, may_discard_data=False)
    assert (found[0] if found else None) == reason


# --- Saves ------------------------------------------------------------------------------------------------------------

HEALTHY = {
    "rdb_last_bgsave_status": "ok",
    "aof_last_write_status": "ok",
    "used_memory": "1000000000",
    "rdb_last_cow_size": "500000000",
}
ENOUGH = Resources(disk=10**10, memory=10**10, overcommit=1, last_save=10**9)


@pytest.mark.parametrize(
    ("info", "left", "words"),
    [
        ({}, {}, ""),
        ({"rdb_bgsave_in_progress": "1"}, {}, "BGSAVE is in progress"),
        ({"aof_rewrite_in_progress": "1"}, {}, "BGREWRITEAOF is in progress"),
        ({"aof_rewrite_scheduled": "1"}, {}, "BGREWRITEAOF is in progress"),
        ({"module_fork_in_progress": "1"}, {}, "of a module is in progress"),
        ({"rdb_last_bgsave_status": "err"}, {}, "last BGSAVE"),
        ({"aof_last_write_status": "err"}, {}, "append-only file"),
        ({}, {"disk": 1_199_000_000}, "directory has"),
        ({}, {"disk": 1_200_000_000}, ""),
        ({}, {"disk": 1_199_000_000, "last_save": None}, "directory has"),
        ({}, {"disk": None}, "how much disk"),
        ({}, {"memory": 999_000_000}, "of memory left"),
        ({}, {"memory": 1_000_000_000}, ""),
        ({}, {"memory": None}, "how much memory"),
        ({}, {"overcommit": 0}, ""),
        ({"used_memory": "20000000000"}, {"overcommit": 0}, "overcommit_memory is 0"),
        ({}, {"overcommit": 2}, "overcommit_memory is 2"),
        ({}, {"overcommit": None}, "overcommit_memory is not known"),
    ],
)
def test_when_a_save_is_unsafe(info, left, words):
    names = ("disk", "memory", "overcommit", "last_save")
    given = Resources(**{name: left.get(name, getattr(ENOUGH, name)) for name in names})
    found = why_not_save(HEALTHY | info, given)
    assert words in found
    assert bool(found) is bool(words)


def test_what_is_left(tmp_path):
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 100 kB\nMemAvailable:   80 kB\n")
    (tmp_path / "proc/sys/vm").mkdir(parents=True)
    (tmp_path / "proc/sys/vm/overcommit_memory").write_text("1\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dump.rdb").write_bytes(b"x" * 10)
    found = resources(7, "/data", "dump.rdb", tmp_path)
    assert (found.memory, found.overcommit, found.last_save) == (80 * 1024, 1, 10)
    assert found.disk == os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize

    (tmp_path / "proc/7/cgroup").write_text("0::/pod/redis\n")
    group = tmp_path / "sys/fs/cgroup/pod/redis"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1000\n")
    (group.parent / "memory.max").write_text("5000\n")
    (group.parent / "memory.current").write_text("2000\n")
    assert resources(7, "/data", "dump.rdb", tmp_path).memory == 3000

    (tmp_path / "proc/7/cgroup").write_text("4:memory:/old\n3:cpu:/other\n")
    old = tmp_path / "sys/fs/cgroup/memory/old"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("700\n")
    (old / "memory.usage_in_bytes").write_text("300\n")
    assert resources(7, "/data", "dump.rdb", tmp_path).memory == 400
    assert resources(7, "/none", "dump.rdb", tmp_path).disk is None


def test_what_is_left_of_a_server_of_another_user(tmp_path):
    """The agent may not look at its view of the files, so it takes its own."""
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/root").symlink_to("x" * 300)  # stat fails, as it does without the right
    (tmp_path / "data").mkdir()
    assert resources(7, "/data", "dump.rdb", tmp_path).disk


# --- Commands ---------------------------------------------------------------------------------------------------------


def test_a_command_gets_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("MODFLEET_BROKER_URL", "redis://:secret@host")
    program = f"import json, os; json.dump(dict(os.environ), open({str(tmp_path / 'out')!r}, 'w'))"
    run_command([sys.executable, "-c", program], {"NODE": "n1"})
    given = json.loads((tmp_path / "out").read_text())
    assert given["NODE"] == "n1"
    assert given["PATH"] == os.environ["PATH"]
    assert not [name for name in given if name.startswith("MODFLEET")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["/nowhere/program"], "cannot be started: No such file"),
        (["sh", "-c", "echo one; echo two >&2; exit 3"], "exit status 3: one two."),
        (["false"], "exit status 1: no output."),
    ],
)
def test_a_command_that_fails(words, message):
    with pytest.raises(CommandFailedError, match=message):
        run_command(words, {})


def test_a_command_that_takes_too_long_is_ended_with_all_its_processes(tmp_path):
    script = f"sleep 1000 & echo $! > {tmp_path}/pid; wait"
    with pytest.raises(CommandFailedError, match="took longer"):
        run_command(["sh", "-c", script], {}, seconds=1)
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not Path(f"/proc/{pid}").exists())


def test_what_a_command_leaves_in_the_background_stays(tmp_path):
    """It may be the server."""
    run_command(["sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/pid"], {})
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, 9)  # raises if it is not there
