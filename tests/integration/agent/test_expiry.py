"""A node whose clock is wrong works all the same, and says what time it has."""

import time
from dataclasses import replace

import pytest

from rollout.agent.failure import Failure
from rollout.agent.operations.expiry import SLACK, Expiry
from rollout.messages import Phase, Reason, cancel_queue_for, to_json
from tests.integration.agent.test_worker import Worker, broker

__all__ = ["broker"]

DAY = 86_400


@pytest.fixture
def worker(site, broker, waits):
    worker = Worker(site, broker, waits)
    yield worker
    worker.kill()


def sent(site, built, *, ago=0.0):
    now = time.time() - ago
    return replace(site.command(built("greet")), sent_at=now, expires=now + 60)


@pytest.mark.slow
@pytest.mark.parametrize("off", [DAY, -DAY])
def test_a_wrong_clock_drops_no_command(worker, site, built, off):
    worker.start(clock_off=off)
    command = sent(site, built)
    worker.send(to_json(command))
    (report,) = worker.final(command.rollout)
    assert report.phase is Phase.SUCCEEDED, report.message
    heartbeat = worker.heartbeats()[-1]
    assert abs(heartbeat.sent_at - time.time() - off) < 60


@pytest.mark.slow
@pytest.mark.parametrize("off", [0, DAY, -DAY])
def test_an_old_command_is_dropped_by_any_clock(worker, site, built, off, waits):
    worker.start(clock_off=off)
    old, new = sent(site, built, ago=3600), sent(site, built)
    worker.send(to_json(old))
    worker.send(to_json(new))
    assert worker.final(new.rollout)[0].phase is Phase.SUCCEEDED
    assert [each.rollout for each in worker.reports() if each.phase.is_final] == [new.rollout]


@pytest.mark.slow
def test_a_clock_that_cannot_be_checked_is_reported_at_once(worker, site, built):
    worker.broker.call("ACL", "SETUSER", "default", "-time")
    worker.start(clock_off=DAY)
    command = sent(site, built)
    worker.send(to_json(command))
    (report,) = worker.final(command.rollout)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.CLOCK_SKEW)
    again = sent(site, built)
    worker.push(cancel_queue_for("n1"), b"x")
    worker.cancel(to_json(again))
    assert worker.final(again.rollout)[0].reason is Reason.CLOCK_SKEW


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (0, None, False),
        (-1, None, False),
        (DAY, 0, False),
        (DAY, DAY, True),
        (DAY, -DAY, True),
        (-DAY, 0, False),
        (-DAY, DAY, True),
        (-DAY, -DAY, False),
        (-DAY, None, False),
        (61, 0, False),
        (61, 61, True),
        (-SLACK - 1, 61, True),
    ],
)
def test_the_rule(site, built, monkeypatch, own, other, expected):
    """By how much the two clocks differ from that of who sent the command, which expires after 60 s."""
    now = 1e9
    command = replace(site.command(built("greet")), sent_at=now, expires=now + 60)
    monkeypatch.setattr(time, "time", lambda: now + own)
    expiry = Expiry(lambda: None if other is None else now + other)
    assert expiry.has_expired(command) is expected


def test_an_older_control_plane_says_not_when_it_sent(site, built):
    assert Expiry().has_expired(replace(site.command(built("greet")), expires=time.time() - 1))
    with pytest.raises(Failure, match="Set the node's clock"):
        Expiry().has_expired(sent(site, built, ago=3600))
