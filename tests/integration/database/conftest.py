"""A PostgreSQL of the tests' own with 100 connections, as it comes, and the control plane's processes on it."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.rollout.conftest import broker, carried_by, waits  # noqa: F401  # fixtures
from tests.plugins.cast import PASSWORD
from tests.plugins.server import wait_for_port
from tests.ports import free_port
from tests.postgres import FAST, Server, serving
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[3]
UNIT = ROOT / "deploy/systemd/modfleet-control-plane.service"

BEGIN = f"""
from django.core.management import call_command
from accounts.models import User
from accounts.services import ensure_admin
from accounts.tokens import issue_token
from tests.recorded_fleet import fleet, start
call_command("migrate", verbosity=0)
ensure_admin({PASSWORD!r})
fleet(3)
print(issue_token(User.objects.get(), ttl=3600), start())
"""


OTHER = """
from msgspec.json import encode
from tests.recorded_fleet import join, report_of, start, upload
names = ["n0000", "n0001", "n0002"]
join(*names)  # nodes are released by a fresh heartbeat
upload("{module}")
uid = start(module_name="{module}")
print(encode([uid, [report_of(uid, name) for name in names]]).decode())
"""


@dataclass(frozen=True)
class Plane:
    """A database with a rollout under way, and what its processes need to know."""

    database: Server
    environ: dict[str, str]
    token: str
    rollout: str

    def run(self, script: str) -> str:
        """What the script prints, in a process of its own."""
        words = [sys.executable, "-c", f"import django; django.setup()\n{script}"]
        done = subprocess.run(words, env=self.environ, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout

    def other_rollout(self, module: str) -> tuple[str, list[dict[str, Any]]]:
        """Its uid, and the reports that end it well."""
        uid, reports = json.loads(self.run(OTHER.format(module=module)))
        return uid, reports

    def phase(self, uid: str) -> str:
        with psycopg.connect(self.database.url) as database:
            found = database.execute("SELECT phase FROM rollout_rollout WHERE uid = %s", [uid]).fetchone()
        assert found
        return str(found[0])

    @contextmanager
    def process(self, *words: str, name: str = "", **environ: str) -> "Iterator[subprocess.Popen[bytes]]":
        """It has ended with 0 when the block has. `name` is that of its connections to the database."""
        url = f"{self.environ['MODFLEET_DATABASE_URL']}?application_name={name}"
        with (Path(self.environ["MODFLEET_DATA_DIR"]) / "output").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *words],
                env={**self.environ, "MODFLEET_DATABASE_URL": url, **environ},
                cwd=ROOT,
                stdout=output,
                stderr=output,
            )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=PATIENCE) == 0, self.output()

    def output(self) -> str:
        return (Path(self.environ["MODFLEET_DATA_DIR"]) / "output").read_text()

    @contextmanager
    def api(self, **environ: str) -> Iterator[int]:
        """The port of the API, started as its unit does."""
        port = free_port()
        line = next(each for each in UNIT.read_text().splitlines() if each.startswith("ExecStart="))
        _, *words = shlex.split(line.replace("8000", str(port)))
        with self.process("granian", *words, name="api", **environ) as process:
            wait_for_port(port, process)
            yield port


@contextmanager
def started(folder: Path, *options: str) -> Iterator[Plane]:
    with serving(*FAST, *options) as database:
        environ = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "MODFLEET_DATA_DIR": str(folder),
            "MODFLEET_DATABASE_URL": database.url,
            "MODFLEET_REQUESTS_PER_MINUTE": "0",
        }
        begun = Plane(database, environ, "", "")
        token, rollout = begun.run(BEGIN).split()
        yield Plane(database, environ, token, rollout)


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """What a test stops, locks or fills it leaves as it was."""
    with started(tmp_path_factory.mktemp("plane")) as made:
        yield made
