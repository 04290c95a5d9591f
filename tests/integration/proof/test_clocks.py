"""Clocks that jump, as real processes see them."""

import json
import os
import subprocess
import sys
import time

import pytest

from tests.fleet import remove_folder, short_folder
from tests.integration.agent.conftest import SERVERS
from tests.proof.clocks import Clock, compiled
from tests.shards import Machine

DAY = 86_400
CLOCKS = """
import datetime, json, sqlite3, sys, time
for _ in sys.stdin:
    database = sqlite3.connect(":memory:").execute("select (julianday('now') - 2440587.5) * 86400").fetchone()
    print(json.dumps([time.time(), time.time_ns() / 1e9, datetime.datetime.now().timestamp(), *database, time.monotonic()]), flush=True)
"""


@pytest.fixture
def clock(tmp_path) -> Clock:
    return Clock(tmp_path / "clock", compiled(tmp_path))


def test_all_wall_clocks_of_a_program_and_not_its_monotonic_one(clock):
    words, environ = [sys.executable, "-c", CLOCKS], os.environ | clock.environ
    with subprocess.Popen(words, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        for off in (0, DAY, -DAY, 0):
            clock.set(off)
            process.stdin.write("\n")
            process.stdin.flush()
            *walls, monotonic = json.loads(process.stdout.readline())
            assert walls == [pytest.approx(time.time() + off, abs=2)] * 4
            assert monotonic == pytest.approx(time.monotonic(), abs=2)
        process.stdin.close()


@pytest.mark.parametrize("binary", SERVERS, ids=lambda each: each.name)
def test_a_server(clock, binary):
    folder = short_folder()
    server = Machine("a", folder / "a", binary, environ=clock.environ).start()
    uptime = server.info("server")["uptime_in_seconds"]
    for off in (DAY, -DAY):
        clock.set(off)
        assert int(server.call("TIME")[0]) == pytest.approx(time.time() + off, abs=2)
        assert server.call("PING")
    clock.set(0)
    assert server.info("server")["uptime_in_seconds"] - uptime < 5
    server.stop()
    remove_folder(folder)
