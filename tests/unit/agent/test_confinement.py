"""What a scratch server may see: the command line of bubblewrap, and which files the agent executes itself."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.agent.inspection.process import Process
from rollout.agent.scratch import confinement
from rollout.agent.scratch.confinement import Confinement, confinement_of, scratch_environment
from rollout.agent.settings import settings_from


@pytest.fixture
def settings(tmp_path):
    for each in ("journal", "state", "modules"):
        (tmp_path / each).mkdir()
    for each in ("state/identity.json", "password"):
        (tmp_path / each).touch()
    return settings_from(
        {
            "MODFLEET_NODE": "n1",
            "MODFLEET_BROKER_URL": "redis://127.0.0.1:1/0",
            "MODFLEET_CONTROL_URL": "http://127.0.0.1:1",
            "MODFLEET_SERVER_URL": "redis://127.0.0.1:2",
            "MODFLEET_MODULES_DIR": str(tmp_path / "modules"),
            "MODFLEET_JOURNAL_DIR": str(tmp_path / "journal"),
            "MODFLEET_IDENTITY_FILE": str(tmp_path / "state/identity.json"),
            "MODFLEET_SERVER_PASSWORD_FILE": str(tmp_path / "password"),
        }
    )


@pytest.fixture
def bubblewrap(tmp_path, monkeypatch):
    """A program that stands for bubblewrap; the test says with which exit code it ends."""
    program = tmp_path / "bin/bwrap"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    def ends(code):
        program.write_text(f"#!/bin/sh\nexit {code}\n")
        program.chmod(0o755)
        confinement._works.cache_clear()
        return program

    monkeypatch.setattr(confinement, "_namespaces_work", lambda _: False)
    monkeypatch.setattr(confinement, "_barrier", frozenset)
    yield ends
    confinement._works.cache_clear()


def test_bubblewrap_hides_the_secrets_and_shows_the_modules(settings, bubblewrap, tmp_path):
    program = bubblewrap(0)
    made = confinement_of(settings, None).showing([tmp_path / "foreign.so"])
    words = made.words(Path("/usr/bin/redis-server"), Path("/tmp/x"), ["/tmp/x/conf"])
    line = " ".join(words)
    assert words[0] == str(program)
    for expected in (
        "--unshare-all --die-with-parent --ro-bind / / ",
        f"--tmpfs {tmp_path}/journal ",
        f"--tmpfs {tmp_path}/state ",
        f"--ro-bind /dev/null {tmp_path}/password ",
        f"--ro-bind-try {tmp_path}/modules {tmp_path}/modules ",
        f"--ro-bind-try {tmp_path}/foreign.so {tmp_path}/foreign.so ",
        "--bind /tmp/x /tmp/x ",
    ):
        assert expected in line
    # What is hidden first may be shown again after it.
    assert line.index("--tmpfs") < line.index("--ro-bind-try") < line.index("--bind /tmp/x")
    assert line.endswith(" -- /usr/bin/redis-server /tmp/x/conf")
    assert made.is_apart
    assert any(each.startswith("isolation: no filter") for each in made.differences)


@pytest.mark.parametrize("isolated", [True, False])
def test_the_filter_is_used_with_namespaces_and_with_bubblewrap(settings, bubblewrap, monkeypatch, isolated):
    bubblewrap(0)
    monkeypatch.setattr(confinement, "_namespaces_work", lambda _: isolated)
    monkeypatch.setattr(confinement, "_barrier", lambda: confinement.BARRIER)
    made = confinement_of(settings, None)
    barrier = made.barrier(Path("/x"), "/tmp/x", "/tmp/x/d")
    assert barrier is not None
    assert (barrier["files"], barrier["calls"], barrier["namespaces"]) == (False, True, True)
    line = " ".join(made.words(Path("/usr/bin/redis-server"), Path("/tmp/x"), []))
    assert ("--seccomp 3 -- /usr" in line) == (not isolated)
    assert not any(each.startswith("isolation:") for each in made.differences)


def test_without_a_working_bubblewrap_the_program_runs_as_it_is(settings, bubblewrap):
    bubblewrap(1)
    made = confinement_of(settings, None)
    assert made.words(Path("/x"), Path("/tmp/x"), ["conf"]) == ["/x", "conf"]
    assert not made.is_apart


def test_root_becomes_the_user_of_the_server(settings, monkeypatch):
    process = Process(pid=1, uid=100, gid=101, groups=(102,), unit="redis-server.service")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    made = confinement_of(settings, process)
    assert made.user == (100, 101, (102,))
    assert "sandbox: SystemCallFilter of redis-server.service" in made.differences
    monkeypatch.setattr(os, "geteuid", lambda: 500)
    made = confinement_of(settings, process)
    assert made.user is None
    assert "user: the agent's, not uid 100" in made.differences


def test_the_limits():
    limits = Confinement(megabytes=200).resources(10)
    assert limits["RLIMIT_DATA"] == 200_000_000
    assert (limits["RLIMIT_CORE"], limits["RLIMIT_CPU"]) == (0, 11)
    assert "RLIMIT_MEMLOCK" not in limits


def test_the_limits_of_the_unit():
    unit = {"LimitNOFILE": "1024:65535", "LimitMEMLOCK": "64K", "LimitDATA": "1M", "LimitSTACK": "infinity"}
    limits = Confinement(settings=unit).resources(10)
    assert (limits["RLIMIT_NOFILE"], limits["RLIMIT_MEMLOCK"], limits["RLIMIT_DATA"]) == (65535, 65536, 1048576)
    assert "RLIMIT_STACK" not in limits


def test_the_directory_that_the_server_sees_elsewhere():
    unit = {"NoExecPaths": "/", "ExecPaths": "/srv/modules"}
    made = Confinement(settings=unit, modules=(Path("/mnt/a"), Path("/srv/modules")))
    assert not made.forbids("/mnt/a/greet/1/greet.so")
    assert made.forbids("/mnt/b/greet.so")
    assert Confinement(settings=unit).forbids("/mnt/a/greet.so")


def test_the_difference_without_any_isolation(settings, bubblewrap):
    bubblewrap(1)
    made = confinement_of(settings, Process(pid=1, uid=os.geteuid(), unit="redis-server.service"))
    assert any(each.startswith("isolation: none") for each in made.differences)
    assert "sandbox: NoExecPaths of redis-server.service" in made.differences


@pytest.mark.parametrize(
    ("works", "expected"),
    [
        ((), "isolation: none; it sees the files, the processes and the network that its user sees"),
        (("files",), "network: the host's; it can talk to the live server"),
        (("files",), "processes: it can end those of its user"),
        (("calls",), "files: it can read and change what its user can, such as the agent's secrets"),
        (("files", "calls"), "network: none"),
        (("files", "calls"), "processes: it can send signals only to itself"),
    ],
)
def test_what_the_barrier_does_not_keep_is_said(settings, bubblewrap, monkeypatch, works, expected):
    bubblewrap(1)
    monkeypatch.setattr(confinement, "_barrier", lambda: frozenset(works))
    made = confinement_of(settings, None)
    assert expected in made.differences
    assert made.is_apart == (set(works) == confinement.BARRIER)
    assert (made.barrier(Path("/x"), "/tmp/x", "/tmp/x/d") is not None) == bool(works)


def test_the_environment():
    environ = {"PATH": "/bin", "LANG": "C", "MODFLEET_BROKER_URL": "redis://:secret@b", "LD_PRELOAD": "/x.so"}
    assert scratch_environment(environ) == {"PATH": "/bin", "LANG": "C"}


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_program_that_others_can_write_is_trusted_only_if_it_is_kept_apart(tmp_path, mode):
    program = tmp_path / "server"
    program.touch()
    program.chmod(0o755)
    alone = Confinement()
    assert alone.trusts(program)
    program.chmod(mode)
    assert not alone.trusts(program)
    assert replace(alone, bubblewrap="/usr/bin/bwrap").trusts(program)
    assert replace(alone, is_asked_for=True).trusts(program)
