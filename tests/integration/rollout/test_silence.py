"""Many nodes that go silent at once: a bounded number of appends, one broker connection, and heartbeats in between."""

import pytest
from celery import current_app
from django.db import connection
from django.test.utils import CaptureQueriesContext

from eventstore import read
from rollout.delivery import consumer, ingestion
from rollout.delivery.consumer import BatchConsumer, declare_silent_nodes
from rollout.delivery.outbox import publish_due
from rollout.domain.node.events import NodeWentOffline
from rollout.domain.placement.events import OperationGivenBack
from rollout.messages import HEARTBEATS, queue_for
from rollout.models import Node
from rollout.process import offline_nodes
from tests.integration.rollout.test_consumer import consuming
from tests.recorded_fleet import differences, fleet, heartbeat_of, node, phases, silence, start

__all__ = ["consuming"]


def went_offline():
    return [each.event.node for each in read(event_classes=[NodeWentOffline])]


def appends_of(queries):
    return sum("INSERT INTO eventstore_event" in each["sql"] for each in queries)


@pytest.mark.django_db
@pytest.mark.slow
def test_a_thousand_silent_nodes_cost_one_append_and_the_same_queries_for_each_batch(dead_broker):
    names = fleet(1000)
    silence(*names)
    batches = []
    is_behind = True
    while is_behind:
        with CaptureQueriesContext(connection) as queries:
            is_behind = declare_silent_nodes(1000.0)
        batches.append((appends_of(queries), len(queries)))
    *full, (none, _) = batches
    assert len(full) == 1000 / offline_nodes.DECLARED_AT_ONCE
    assert {appends for appends, _ in full} == {1}
    assert max(count for _, count in full) < 25
    assert none == 0
    assert went_offline() == names
    assert differences() == {}


@pytest.mark.django_db
@pytest.mark.parametrize("count", [2, 20])
def test_a_batch_costs_the_same_for_any_number_of_nodes_with_operations(dead_broker, count):
    names = fleet(count)
    uid = start(max_parallel=count)
    silence(*names)
    with CaptureQueriesContext(connection) as queries:
        silent = offline_nodes.declare_silent_nodes_offline()
    assert silent == names
    assert set(phases(uid).values()) == {"scheduled"}
    assert len(queries) < 50
    assert appends_of(queries) == 1


@pytest.mark.django_db
def test_each_node_is_followed_by_what_it_gives_back():
    fleet(2)
    start()
    silence("n0000", "n0001")
    offline_nodes.declare_silent_nodes_offline()
    told = [
        (type(each.event).__name__, each.event.node)
        for each in read(event_classes=[NodeWentOffline, OperationGivenBack])
    ]
    assert told == [
        ("NodeWentOffline", "n0000"),
        ("OperationGivenBack", "n0000"),
        ("NodeWentOffline", "n0001"),
        ("OperationGivenBack", "n0001"),
    ]


@pytest.mark.django_db
def test_who_is_heard_while_it_is_judged_stays_online(meanwhile):
    fleet(2)
    silence("n0000", "n0001")
    meanwhile(offline_nodes, lambda: ingestion.record_heartbeats([heartbeat_of("n0001", server="redis")]))
    assert offline_nodes.declare_silent_nodes_offline() == ["n0000"]
    assert node("n0001").phase == "online"


@pytest.mark.django_db
def test_all_queues_are_purged_over_one_connection(broker, monkeypatch):
    monkeypatch.setattr(offline_nodes, "DECLARED_AT_ONCE", 10)
    names = fleet(40)
    start(max_parallel=40)
    publish_due()
    silence(*names)
    with broker.client() as client:
        before = client.info("stats")["total_connections_received"]
        while declare_silent_nodes(1000.0):
            pass
        opened = client.info("stats")["total_connections_received"] - before
    assert opened <= 1
    assert [broker.waiting(queue_for(name)) for name in names] == [0] * 40


@pytest.mark.usefixtures("committed_db")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_heartbeats_that_wait_are_taken_in_before_the_next_batch(broker, consuming, waits, monkeypatch):
    monkeypatch.setattr(offline_nodes, "DECLARED_AT_ONCE", 2)
    names = fleet(6)
    silence(*names)

    def judge(heard_seconds):
        is_behind = declare_silent_nodes(1000.0)
        broker.send(HEARTBEATS, *[heartbeat_of(name) for name in names[2:5]])
        return is_behind

    consuming(HEARTBEATS, consumer.record_heartbeats, idle=judge)
    waits(lambda: not Node.objects.filter(name=names[5], online=True).exists())
    assert went_offline() == [names[0], names[1], names[5]]


@pytest.mark.usefixtures("committed_db")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_no_node_is_silent_while_a_heartbeat_waits(broker, waits, monkeypatch):
    """However slow the broker is: here a read that ends without a message says nothing of the queue."""
    monkeypatch.setattr(consumer, "IDLE_SECONDS", 0.01)
    names = fleet(2)
    silence(*names)
    thread = BatchConsumer(
        current_app, HEARTBEATS, consumer.record_heartbeats, idle=lambda _: declare_silent_nodes(1000.0)
    )
    collect = thread._collect
    before_judging = []

    def slow(broker_connection, seconds):
        before_judging.extend([seconds] if seconds == consumer.LINGER_SECONDS else [])
        return True if len(before_judging) < 3 else collect(broker_connection, seconds)

    monkeypatch.setattr(thread, "_collect", slow)
    broker.send(HEARTBEATS, heartbeat_of("n0001"))
    thread.start()
    try:
        waits(lambda: node("n0000").phase == "offline")
    finally:
        thread.stopping.set()
        thread.join()
    assert went_offline() == ["n0000"]
