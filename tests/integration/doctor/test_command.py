"""`modfleet agent doctor`: what it prints, its exit codes, and the users that it prints for the server."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from rollout.agent.doctor import CHECKS
from rollout.agent.doctor.acl import Extra, Level, needed
from tests.fleet import ROOT
from tests.integration.agent.conftest import SERVERS


def doctor(*words, environ=None):
    return subprocess.run(
        [sys.executable, "-m", "modfleet", "agent", "doctor", *words],
        cwd=ROOT,
        env=os.environ | (environ or {}),
        capture_output=True,
        text=True,
    )


@pytest.fixture
def healthy(site):
    """A host whose real files and process are healthy, also outside of a service."""
    site.server.start()
    site.broker.start()
    return site


def test_nothing_fails(healthy):
    shown = doctor(environ=healthy.environ)
    assert (shown.returncode, shown.stderr) == (0, ""), shown.stdout
    lines = [line for line in shown.stdout.splitlines() if not line.startswith(" ")]
    assert [line.split()[1].rstrip(":") for line in lines] == [each.name for each in CHECKS]
    assert {line.split()[0] for line in lines} <= {"pass", "warn", "unknown"}


def test_a_failed_check_has_its_fix_in_the_next_line(healthy):
    (healthy.folder / "password").write_text("wrong")
    shown = doctor(environ=healthy.environ)
    assert (shown.returncode, shown.stderr) == (1, "")
    assert (
        f"fail     server_socket: The server at {healthy.environ['MODFLEET_SERVER_URL']} refuses the user agent or its "
        f"password.\n         Fix: `modfleet agent install --name {healthy.environ['MODFLEET_NODE']}` prints the user that the "
        "server needs. Otherwise, check MODFLEET_SERVER_USER and MODFLEET_SERVER_PASSWORD_FILE against the server's ACL.\n"
    ) in shown.stdout


def test_settings_come_from_a_file(healthy, tmp_path):
    lines = [f"{name}='{value}'" for name, value in healthy.environ.items()]
    (tmp_path / "env").write_text("# The agent\n" + "\n".join(lines) + "\n")
    assert doctor("--env-file", tmp_path / "env", environ={"MODFLEET_NODE": "n2"}).returncode == 0
    shown = doctor("--env-file", "/nonexistent")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr == "/nonexistent cannot be read: No such file or directory.\n"


def test_json(healthy):
    shown = doctor("--json", environ=healthy.environ)
    assert (shown.returncode, shown.stderr) == (0, "")
    findings = json.loads(shown.stdout)
    assert [each["check"] for each in findings] == [each.name for each in CHECKS]
    assert {*findings[0]} == {"check", "status", "message", "fix"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"MODFLEET_NODE": ""}, "MODFLEET_NODE is not set."),
        ({"MODFLEET_SERVER_URL": "/run/s"}, "MODFLEET_SERVER_URL is wrong: "),
        ({"MODFLEET_SERVERURL": "x"}, "MODFLEET_SERVERURL is no setting: did you mean MODFLEET_SERVER_URL?"),
    ],
)
def test_wrong_settings_are_one_sentence(site, changes, sentence):
    shown = doctor(environ=site.environ | changes)
    assert (shown.returncode, shown.stdout, len(shown.stderr.splitlines())) == (2, "", 1)
    assert shown.stderr.startswith(sentence)


def test_it_changes_nothing_on_the_host(healthy):
    def state():
        paths = sorted(healthy.folder.rglob("*"))
        times = [path.stat().st_mtime_ns for path in paths if path.is_file() and path.name != "log"]
        files = [path.read_bytes() for path in paths if path.is_file() and path.name != "log"]
        with healthy.server.client() as client:
            return paths, times, files, client.config_get("*"), client.acl_list(), client.execute_command("MODULE LIST")

    before = state()
    assert doctor(environ=healthy.environ).returncode == 0
    assert state() == before


def test_a_transport_that_does_not_exist(site):
    site.environ["MODFLEET_BROKER_URL"] = "foo://127.0.0.1"
    shown = doctor(environ=site.environ)
    assert (shown.returncode, shown.stderr) == (1, "")
    assert "The broker at 127.0.0.1:6379 cannot be reached: No such transport: foo." in shown.stdout


# --- Users of the server


@pytest.mark.parametrize("binary", SERVERS, ids=lambda binary: Path(binary).name)
@pytest.mark.parametrize("level", Level)
def test_a_server_starts_with_each_printed_line(site, binary, level, tmp_path):
    (tmp_path / "password").write_text("p1\n")
    # Redis does not know the command of `migrations`.
    extras = [each for each in Extra if binary == SERVERS[0] or each is not Extra.MIGRATIONS]
    words = ["--print-acl", level, "--user", "a", "--password-file", tmp_path / "password", "--also", *extras]
    shown = doctor(*words)
    assert (shown.returncode, shown.stderr) == (0, "")
    site.server.acl = [shown.stdout.strip()]
    site.server.start()
    with site.server.client() as client:
        assert "a" in client.acl_users()


@pytest.mark.parametrize("binary", SERVERS, ids=lambda binary: Path(binary).name)
@pytest.mark.parametrize(
    ("level", "refused"),
    [
        (
            Level.OBSERVE,
            ["MODULE LOAD /x", "MODULE UNLOAD x", "SHUTDOWN", "GET x", "ACL LIST", "CONFIG GET x", "MULTI"],
        ),
        (
            Level.LOAD,
            ["SHUTDOWN", "REPLICAOF NO ONE", "GET x", "ACL SETUSER x on", "CONFIG GET x", "SCAN 0", "CONFIG SET x y"],
        ),
        (
            Level.RESTART,
            ["GET x", "ACL SETUSER x on", "CONFIG RESETSTAT", "FLUSHALL", "SET x y", "DEBUG SLEEP 0"],
        ),
    ],
)
def test_each_level_has_only_its_rights(site, binary, level, refused):
    shown = doctor("--print-acl", level, "--user", "a")
    password = shown.stderr.strip().removeprefix("user a, password ")
    assert hashlib.sha256(password.encode()).hexdigest() in shown.stdout
    assert password not in shown.stdout
    site.server.acl = [shown.stdout.strip()]
    site.server.start()
    with site.server.client() as client:
        for words in refused:
            assert client.acl_dryrun("a", *words.split()) not in {b"OK", "OK", True}, words
        for name in needed(level):
            (about,) = client.execute_command("COMMAND", "INFO", name).values()
            command = name.split("|")
            count = abs(about["arity"]) - len(command)
            assert client.acl_dryrun("a", *command, *["x"] * count) in {b"OK", "OK", True}, name
    with redis.Redis(unix_socket_path=str(site.server.socket), username="a", password=password) as user:
        assert user.ping()


def test_a_name_with_a_space_is_refused():
    shown = doctor("--print-acl", "load", "--user", "a b")
    assert (shown.returncode, shown.stderr) == (2, "The name of a user has no spaces.\n")
