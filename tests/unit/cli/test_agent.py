"""`modfleet agent` is this node's worker."""

import os
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from modfleet.cli import app
from tests.fleet import ROOT
from tests.waiting import PATIENCE


@pytest.fixture
def settings(tmp_path):
    return {
        "MODFLEET_NODE": "n1",
        "MODFLEET_BROKER_URL": "redis://127.0.0.1:1/0",
        "MODFLEET_CONTROL_URL": "http://127.0.0.1:1",
        "MODFLEET_SERVER_URL": "redis://127.0.0.1:2",
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


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"CONTROL_CA": "/nonexistent"}, "MODFLEET_CONTROL_CA=/nonexistent cannot be read: No such file or directory."),
        ({"CONTROL_CA": __file__}, f"MODFLEET_CONTROL_CA={__file__} has no certificate in PEM."),
        (
            {"CONTROL_URL": "http://control.example.com"},
            ("MODFLEET_CONTROL_URL=http://control.example.com is not encrypted: use https://, except on this host."),
        ),
        (
            {"SERVER_URL": "redis://localhost:1"},
            "MODFLEET_SERVER_URL and MODFLEET_BROKER_URL are the same server: use two servers.",
        ),
        ({"JOURNAL_DIR": f"{__file__}/x"}, f"MODFLEET_JOURNAL_DIR={__file__}/x cannot be created: Not a directory."),
        ({"MODULES_DIR": f"{__file__}/x"}, f"MODFLEET_MODULES_DIR={__file__}/x cannot be created: Not a directory."),
        ({"MODULE_DIR": "/x"}, "MODFLEET_MODULE_DIR is no setting: did you mean MODFLEET_MODULES_DIR?"),
    ],
)
def test_wrong_settings_are_one_sentence_at_the_start(settings, changes, sentence):
    environ = settings | {f"MODFLEET_{name}": value for name, value in changes.items()}
    shown = run(environ=environ)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr == f"{sentence} `modfleet agent --help` lists the required settings.\n"
    worker = [sys.executable, "-m", "celery", "-A", "rollout.agent", "worker"]
    shown = subprocess.run(worker, cwd=ROOT, env=os.environ | environ, capture_output=True, text=True)
    assert shown.returncode != 0
    assert shown.stderr == f"{sentence}\n"


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
        worker.communicate(timeout=PATIENCE)
    assert worker.returncode in {0, -signal.SIGTERM}
