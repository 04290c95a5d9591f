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
    return CliRunner().invoke(app, ["agent", *words], env=environ, prog_name="modfleet")


def test_settings_that_do(settings):
    shown = run("--check", environ=settings)
    assert (shown.exit_code, shown.stdout) == (0, "n1 has all that it needs.\n")


@pytest.mark.parametrize("name", ["MODFLEET_NODE", "MODFLEET_BROKER_URL", "MODFLEET_JOURNAL_DIR"])
def test_a_setting_that_is_missing_is_named(settings, name):
    shown = run(environ={**settings, name: ""})
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr == f"{name} is not set. See `modfleet agent --help` for the settings that an agent needs.\n"


def test_a_log_level_that_is_none(settings):
    assert run("--log-level", "loud", environ=settings).exit_code == 2


@pytest.mark.slow
def test_it_becomes_the_worker_that_signals_reach(settings):
    command = [sys.executable, "-m", "modfleet", "agent"]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as worker:
        seen = ""
        while "node.n1" not in seen:
            line = worker.stdout.readline()
            assert line, seen
            seen += line
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=30)
    assert worker.returncode in {0, -signal.SIGTERM}
