"""What is pushed into the control plane's queues and cannot be read is dropped alone, at once, and counted."""

import os
import subprocess
import sys
from typing import Any

import pytest
from celery import current_app
from kombu import Queue

from rollout.delivery import consumer
from rollout.messages import HEARTBEATS, REPORTS
from rollout.queries import statistics
from rollout.transport import DROPPED
from tests.envelopes import REPORT, UNREADABLE, USELESS, envelope, mutations, task
from tests.integration.rollout.test_consumer import consuming
from tests.recorded_fleet import fleet, report_of, rollout, start
from tests.waiting import PATIENCE

__all__ = ["consuming"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("committed_db"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def test_a_word_costs_nothing(broker, consuming, waits):
    taken: list[object] = []
    consuming(REPORTS, taken.extend)
    broker.send(REPORTS, "before")
    waits(lambda: taken == ["before"])
    broker.client().lpush(REPORTS, *[b"x"] * 600)
    broker.send(REPORTS, "after")
    waits(lambda: taken == ["before", "after"])  # at a second for each it would never come to that


@pytest.mark.parametrize("queue", [REPORTS, HEARTBEATS])
def test_nothing_else_is_lost(broker, consuming, waits, queue):
    taken: list[object] = []
    consuming(queue, taken.extend)
    for number, item in enumerate([*UNREADABLE.values(), *USELESS.values(), *mutations(300, seed=7)]):
        broker.client().lpush(queue, item)
        broker.send(queue, {"honest": number})
    honest = [{"honest": number} for number in range(number + 1)]
    waits(lambda: taken and taken[-1] == honest[-1])
    assert [each for each in taken if isinstance(each, dict) and "honest" in each] == honest
    waits(lambda: broker.client().hlen("unacked") == 0)


def test_a_report_between_unreadable_ones_is_recorded(broker, consuming, waits):
    (name,) = fleet(1)
    uid = start()
    broker.client().lpush(REPORTS, *UNREADABLE.values())
    broker.send(REPORTS, report_of(uid, name))
    broker.client().lpush(REPORTS, *USELESS.values())
    consuming(REPORTS, consumer.record_reports)
    waits(lambda: rollout(uid).phase == "succeeded")


@pytest.mark.parametrize("record", [consumer.record_reports, consumer.record_heartbeats])
def test_bodies_that_no_parser_foresees_are_dropped_alone(broker, consuming, waits, record):
    """Those that are read as envelopes reach the parsers of reports and heartbeats."""
    fleet(1)
    queue = REPORTS if record is consumer.record_reports else HEARTBEATS
    broker.client().lpush(queue, *USELESS.values(), *mutations(200, seed=3, of=envelope(REPORT)))
    consuming(queue, record)
    waits(lambda: broker.waiting(queue) == 0 and broker.client().hlen("unacked") == 0)


def test_a_batch_is_bounded_in_bytes(broker, consuming, waits):
    """Each of these takes some MB once it is read."""
    batches = []
    consuming(REPORTS, lambda bodies: batches.append(len(bodies)))
    broker.client().lpush(REPORTS, *[envelope(b"[" + b",".join([b"[]"] * 100_000) + b"]")] * 16)
    broker.client().lpush(REPORTS, *[envelope(b"[" + b",".join([b"[]"] * 1_000_000) + b"]")] * 5)
    waits(lambda: broker.waiting(REPORTS) == 0 and sum(batches) == 16)
    assert max(batches) <= consumer.BATCH_BYTES // 300_000 + 1


def test_each_is_counted(broker, consuming, waits, monkeypatch):
    monkeypatch.setattr(consumer, "IDLE_SECONDS", 0.05)  # then it records what it has dropped
    DROPPED.take()
    consuming(HEARTBEATS, lambda _: None)
    for number, item in enumerate(UNREADABLE.values(), start=1):
        broker.client().lpush(HEARTBEATS, item)
        waits(lambda: sum(count for *_, count in statistics.dropped_messages()) == number)  # noqa: B023 - called at once


def test_a_node_cannot_have_the_control_plane_write_into_another_queue(broker):
    """kombu puts what it gives back where the envelope says: this one says `node.other`."""
    broker.client().lpush(REPORTS, USELESS["a foreign address"])
    with current_app.connection_for_read() as connection:
        queue = Queue(REPORTS, routing_key=REPORTS)
        got: list[Any] = []
        with connection.Consumer([queue], on_message=got.append, accept=["json"]):
            connection.drain_events(timeout=PATIENCE)
        got[0].requeue()
    assert (broker.waiting("node.other"), broker.waiting(REPORTS)) == (0, 1)


@pytest.fixture
def worker(broker, tmp_path):
    """The control worker as a process, with the queue of its own tasks."""
    environ = {**os.environ, "MODFLEET_BROKER_URL": broker.url, "MODFLEET_DATA_DIR": str(tmp_path)}
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "config", "worker", "-l", "INFO"],
            env=environ,
            stdout=output,
            stderr=output,
        )
        yield process
        process.terminate()
        assert process.wait(timeout=PATIENCE) == 0


def test_the_control_worker_goes_on(broker, worker, waits, tmp_path):
    """On all of its queues, and what it dropped is in the database for `/metrics`."""
    (name,) = fleet(1)
    uid = start()
    for queue in ("control.tasks", REPORTS, HEARTBEATS):
        broker.client().lpush(queue, *UNREADABLE.values(), *USELESS.values(), *mutations(100, seed=11))
        broker.client().lpush(queue, *mutations(100, seed=12, of=task("modfleet.sweep")))
    broker.send(REPORTS, report_of(uid, name))
    current_app.send_task("modfleet.sweep", ignore_result=True)
    waits(lambda: rollout(uid).phase == "succeeded")
    waits(lambda: not any(broker.waiting(queue) for queue in ("control.tasks", REPORTS, HEARTBEATS)))
    waits(lambda: broker.client().hlen("unacked") == 0)
    waits(lambda: {queue for queue, _, _ in statistics.dropped_messages()} >= {"control.tasks", REPORTS, HEARTBEATS})
    assert worker.poll() is None
    output = (tmp_path / "output").read_text()
    assert "Task modfleet.sweep" in output
    assert "Connection to broker lost" not in output
    assert output.count("Dropped") < 20  # a line now and then, however many there are
