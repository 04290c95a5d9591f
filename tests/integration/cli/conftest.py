"""The command line in this process, against the API's real server in another, both on one database."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pyte
import pytest
from pytest_django import DjangoDbBlocker
from typer.testing import CliRunner, Result

from accounts.roles import Role
from accounts.services import create_user
from modfleet.cli import app
from modfleet.cluster import SERVER_OPTIONS
from tests.fleet import ROOT
from tests.plugins.cast import PASSWORD
from tests.plugins.databases import new_database
from tests.plugins.server import wait_for_port
from tests.ports import free_port
from tests.recorded_fleet import hear, join, upload
from tests.waiting import PATIENCE

NODES = ("n1", "n2", "n3")
_numbers = count(1)


class Control:
    """The control plane on a port of its own, which may go away and come back."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environ = os.environ | {"MODFLEET_DATA_DIR": str(self.data_dir), "MODFLEET_ALLOWED_HOSTS": "127.0.0.1"}
        command = [
            sys.executable,
            "-m",
            "granian",
            *SERVER_OPTIONS,
            "--port",
            str(self.port),
            "config.asgi:application",
        ]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, start_new_session=True
        )
        wait_for_port(self.port, self.process)

    def stop(self) -> None:
        """At once, with every connection cut."""
        assert self.process
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @contextmanager
    def away(self) -> Iterator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()


@pytest.fixture(scope="module")
def control(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Control]:
    """With alice, an admin, bob, who may look, and three nodes that heartbeat."""
    folder = tmp_path_factory.mktemp("control")
    with django_db_blocker.unblock(), new_database(folder):
        for name, role in (("alice", Role.ADMIN), ("bob", Role.CLUSTER_VIEWER)):
            create_user(name=name, email=f"{name}@example.com", password=PASSWORD, role=role, by=None)
        join(*NODES)
        made = Control(folder)
        made.start()
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture
def environ(control: Control, tmp_path: Path) -> dict[str, str]:
    return {
        "MODFLEET_URL": control.url,
        "MODFLEET_USER": "alice",
        "MODFLEET_PASSWORD": PASSWORD,
        "MODFLEET_CONFIG": str(tmp_path / "profile" / "config.toml"),
    }


@pytest.fixture
def run(environ: dict[str, str]) -> Callable[..., Result]:
    """Runs a command in this process, without a terminal. Its result has exit_code, stdout and stderr."""

    def run_words(*words: str, stdin: str | None = None, **changes: str) -> Result:
        env = {**environ, **changes}
        return CliRunner().invoke(app, list(words), env=env, input=stdin, prog_name="modfleet")

    return run_words


@pytest.fixture
def module(control: Control) -> str:
    """Name of a module that has a build, for this test alone."""
    hear(*NODES)  # they send no heartbeats, and the tests before may have taken long
    name = f"module{next(_numbers)}"
    upload(module_name=name)
    return name


class Terminal:
    """A command in a terminal of 100 x 30 that pyte draws."""

    def __init__(self, words: Sequence[str], environ: Mapping[str, str]) -> None:
        self.screen = pyte.Screen(100, 30)
        self.stream = pyte.ByteStream(self.screen)
        self.seen = b""
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MODFLEET_")}
        kept.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modfleet", *words],
            cwd=ROOT,
            env={**kept, "TERM": "xterm-256color", **environ},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one call of the system
        )
        os.close(slave)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def wait_until(self, is_seen: Callable[[str], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not is_seen(self.text):
            assert time.monotonic() < end, self.text
            assert self._read() or is_seen(self.text), self.text

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> int:
        """Its exit code, once all that it draws is drawn."""
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def _read(self) -> bool:
        assert select.select([self.master], [], [], PATIENCE)[0], self.text
        try:
            received = os.read(self.master, 65536)
        except OSError:  # the other end is closed
            return False
        self.seen += received
        self.stream.feed(received)
        return True

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal(environ: dict[str, str]) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_with(*words: str, **changes: str) -> Terminal:
        opened.append(Terminal(words, {**environ, **changes}))
        return opened[-1]

    yield open_with
    for each in opened:
        each.close()
