"""The API behind its real server, as plain clients see it."""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from pytest_django import DjangoDbBlocker

from accounts.services import bootstrap_admin
from modfleet.cluster import SERVER_OPTIONS
from tests import weak_passwords
from tests.plugins.cast import PASSWORD
from tests.plugins.databases import new_database
from tests.ports import free_port
from tests.waiting import PATIENCE

#: How many requests the server works on at once.
THREADS = 8


@dataclass(frozen=True)
class Server:
    port: int
    process: "subprocess.Popen[bytes]"
    data_dir: Path
    #: Of the probes' own listener, 0 if there is none.
    probes: int = 0

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def ask(
        self, method: str, path: str, body: Any = None, headers: Any = (), **options: Any
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = self.connect()
        try:
            connection.request(method, path, body, dict(headers), **options)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def send(self, *parts: bytes) -> bytes:
        """What comes back for raw bytes, up to the end of the first answer; each part waits for one before it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            received = b""
            for part in parts:
                connection.sendall(part)
                received += connection.recv(65536)
            return received


@pytest.fixture(scope="module")
def server(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One for the tests of a file; its database has one account, admin."""
    data_dir = tmp_path_factory.mktemp("data")
    with django_db_blocker.unblock(), bootstrapped(data_dir) as environment, serving(environment, data_dir) as served:
        yield served


@contextmanager
def bootstrapped(data_dir: Path) -> Iterator[dict[str, str]]:
    """The environment of a server on a new database, which `django.db.connection` is meanwhile.

    Its passwords are quick to hash.
    """
    with new_database(data_dir):
        with override_settings(PASSWORD_HASHERS=weak_passwords.PASSWORD_HASHERS):
            assert bootstrap_admin(PASSWORD)
        yield {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": weak_passwords.__name__,
            "MODFLEET_DATA_DIR": str(data_dir),
            "MODFLEET_ALLOWED_HOSTS": "127.0.0.1",
        }


def prepared(data_dir: Path, **more: str) -> dict[str, str]:
    """The environment of a server with an SQLite in that folder, made and with its first user."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "MODFLEET_DATABASE_URL"},
        "MODFLEET_DATA_DIR": str(data_dir),
        "MODFLEET_ADMIN_PASSWORD": PASSWORD,
        "MODFLEET_ALLOWED_HOSTS": "127.0.0.1",
        **more,
    }
    for command in (["migrate", "--verbosity=0"], ["bootstrap"]):
        subprocess.run([sys.executable, "manage.py", *command], env=environment, check=True, stdout=subprocess.DEVNULL)
    return environment


@contextmanager
def serving(environment: Mapping[str, str], data_dir: Path, *options: str) -> Iterator[Server]:
    """The API's server as a process of its own, on the database that `environment` names, with further `options`."""
    port = free_port()
    command = [sys.executable, "-m", "granian", *SERVER_OPTIONS, *options, "--port", str(port)]
    process = subprocess.Popen(
        [*command, "config.asgi:application"],
        env={"MODFLEET_THREADS": str(THREADS), "PYTHONFAULTHANDLER": "1", **environment},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for_port(port, process)
        yield Server(port, process, data_dir)
    finally:
        exit_code = process.poll()
        process.terminate()
        process.wait(timeout=PATIENCE)
        assert exit_code is None, f"the server has ended by itself, with {exit_code}"


def wait_for_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Until the process listens on it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("the server does not listen")
