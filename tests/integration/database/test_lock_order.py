"""Rows of one table are locked in one order, so that two processes never wait for each other."""

import threading
from contextlib import contextmanager
from datetime import timedelta

import psycopg
import pytest
from django.db import connection

from api.idempotency import KEPT, sweep_idempotency_records
from api.models import IdempotencyRecord
from eventstore import database_now
from rollout.delivery import ingestion, outbox
from rollout.delivery.ingestion import heartbeats
from rollout.models import Dispatch, Liveness
from tests.plugins.databases import at_once
from tests.recorded_fleet import fleet, heartbeat_of, join, start
from tests.waiting import PATIENCE, wait_for
from webhooks import deliver, services
from webhooks.models import Webhook

pytestmark = [pytest.mark.dialect, pytest.mark.usefixtures("on_postgresql")]


@pytest.fixture
def on_postgresql(committed_db):
    """The URL. SQLite has one writer, and locks no rows."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite locks no rows")
    return committed_db


@contextmanager
def locked(url, table, column, *keys):
    """Another process holds these rows; they are free when the block ends."""
    with psycopg.connect(url) as other:
        other.execute(f"SELECT 1 FROM {table} WHERE {column} = ANY(%s) FOR UPDATE", [list(keys)])
        yield


def waiting(url):
    """How many connections wait for a lock."""
    with psycopg.connect(url) as other:
        found = other.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone()
    assert found
    return found[0]


def collide(url, table, column, keys, *functions):
    """Call the functions at once. While `keys` are locked each comes as far as it can, and takes its first rows."""
    ended = []

    def counted(function):
        try:
            return function()
        finally:
            ended.append(function)

    def hold():
        with locked(url, table, column, *keys):
            held.append(True)
            wait_for(lambda: waiting(url) + len(ended) >= len(functions))

    held: list[bool] = []

    def after_hold(function):
        wait_for(lambda: held)
        return counted(function)

    at_once(hold, *(lambda function=function: after_hold(function) for function in functions))


@contextmanager
def planned_by(*, index):
    """The planner goes by the index, or by the rows as they lie on the disk."""
    connection.ensure_connection()
    with connection.cursor() as cursor:
        cursor.execute(f"SET enable_indexscan = {'on' if index else 'off'}")
        cursor.execute(f"SET enable_seqscan = {'off' if index else 'on'}")
        cursor.execute("SET enable_bitmapscan = off")
    yield


def either_way(function):
    """The function twice: with the planner going by the index, and by the rows as they lie."""

    def by(index):
        def run():
            with planned_by(index=index):
                return function()

        return run

    return by(index=True), by(index=False)


def test_hellos_and_heartbeats_of_the_same_nodes(on_postgresql):
    join("0a", "0b", "a", "z")
    first = [heartbeat_of("z", hello=True), heartbeat_of("0a"), heartbeat_of("a")]
    second = [heartbeat_of("a", hello=True), heartbeat_of("0b"), heartbeat_of("z")]
    collide(
        on_postgresql,
        "rollout_liveness",
        "node",
        ["0a", "0b"],
        lambda: ingestion.record_heartbeats(first),
        lambda: ingestion.record_heartbeats(second),
    )
    assert Liveness.objects.filter(hello_at__isnull=False).count() == 4


def test_nodes_whose_rows_were_lost(on_postgresql, monkeypatch):
    """Each worker has a hello of one node and a heartbeat of the other, and makes the rows of both."""
    join("a", "z")
    Liveness.objects.all().delete()
    met, here, life = threading.Barrier(2), threading.local(), heartbeats._row

    def life_of(heartbeat, order):
        if not (heartbeat.hello or hasattr(here, "has_met")):
            here.has_met = True
            met.wait(PATIENCE)
        return life(heartbeat, order)

    monkeypatch.setattr(heartbeats, "_row", life_of)
    first = [heartbeat_of("z", hello=True), heartbeat_of("a")]
    second = [heartbeat_of("a", hello=True), heartbeat_of("z")]
    at_once(lambda: ingestion.record_heartbeats(first), lambda: ingestion.record_heartbeats(second))
    assert Liveness.objects.filter(hello_at__isnull=False).count() == 2


def rewrite(model, keys):
    """The rows lie on the disk in the order of `keys`."""
    rows = {row.pk: row for row in model.objects.filter(pk__in=keys)}
    model.objects.filter(pk__in=keys).delete()
    for key in keys:
        model.objects.bulk_create([rows[key]])


def test_two_relays_claim_the_same_commands(on_postgresql, monkeypatch):
    names = fleet(5)
    uid = start()
    keys = [f"{uid}:{name}" for name in names]
    Dispatch.objects.bulk_create(Dispatch(operation=key) for key in reversed(keys))
    met = threading.Barrier(2)

    def claim_of(*fields):
        met.wait(PATIENCE)
        return dispatch_claim(*fields)

    dispatch_claim = outbox._Claim
    monkeypatch.setattr(outbox, "_Claim", claim_of)
    collide(on_postgresql, "rollout_dispatch", "operation", [keys[2]], *either_way(outbox._claim))
    assert Dispatch.objects.exclude(lease=None).count() == 4


def test_who_sweeps_the_outbox_waits_for_nobody(on_postgresql):
    for key in "amz":
        Dispatch.objects.create(operation=key)
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '1s'")
    with locked(on_postgresql, "rollout_dispatch", "operation", "m"):
        outbox.forget_finished()
    assert list(Dispatch.objects.values_list("operation", flat=True)) == ["m"]


def test_two_workers_move_the_cursors_of_webhooks(on_postgresql):
    uids = sorted(
        services.register_webhook(url="http://127.0.0.1:9/", types=("operation.",), enabled=True, secret=None).uid
        for _ in range(5)
    )
    rewrite(Webhook, uids[::-1])
    join("n1")
    looks = either_way(lambda: deliver.claim_due(busy=(), most=9))
    collide(on_postgresql, "webhooks_webhook", "uid", [uids[2]], *looks)


def test_two_sweeps_of_answers(on_postgresql):
    IdempotencyRecord.objects.bulk_create(
        IdempotencyRecord(
            user_id=1,
            route="/",
            key=str(number),
            digest="d",
            status=202,
            body="{}",
            headers={},
            created_at=database_now() - KEPT - timedelta(seconds=1 + number),
        )
        for number in range(5)
    )
    middle = IdempotencyRecord.objects.get(key="2").pk
    collide(on_postgresql, "api_idempotencyrecord", "id", [middle], *either_way(sweep_idempotency_records))
    sweep_idempotency_records()
    assert not IdempotencyRecord.objects.exists()
