"""`modfleet agent` is this node's worker."""

import os
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from modfleet.cli import app
from tests.fleet import ROOT


@pytest.fixture
def settings(tmp_path):
    return {
        "MODFLEET_NODE": "n1",
        "MODFLEET_BROKER_URL": "redis://127.0.0.1:1/0",
        "MODFLEET_CONTROL_URL": "http://127.0.0.1:1",
        "MODFLEET_SERVER_URL": "redis://127.0.0.1:1",
        "MODFLEET_MODULES_DIR": str(tmp_path / "modules"),
        "MODFLEET_JOURNAL_DIR": str(tmp_path / "journal"),
    }


def run(*words, environ):
    return subprocess.run(
        [sys.executable, "-m", "modfleet", "agent", *words],
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
    )


def test_it_can_start(settings):
    shown = run("--check", environ=settings)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "The agent of n1 can start.\n", "")


def test_the_check_makes_the_transport(settings):
    shown = run("--check", environ=settings | {"MODFLEET_BROKER_URL": "foo://127.0.0.1"})
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == "The agent of n1 cannot start: KeyError: 'No such transport: foo'.\n"


def test_the_check_needs_its_folders(settings, tmp_path):
    (tmp_path / "file").touch()
    shown = run("--check", environ=settings | {"MODFLEET_JOURNAL_DIR": str(tmp_path / "file")})
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == f"The agent of n1 cannot start: no permission to write to {tmp_path}/file.\n"
    assert len(shown.stderr.splitlines()) == 1


def test_the_whole_command_line_has_it_too(settings):
    shown = CliRunner().invoke(app, ["agent", "--log-level", "loud"], env=settings, prog_name="modfleet")
    assert (shown.exit_code, shown.stdout, len(shown.stderr.splitlines())) == (2, "", 1)


@pytest.mark.parametrize("name", ["MODFLEET_NODE", "MODFLEET_BROKER_URL", "MODFLEET_JOURNAL_DIR"])
def test_a_setting_that_is_missing_is_named(settings, name):
    shown = run(environ={**settings, name: ""})
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr == f"{name} is not set. `modfleet agent --help` lists the required settings.\n"


def test_run_is_the_same(settings):
    shown = run("run", environ={**settings, "MODFLEET_NODE": ""})
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr == "MODFLEET_NODE is not set. `modfleet agent --help` lists the required settings.\n"


def test_a_log_level_that_is_none(settings):
    shown = run("--log-level", "loud", environ=settings)
    assert (shown.returncode, len(shown.stderr.splitlines())) == (2, 1)
    assert shown.stderr.endswith("See `modfleet agent --help`.\n")


@pytest.mark.slow
def test_it_becomes_the_worker_that_signals_reach(settings):
    command = [sys.executable, "-m", "modfleet", "agent"]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as worker:
        assert worker.stdout
        seen = ""
        while "node.n1" not in seen:
            line = worker.stdout.readline()
            assert line, seen
            seen += line
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=30)
    assert worker.returncode in {0, -signal.SIGTERM}
