"""The control worker's threads, on a real broker and real commits."""

import signal
import threading
import time
from datetime import timedelta

import pytest
from celery import current_app

from eventstore import database_now
from rollout.delivery import consumer, ingestion
from rollout.delivery.consumer import BatchConsumer, declare_silent_nodes
from rollout.delivery.outbox import publish_due
from rollout.messages import HEARTBEATS, REPORTS, Phase, queue_for
from rollout.process import offline_nodes
from rollout.queries import statistics
from rollout.transport import DROPPED
from tests.recorded_fleet import fleet, heartbeat_of, node, phases, report_of, rollout, silence, start
from tests.waiting import PATIENCE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("committed_db"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def consuming(broker):
    """Starts a consumer; all of them are stopped in the end."""
    threads = []

    def consume(queue, handler, **more):
        thread = BatchConsumer(current_app, queue, handler, **more)
        thread.start()
        threads.append(thread)
        return thread

    yield consume
    for thread in threads:
        thread.stopping.set()
    for thread in threads:
        thread.join(timeout=PATIENCE)
        assert not thread.is_alive()


def test_it_works(broker, consuming, waits):
    names = fleet(3)
    uid = start(max_parallel=2)
    consuming(REPORTS, consumer.record_reports)
    broker.send(REPORTS, *[report_of(uid, name) for name in names[:2]])
    waits(lambda: phases(uid)[names[2]] == "queued")
    waits(lambda: broker.waiting(queue_for(names[2])) == 1)
    broker.send(REPORTS, report_of(uid, names[2]))
    waits(lambda: rollout(uid).phase == "succeeded")


def test_what_is_there_comes_as_one_batch(broker, consuming, waits):
    broker.send(REPORTS, *range(700))
    batches: list[list[object]] = []
    consuming(REPORTS, batches.append)
    waits(lambda: sum(map(len, batches)) == 700)
    assert len(batches) <= 70  # one message at a time would be 700
    assert max(map(len, batches)) <= consumer.PREFETCH
    waits(lambda: broker.client().hlen("unacked") == 0)


def test_a_steady_trickle_does_not_hold_a_batch_open(broker, consuming, waits):
    arrived = threading.Event()
    consuming(REPORTS, lambda _: arrived.set())
    stop = threading.Event()

    def trickle():
        while not stop.wait(0.01):
            broker.send(REPORTS, 1)

    sender = threading.Thread(target=trickle)
    sender.start()
    try:
        assert arrived.wait(timeout=PATIENCE)
    finally:
        stop.set()
        sender.join()


def test_what_was_not_recorded_comes_again(broker, consuming, waits, monkeypatch, caplog):
    monkeypatch.setattr(consumer, "RETRY_SECONDS", 0.01)
    seen = []

    def fail_once(bodies):
        seen.append(list(bodies))
        if len(seen) == 1:
            raise RuntimeError("the database is away")

    broker.send(REPORTS, "a")
    consuming(REPORTS, fail_once)
    waits(lambda: len(seen) == 2)
    assert seen == [["a"], ["a"]]
    assert "the database is away" in caplog.text


def test_garbage_in_the_queue_is_dropped_and_counted(broker, consuming, waits):
    DROPPED.take()
    (name,) = fleet(1)
    uid = start()
    with current_app.connection_for_write() as connection:
        producer = connection.Producer()
        for body, kind in ((b"{", "application/json"), (b"\x80", "application/x-python-serialize")):
            producer.publish(body, exchange="", routing_key=REPORTS, content_type=kind, content_encoding="utf-8")
    broker.send(REPORTS, None, [], {"phase": "x"}, report_of(uid, name))
    consuming(REPORTS, consumer.record_reports)
    waits(lambda: rollout(uid).phase == "succeeded")
    waits(lambda: sum(count for _, _, count in statistics.dropped_messages()) == 5)
    waits(lambda: broker.client().hlen("unacked") == 0)


def test_it_goes_on_after_the_broker_was_killed(broker, carried_by, consuming, waits, monkeypatch, caplog):
    monkeypatch.setattr(consumer, "RETRY_SECONDS", 0.05)
    seen: list[object] = []
    consuming(REPORTS, seen.extend)
    broker.send(REPORTS, 1)
    waits(lambda: seen == [1])
    broker.kill()
    broker.start()
    carried_by(broker.url)
    broker.send(REPORTS, 2)
    waits(lambda: seen == [1, 2])
    assert "the broker is away" in caplog.text
    assert "Traceback" not in caplog.text


def test_reports_are_recorded_while_nothing_can_be_published(broker, carried_by, tmp_path, monkeypatch):
    (name,) = fleet(1)
    uid = start()

    def away():
        raise ConnectionError

    monkeypatch.setattr(consumer, "publish_due", away)
    consumer.record_reports([report_of(uid, name)])
    assert rollout(uid).phase == "succeeded"


def test_a_hello_gets_its_command_at_once(broker, consuming, waits):
    (name,) = fleet(1)
    start()
    consuming(HEARTBEATS, consumer.record_heartbeats)
    broker.send(HEARTBEATS, heartbeat_of(name, hello=True))
    waits(lambda: broker.waiting(queue_for(name)) == 1)


def test_a_silent_node_is_found_while_others_send_heartbeats(broker, consuming, waits):
    fleet(2)
    for name in ("n0000", "n0001"):
        ingestion.record_heartbeats([{**heartbeat_of(name), "interval_seconds": 0.2}])
    consuming(HEARTBEATS, consumer.record_heartbeats, idle=declare_silent_nodes)
    stop = threading.Event()

    def heartbeat():
        while not stop.wait(0.03):
            broker.send(HEARTBEATS, {**heartbeat_of("n0001"), "interval_seconds": 0.2})

    beating = threading.Thread(target=heartbeat)
    beating.start()
    try:
        waits(lambda: node("n0000").phase == "offline")
    finally:
        stop.set()
        beating.join()


def test_no_node_is_silent_in_the_first_three_intervals(broker):
    (name,) = fleet(1)
    silence(name)
    declare_silent_nodes(89.0)
    assert node(name).phase == "online"
    declare_silent_nodes(91.0)
    assert node(name).phase == "offline"


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_was_set_makes_no_node_silent(broker, monkeypatch, hours):
    """Each node has the time of three intervals to be heard again."""
    (name,) = fleet(1)
    clock, right = offline_nodes.EvenClock(), database_now
    monkeypatch.setattr(offline_nodes, "clock", clock)
    declare_silent_nodes(1000.0)
    monkeypatch.setattr(offline_nodes, "database_now", lambda: right() + timedelta(hours=hours))
    for _ in range(2):
        declare_silent_nodes(1000.0)
        assert node(name).phase == "online"
    monkeypatch.setattr(clock, "_since", time.monotonic() - 1000)
    declare_silent_nodes(1000.0)
    assert node(name).phase == ("offline" if hours > 0 else "online")


def test_after_a_broker_was_stuck_silence_starts_again(broker, consuming, waits, monkeypatch):
    monkeypatch.setattr(consumer, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(consumer, "ANSWER_SECONDS", 0.3)
    looks: list[float] = []
    consuming(HEARTBEATS, consumer.record_heartbeats, idle=looks.append)
    waits(lambda: looks and looks[-1] > 2 * consumer.ANSWER_SECONDS)
    broker.process.send_signal(signal.SIGSTOP)
    hung_at = time.monotonic()
    waits(lambda: time.monotonic() > hung_at + 4 * consumer.ANSWER_SECONDS)
    before = len(looks)
    broker.process.send_signal(signal.SIGCONT)
    waits(lambda: len(looks) > before)
    assert looks[before] < consumer.ANSWER_SECONDS


def test_while_the_broker_is_full_silence_says_nothing(broker, consuming, waits, monkeypatch):
    """It refuses what is as large as a heartbeat, and still answers: there is room for small commands."""
    monkeypatch.setattr(consumer, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(consumer, "PROBE_BYTES", 4_000_000)
    looks: list[float] = []
    consuming(HEARTBEATS, consumer.record_heartbeats, idle=looks.append)
    waits(lambda: looks and looks[-1] > 0.5)
    with broker.client() as client:
        room = client.info("memory")["used_memory"] + consumer.PROBE_BYTES // 2
        client.config_set("maxmemory", room)
        waits(lambda: looks[-1] == 0.0)
        assert client.set("small", "x"), "there is room for it"
        client.config_set("maxmemory", 0)
        assert not client.exists(consumer.PROBE)
    waits(lambda: looks[-1] > 0.5)


def test_the_queue_of_a_silent_node_is_emptied_and_its_operation_given_back(broker):
    (name,) = fleet(1)
    uid = start()
    publish_due()
    assert broker.waiting(queue_for(name)) == 1
    silence(name)
    declare_silent_nodes(1000.0)
    assert (broker.waiting(queue_for(name)), phases(uid)) == (0, {name: "scheduled"})


def test_silence_is_judged_without_a_broker(dead_broker, caplog):
    (name,) = fleet(1)
    silence(name)
    declare_silent_nodes(1000.0)
    assert node(name).phase == "offline"
    assert "not purged" in caplog.text


def test_late_phases_do_no_harm(broker, consuming, waits):
    (name,) = fleet(1)
    uid = start()
    consuming(REPORTS, consumer.record_reports)
    broker.send(REPORTS, *[report_of(uid, name, phase) for phase in (Phase.SUCCEEDED, Phase.FETCHING, Phase.FAILED)])
    waits(lambda: rollout(uid).phase == "succeeded")
