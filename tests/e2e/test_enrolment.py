"""A real server joins a running control plane: from a join token to a module in Debian's redis-server, as a person does it."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fleet import PASSWORD, ROOT, Fleet
from tests.integration.enrol.conftest import REDIS, started_site
from tests.namespace import debian_redis, namespace
from tests.waiting import wait_for


@pytest.fixture
def control(start):
    """A control plane without nodes."""
    up = start("--nodes", "0", "--no-sample")
    with (fleet := Fleet(up, nodes=0)).api:
        yield fleet


@pytest.fixture
def site(folder):
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

    def run(self, *words: str) -> str:
        self.count += 1
        done = subprocess.run(
            [sys.executable, "-m", "modfleet", *words], cwd=ROOT, env=self._environ, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def add_node(self, name: str, server: str) -> list[str]:
        """Return the command for the host, for its server."""
        words = shlex.split(self.run("nodes", "add", name, "--label", "zone=a"))
        words[words.index("--server") + 1] = server
        return words

    def bring_a_module(self, version: int, package: Path) -> None:
        self.run("push", str(package))
        self.run("rollout", "start", "greet", str(version), "--label", "zone=a", "--watch")


def environ():
    return {name: value for name, value in os.environ.items() if not name.startswith(("MODFLEET_", "DJANGO_"))}


def to_copy(said: str) -> list[str]:
    return [line.strip() for line in said.splitlines() if line.startswith("    ")]


def test_a_host_that_is_a_folder(control, site, background, package, folder):
    """Without root and systemd. The server restarts once, for `enable-module-command`."""
    person = Person(control, folder)
    command = person.add_node("web-1", site.url)
    (start,) = to_copy(person.run(*command[1:], "--root", str(site.root), "--yes"))
    site.restart()
    background(start.replace(f"{Path(sys.executable).parent}/modfleet", f"{sys.executable} -m modfleet"))
    control.wait_for_phase("web-1", "online")
    version, path = package()
    person.bring_a_module(version, path)
    assert site.call("GREET.HELLO", "Ada")
    site.restart()
    assert site.call("GREET.HELLO", "Ada")


def test_a_host_of_its_own(control, package, folder, capsys):
    """As root of a namespace, with the agent's user and unit. The person follows what the installation prints."""
    let_other_users_connect(control)
    with namespace() as host, debian_redis(host) as server:
        person = Person(control, folder)
        command = person.add_node("web-1", f"unix://{server.SOCKET}")
        said = run_on(host, person, shlex.join(command))
        assert "the control plane received the first heartbeat: web-1 is degraded" in said, said
        user, line, enable, include, *_ = to_copy(said)
        run_on(host, person, f"redis-cli -s {server.SOCKET} {user}")
        run_on(host, person, "cat >> /etc/redis/redis.conf <<'END'\n" + f"{line}\n{enable}\n{include}\nEND")
        person.count += 1
        server.stop()
        server.start()
        wait_for(lambda: control.node("web-1")["server"])
        version, path = package()
        person.bring_a_module(version, path)
        assert server.call("GREET.HELLO", "Ada").startswith("Hello, Ada")
        seconds = time.monotonic() - person.began
        with capsys.disabled():
            print(f"\n{person.count} commands, {seconds:.1f} s")  # noqa: T201 - the note in the docs gives these
        server.stop()
        server.start()
        assert server.call("GREET.HELLO", "Ada").startswith("Hello, Ada")
        checked = host.run("modfleet agent doctor --env-file /etc/modfleet/agents/web-1.env")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        refused = host.run("modfleet agent uninstall web-1 --purge")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "loads at its next start" in refused.stderr


def run_on(host, person, script: str) -> str:
    person.count += 1
    done = host.run(script)
    assert done.returncode == 0, f"{script}: {done.stdout}\n{done.stderr}"
    output: str = done.stdout
    return output


def let_other_users_connect(control: Fleet) -> None:
    """The broker of `modfleet up` is on a socket of its user. A real one listens on TCP."""
    logs = control.folder / "logs"
    # Each process of the control plane closes the directory when it starts.
    wait_for(lambda: " ready." in (logs / "worker.log").read_text())
    wait_for(lambda: "head of the log" in (logs / "relay.log").read_text())
    socket = control.folder / "broker/valkey.sock"
    for each in (control.folder.parent, control.folder, socket.parent):
        each.chmod(0o711)
    socket.chmod(0o777)
