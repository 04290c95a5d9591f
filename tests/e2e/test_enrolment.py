"""A real server joins a running control plane: from a join token to a module in Debian's redis-server, as a person does it.

The host is a folder: `--root` stands for it, and the agent runs as `modfleet agent install` says.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from tests.fleet import PASSWORD, ROOT, Fleet
from tests.integration.enrol.conftest import REDIS, Site, started_site
from tests.waiting import wait_for


@pytest.fixture
def control(start):
    """A control plane without nodes."""
    up = start("--nodes", "0", "--no-sample")
    with (fleet := Fleet(up, nodes=0)).api:
        yield fleet


@pytest.fixture
def host(folder):
    """A host with Debian's redis-server."""
    root = folder / "h"
    root.mkdir()
    with started_site(root, REDIS) as made:
        yield made


@pytest.fixture
def background(folder):
    """Starts a command, and ends it with all of its processes."""
    started = []

    def start(line):
        with (folder / "agent.log").open("ab") as log:
            process = subprocess.Popen(
                line, shell=True, cwd=ROOT, env=environ(), stdout=log, stderr=log, start_new_session=True
            )
        started.append(process)
        return process

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


class Person:
    """Runs commands, and counts them."""

    def __init__(self, control: Fleet, folder: Path) -> None:
        self.count = 0
        self.began = time.monotonic()
        self._environ = environ() | {
            "MODFLEET_URL": control.url,
            "MODFLEET_USER": "admin",
            "MODFLEET_PASSWORD": PASSWORD,
            "HOME": str(folder),
        }

    def run(self, *words: str, code: int = 0) -> str:
        self.count += 1
        done = subprocess.run(
            [sys.executable, "-m", "modfleet", *words], cwd=ROOT, env=self._environ, capture_output=True, text=True
        )
        assert done.returncode == code, f"{words}: {done.stdout}\n{done.stderr}"
        return done.stdout


def environ():
    return {name: value for name, value in os.environ.items() if not name.startswith(("MODFLEET_", "DJANGO_"))}


def to_copy(said: str) -> list[str]:
    return [line.strip() for line in said.splitlines() if line.startswith("    ")]


def test_from_a_token_to_a_module_in_the_server(control, host, background, package, folder, capsys):
    person = Person(control, folder)
    version, path = package()
    token = control.post("/v2/join-tokens", {"node": "web-1", "labels": {"zone": "a"}}, status=201)
    command = shlex.split(token["command"])
    command[command.index("--server") + 1] = host.url
    person.count += 1
    said = person.run(*command[1:], "--root", str(host.root), "--yes")
    assert len(to_copy(said)) == 1, said
    (start,) = to_copy(said)
    host.restart()  # a person does this: `enable-module-command` and the include line act only now
    background(start.replace(f"{Path(sys.executable).parent}/modfleet", f"{sys.executable} -m modfleet"))
    person.count += 2
    control.wait_for_phase("web-1", "online")
    person.run("push", str(path))
    person.run("rollout", "start", "greet", str(version), "--watch")
    assert host.call("GREET.HELLO", "Ada")
    rights = host.call("ACL", "GETUSER", "modfleet-agent")
    assert "-@all" in str(rights)
    host.restart()
    assert host.call("GREET.HELLO", "Ada")
    with capsys.disabled():
        print(f"\n{person.count} commands, {time.monotonic() - person.began:.1f} s")  # noqa: T201
