"""Parts die in the middle of a rollout: it is delayed, and nothing else."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

from tests.fleet import PAUSE, ROOT
from tests.waiting import wait_for

MEGABYTE = 1_000_000
#: A worker that was stopped has asked the broker for a message, and would still get one for so long, seconds.
ASKED_SECONDS = 1.5

DELIVER = """
import sys, django
django.setup()
from celery import current_app
from rollout.delivery.commands import commands_of
from rollout.delivery.outbox import _send
from rollout.models import Liveness, Operation
(operation,) = Operation.objects.filter(rollout=sys.argv[1], node=sys.argv[2])
operation.incarnation = Liveness.objects.get(node=sys.argv[2]).incarnation
with current_app.producer_or_acquire() as producer:
    for _, command in commands_of([operation]):
        for _ in range(10):
            _send(command, producer, is_signed=True)
"""


@contextmanager
def stopped_agents(fleet):
    """No agent does anything, and what is published stays in the broker."""
    for name in fleet.names:
        fleet.up.send(f"{name}-agent", signal.SIGSTOP)
    try:
        time.sleep(ASKED_SECONDS)
        yield
    finally:
        for name in fleet.names:
            fleet.up.send(f"{name}-agent", signal.SIGCONT)


def published(fleet):
    """The commands are in the broker. On a busy machine a node may be taken for offline: then nothing is."""
    return all(fleet.broker("LLEN", f"node.{name}") or fleet.node(name)["phase"] == "offline" for name in fleet.names)


def test_agent_killed_in_mid_install(fleet, uploaded):
    version = uploaded(extra_bytes=60 * MEGABYTE)
    uid = fleet.start(version)
    wait_for(lambda: fleet.is_fetching("node-1"), pause=0.001)
    fleet.up.send("node-1-agent", signal.SIGSTOP)
    assert fleet.is_fetching("node-1")
    fleet.up.kill("node-1-agent")
    assert fleet.end_of(uid)["phase"] == "succeeded"
    assert fleet.files("node-1") == fleet.files("node-2")
    assert all(each.startswith("Hello") for each in fleet.greetings())


def test_broker_loses_everything(fleet, uploaded):
    version = uploaded()
    with stopped_agents(fleet):
        uid = fleet.start(version)
        wait_for(lambda: published(fleet), pause=PAUSE)
        fleet.broker("FLUSHALL")
    assert fleet.end_of(uid)["progress"]["succeeded"] == 3
    assert all(each.startswith("Hello") for each in fleet.greetings())


def test_broker_killed(fleet, uploaded):
    version = uploaded()
    with stopped_agents(fleet):
        uid = fleet.start(version)
        wait_for(lambda: published(fleet), pause=PAUSE)
        fleet.up.kill("broker")
    assert fleet.end_of(uid)["progress"]["succeeded"] == 3
    assert all(each.startswith("Hello") for each in fleet.greetings())


def test_node_that_is_down_at_the_start_gets_it_when_it_is_back(fleet, uploaded):
    version = uploaded()
    fleet.up.send("node-2-agent", signal.SIGSTOP)
    fleet.wait_for_phase("node-2", "offline")
    uid = fleet.start(version)
    wait_for(
        lambda: fleet.phases(uid) == {"node-1": "succeeded", "node-2": "scheduled", "node-3": "succeeded"}, pause=PAUSE
    )
    assert fleet.rollout(uid)["phase"] == "running"
    fleet.up.kill("node-2-agent")
    assert fleet.end_of(uid)["phase"] == "succeeded"
    assert fleet.greeting("node-2").startswith("Hello")


def test_command_delivered_ten_times_more(fleet, uploaded):
    version = uploaded()
    log = fleet.folder / "logs" / "node-1-agent.log"
    before = log.read_text().count("succeeded in")
    uid = fleet.start(version)
    environ = os.environ | {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "MODFLEET_DATA_DIR": str(fleet.folder),
        "MODFLEET_BROKER_URL": fleet.broker_url(),
        "MODFLEET_PUBLIC_URL": fleet.url,
    }
    subprocess.run([sys.executable, "-c", DELIVER, uid, "node-1"], env=environ, cwd=ROOT, check=True)
    fleet.end_of(uid)
    operation, file = fleet.operation(uid, "node-1"), fleet.folder / f"nodes/node-1/modules/greet/{version}/greet.so"
    inode = file.stat().st_ino
    wait_for(lambda: log.read_text().count("succeeded in") - before >= 11)
    assert file.stat().st_ino == inode
    assert operation["phase"] == "succeeded"
    assert fleet.operation(uid, "node-1") == operation


def test_control_worker_and_relay_killed(fleet, uploaded):
    uid = fleet.start(uploaded(extra_bytes=5 * MEGABYTE), strategy={"max_parallel": 1})
    wait_for(lambda: fleet.is_fetching("node-1"), pause=0.001)
    for name in ("worker", "relay"):
        fleet.up.kill(name)
    assert fleet.end_of(uid)["progress"]["succeeded"] == 3


def test_api_killed_is_started_again_at_the_same_address(fleet, uploaded):
    version = uploaded()
    fleet.up.kill("api")
    uid = wait_for(lambda: _start_if_it_answers(fleet, version))
    assert fleet.end_of(uid)["phase"] == "succeeded"


def _start_if_it_answers(fleet, version):
    import httpx

    try:
        return fleet.start(version)
    except httpx.TransportError:
        return None


def test_damaged_blob_is_refused_by_each_node(fleet, package):
    version, path = package()
    artifact = fleet.upload(path).json()
    (blob,) = (fleet.folder / "artifacts" / artifact["builds"][0]["package_sha256"]).iterdir()
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 0xFF
    blob.chmod(0o600)
    blob.write_bytes(content)
    rollout = fleet.carry_out(version)
    assert rollout["phase"] == "failed"
    assert {fleet.operation(rollout["uid"], name)["reason"] for name in fleet.names} == {"checksum_mismatch"}
    assert [fleet.files(name) for name in fleet.names] == [[], [], []]
    assert fleet.greetings() == ["", "", ""]


def test_what_dies_is_told_in_a_line(fleet):
    fleet.up.kill("relay")
    assert any(line.startswith("relay ended and will be restarted") for line in fleet.up.said().splitlines())
