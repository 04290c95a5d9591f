"""`/healthz` and `/readyz`: what they say to anybody, and what they cost."""

import shutil
import signal
import socket
import time
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connections
from django.test import Client

from eventstore import database_now
from operations import health, relay_heartbeat
from operations.models import Heartbeat
from rollout.projections.nodes import NodeProjection
from rollout.reconciliation.reconciler import Reconciler
from tests.recorded_fleet import upload
from tests.waiting import PATIENCE

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def unknown(monkeypatch):
    """Nothing is known from the tests before."""
    monkeypatch.setattr(health, "CHECKS", tuple(health.Check(each.name, each._probe) for each in health.CHECKS))


def record_heartbeat(seconds_ago=0.0):
    moment = database_now() - timedelta(seconds=seconds_ago)
    Heartbeat.objects.update_or_create(name=relay_heartbeat.RELAY, defaults={"looked_at": moment, "position": 0})


def ready(status=200):
    response = Client().get("/readyz")
    assert response.status_code == status, response.content
    assert response["Cache-Control"] == "no-store"
    return response.json()


def not_ok(document):
    return {name for name, word in document["checks"].items() if word == "not ok"}


@pytest.fixture
def well(committed_db, broker, storage):
    record_heartbeat()


def test_all_is_well(well):
    words = dict.fromkeys(("database", "broker", "storage", "relay"), "ok")
    assert ready() == {"status": "ok", "checks": words, "causes": {}}


def test_rows_that_wait_for_their_rebuild_are_a_warning(well, monkeypatch):
    """After an upgrade. The process stays in service, and the reconciler starts nothing."""
    monkeypatch.setattr(NodeProjection, "version", NodeProjection.version + 1)
    (warning,) = ready()["warnings"]
    assert warning.endswith("wrong answers until then: nodes. Run: rebuild_projections")
    reconciler = Reconciler()
    reconciler.poll()
    assert reconciler._seen is None

    call_command("rebuild_projections", stdout=StringIO())
    monkeypatch.setattr(health, "CHECKS", tuple(health.Check(each.name, each._probe) for each in health.CHECKS))
    assert "warnings" not in ready()
    reconciler._not_before = 0.0
    reconciler.poll()
    assert reconciler._seen is not None


def test_a_broker_that_is_stopped(well, broker):
    broker.kill()
    document = ready(503)
    assert document["status"] == "not ok"
    assert not_ok(document) == {"broker"}
    assert document["causes"] == {"broker": "unreachable"}


def test_a_broker_that_hangs_is_not_waited_for(well, broker, monkeypatch):
    monkeypatch.setattr("operations.broker.STEP_SECONDS", 3600)
    monkeypatch.setattr("operations.broker.TOTAL_SECONDS", 3600)
    broker.process.send_signal(signal.SIGSTOP)
    assert not_ok(ready(503)) == {"broker"}
    broker.process.send_signal(signal.SIGCONT)


def test_a_storage_directory_that_was_removed(well, storage):
    upload()
    (storage / "greet").mkdir(parents=True)
    (storage / "greet" / "1").write_bytes(b"package")
    health.probe_storage()
    shutil.rmtree(storage)
    assert not_ok(ready(503)) == {"storage"}


def test_a_storage_that_is_not_a_directory(well, storage):
    storage.write_text("a file")
    assert not_ok(ready(503)) == {"storage"}


@pytest.mark.parametrize(("seconds", "status"), [(10, 200), (health.RELAY_LATE_SECONDS + 5, 503)])
def test_a_relay_that_lags(well, seconds, status):
    record_heartbeat(seconds)
    assert not_ok(ready(status)) == (set() if status == 200 else {"relay"})


def test_a_relay_that_never_was(well):
    Heartbeat.objects.all().delete()
    assert not_ok(ready(503)) == {"relay"}


@contextmanager
def silent_database():
    """A server that takes connections and never says a word, in place of the database."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = connections["default"].settings_dict
        former = dict(settings)
        settings.update(
            ENGINE="django.db.backends.postgresql",
            NAME="modfleet",
            HOST="127.0.0.1",
            PORT=listener.getsockname()[1],
            OPTIONS={},
        )
        try:
            yield
        finally:
            settings.clear()
            settings.update(former)


def test_a_database_that_does_not_answer(well, monkeypatch):
    monkeypatch.setattr(health, "CHECK_SECONDS", 0.5)
    with silent_database():
        assert not_ok(ready(503)) == {"database", "storage", "relay"}
        ready(503)  # the checks that hang are not started again
        assert sum(each._running is not None for each in health.CHECKS) == 3
        assert Client().get("/healthz").status_code == 200
    for each in health.CHECKS:
        if each._running is not None:
            each._running.join(timeout=PATIENCE)


def test_what_an_outsider_asks_again_and_again_is_looked_at_once_a_second(well):
    asked = []
    counting = health.Check("database", lambda: asked.append(1))
    for _ in range(50):
        counting.start()
        assert counting.cause(until=time.monotonic() + 5) == ""
    assert len(asked) == 1


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_only_get_and_head(well, path):
    assert Client().head(path).status_code == 200
    assert Client().head(path).content == b""
    response = Client().post(path)
    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")


def test_the_process_lives_whatever_is_down(dead_broker, django_assert_num_queries, db):
    with django_assert_num_queries(0):
        response = Client(HTTP_COOKIE="sessionid=" + "x" * 32).get("/healthz", HTTP_HOST="10.0.0.7")
    assert response.json() == {"status": "ok"}
