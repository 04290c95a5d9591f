"""A change of a place is no event. What has to follow it survives the worker that recorded it."""

import json
import signal
import subprocess
import sys

import pytest

from rollout.management.commands.relay import run_once
from rollout.models import RolloutWake
from rollout.process.manager import ProcessManager
from rollout.process.wakes import forget_ended_rollouts
from tests.recorded_fleet import fleet, grew, phases, rollout, start
from tests.recorded_fleet import say as answer
from tests.recorded_shards import beat, master_of, say
from tests.waiting import PATIENCE

#: Records the heartbeat that it reads, and is killed after the commit, before it advances rollouts.
KILLED = """
import json, os, signal, sys
import django
django.setup()
from rollout.delivery.ingestion import heartbeats
heartbeats.advance_all = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
heartbeats.record_heartbeats(json.load(sys.stdin))
"""


def relay():
    """Runs all steps once, without a reconciler."""
    manager = ProcessManager()

    def run():
        is_well, _ = run_once(lambda: None, manager)
        assert is_well

    return run


@pytest.fixture
def waits(monkeypatch):
    """A rollout whose server is not ready. Only in ten minutes it has a next step by itself."""
    monkeypatch.setattr("rollout.management.commands.relay.publish_due", lambda: None)
    fleet(1)
    say(beat("n0000", master_of(loading=True)))
    uid = start()
    assert phases(uid) == {"n0000": "scheduled"}
    return uid


@pytest.mark.usefixtures("committed_db")
def test_a_worker_is_killed_between_its_commit_and_the_next_step(waits):
    relays = [relay(), relay()]
    for run in relays * 2:
        run()
    words, body = [sys.executable, "-c", KILLED], json.dumps([beat("n0000")])
    killed = subprocess.run(words, input=body.encode(), timeout=PATIENCE, check=False)
    assert (killed.returncode, phases(waits)) == (-signal.SIGKILL, {"n0000": "scheduled"})
    relays[1]()
    assert phases(waits) == {"n0000": "queued"}
    assert grew(relays[0]) == 0


@pytest.mark.django_db
@pytest.mark.dialect
def test_a_wake_is_seen_by_each_relay_once_and_forgotten_after_the_end(waits, monkeypatch):
    advanced: list[str] = []

    def note(uids):
        advanced.extend(uids)
        return dict.fromkeys(uids)

    monkeypatch.setattr("rollout.process.manager.advance_all", note)
    monkeypatch.setattr("rollout.delivery.ingestion.heartbeats.advance_all", lambda _: None)
    managers = [ProcessManager(), ProcessManager()]
    for each in managers:
        each.poll()
    advanced.clear()
    say(beat("n0000", master_of(backups=1)))
    for each in managers * 2:
        each.poll()
    assert advanced == [waits, waits]
    forget_ended_rollouts()
    assert RolloutWake.objects.count() == 1
    monkeypatch.undo()
    say(beat("n0000"))
    answer(waits, "n0000")
    assert rollout(waits).phase == "succeeded"
    forget_ended_rollouts()
    assert not RolloutWake.objects.exists()
