"""docs/howto/own-server.md, as pasted: a control plane without nodes, and the agent of a server of one's own."""

import os
import re
import shlex
import signal
import subprocess
from contextlib import suppress

import pytest

from tests.fleet import PASSWORD, ROOT, Fleet
from tests.host import clean
from tests.waiting import PATIENCE, wait_for

PAGE = (ROOT / "docs/howto/own-server.md").read_text()


@pytest.fixture
def shell(folder):
    """Runs a script in the checkout; returns what it prints."""
    environ = clean() | {"HOME": str(folder), "PYTHONPATH": str(ROOT), "MODFLEET_PASSWORD": PASSWORD}

    def run(script):
        words = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, f"{script}: {done.stdout}\n{done.stderr}"
        return done.stdout

    yield run
    pid = folder / "own-server/redis.pid"  # of a failed test
    if pid.exists():
        os.kill(int(pid.read_text()), signal.SIGKILL)


@pytest.fixture
def terminal(folder):
    """Starts a command in a terminal of its own."""
    started = []

    def start(line):
        with (folder / "terminal").open("wb") as log:
            process = subprocess.Popen(
                f"exec {line}",
                shell=True,
                env=clean() | {"PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_each_command_of_the_page_works(start, folder, shell, terminal):
    (line,) = re.findall(r"^<!-- control plane -->\n```sh\n(.*)\n```$", PAGE, re.MULTILINE)
    assert line.split()[:2] == [".venv/bin/modfleet", "up"]
    up = start(*shlex.split(line)[2:])
    assert "modfleet nodes add NAME" in up.wait_until_it_says("add a node")
    assert "docs/howto/own-server.md" in up.said()
    found = re.findall(r"^<!-- commands -->\n```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    sign_in, serve, install, roll_out, remove, uninstall = (
        each.replace("http://127.0.0.1:8000", up.url) for each in found
    )
    assert "signed in" in shell(sign_in)
    shell(serve.replace("daemonize yes", f"daemonize yes\npidfile {folder}/own-server/redis.pid"))
    wait_for((folder / "own-server/redis.sock").exists)
    *_, step, run = shell(install).splitlines()
    assert step == "to do by you  start the agent:"
    assert (folder / "own-server/token").stat().st_mode & 0o777 == 0o600
    agent = terminal(run)
    with (control := Fleet(up, nodes=0)).api:
        control.wait_for_phase("cache-1", "online")
        said = shell(roll_out)
        assert "Hello, Ada, from greet 1.0.0" in said
        assert not re.search(r"^\W*fail ", said, re.MULTILINE), said
        assert "greet" in (folder / "own-server/var/lib/modfleet-agent/cache-1/modules/modfleet.conf").read_text()
        shell(remove)
        os.killpg(agent.pid, signal.SIGINT)  # Ctrl-C
        agent.wait(PATIENCE)
        shell(uninstall)
        assert control.node("cache-1")["phase"] == "decommissioned"
    assert not (folder / "own-server").exists()
