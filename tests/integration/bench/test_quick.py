"""The benchmark runs, measures the same work on both sides, and leaves no process behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.waiting import PATIENCE, wait_for

ROOT = Path(__file__).parents[3]
TINY = [
    "--nodes",
    "3",
    "--rounds",
    "1",
    "--size",
    "20000",
    "--many",
    "20",
    "--poll-rounds",
    "1",
    "--poll-seconds",
    "0.2",
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def folder():
    made = Path(tempfile.mkdtemp(prefix="bench-"))  # pytest's own folders are too deep for sockets
    yield made
    shutil.rmtree(made)


def start(folder, *options):
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MODFLEET_", "DJANGO_"))}
    words = [sys.executable, "-u", "-m", "bench.quick", "--folder", folder, "--log", "0", *TINY, *options]
    return subprocess.Popen(words, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def left_running(folder):
    """Processes that have the folder in their words or in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(folder).encode() in (process / name).read_bytes() for name in ("cmdline", "environ")):
                found.append(process.name)
        except OSError:
            continue
    return found


def tree(folder):
    """Each file below it: its bytes and its mode."""
    files = (each for each in folder.rglob("*") if each.is_file())
    return {each.relative_to(folder): (each.read_bytes(), each.stat().st_mode) for each in files}


def test_it_works_and_the_floor_leaves_what_the_agent_leaves(folder):
    with start(folder, "--hosts", "0") as bench:
        output, _ = bench.communicate()
    assert bench.returncode == 0, output
    assert "x floor" in output
    parts = dict(re.findall(r"│ ([\w ,]+?) +│ +([\d.]+) ms │", output))
    assert set(parts) == {"floor", "agents", "control worker", "relay", "API", "broker, server"}
    assert float(parts["agents"]) > 0
    for node in ("node-001", "node-002", "node-003"):
        agent = tree(folder / "rollouts" / "nodes" / node / "modules" / "greet" / "10001")
        assert set(map(str, agent)) == {"greet.so", "module.json"}
        assert agent == tree(folder / "rollouts" / "floor" / node / "greet" / "10001")
    assert left_running(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_ends_it_ends_all_of_it(folder, number):
    with start(folder, "--hosts", "0") as bench:
        wait_for(lambda: list(folder.glob("rollouts/nodes/node-*")) or bench.poll() is not None)
        assert bench.poll() is None, bench.stdout.read()
        bench.send_signal(number)
        output, _ = bench.communicate(timeout=PATIENCE)
    assert left_running(folder) == [], output
