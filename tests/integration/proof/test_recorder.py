"""The process that records: it must not go on without one of its clients."""

import subprocess
import sys

import msgspec

from modfleet.proof.paths import PlainPath
from modfleet.proof.recorder import Client
from tests.fleet import ROOT
from tests.waiting import PATIENCE


def test_a_client_that_cannot_write_its_history_ends_the_process(tmp_path):
    """The others would go on, and the proof would say nothing about this one."""
    path = PlainPath(urls=("redis://127.0.0.1:1",))
    clients = [
        Client(name=name, folder=str(tmp_path / folder), seed=1, path=path)
        for name, folder in (("a", "."), ("b", "absent"))
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "modfleet.proof.recorder"],
        cwd=ROOT,
        input=msgspec.json.encode(clients) + b'\n["entries"]\n',
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 1
    assert b"FileNotFoundError" in ended.stderr
