"""The step of the control worker, in a worker of its own."""

import os
import subprocess
import sys
from typing import Any

import pytest
from django.db import OperationalError, connection

from tests.integration.webhooks.conftest import join, register
from webhooks import deliver
from webhooks.models import Webhook
from webhooks.worker import Deliverer


@pytest.fixture
def worker(committed_db, tmp_path):
    """A control worker whose broker is not there."""
    environment = {**os.environ, "MODFLEET_BROKER_URL": f"redis+socket://{tmp_path}/nobody"}
    words = [sys.executable, "-m", "celery", "-A", "config", "worker", "--loglevel", "WARNING"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    yield process
    process.kill()
    process.wait()


@pytest.mark.slow
def test_webhooks_are_delivered_while_the_broker_is_away(worker, receiver, waits):
    there = receiver()
    uid = register(there.url, "node.")
    join("a")
    waits(lambda: there.nodes == ["a"])
    waits(lambda: Webhook.objects.get(uid=uid).lease is None)


def test_it_goes_on_after_the_database_was_away(committed_db, receiver, delivering, waits, monkeypatch, caplog):
    monkeypatch.setattr("webhooks.worker.SWEEP_SECONDS", 0.05)
    there, claim_due, failures = receiver(), deliver.claim_due, iter(range(3))
    driver: Any = connection  # the stubs do not know `Database`

    def away(**options):
        if next(failures, None) is not None:
            raise driver.Database.OperationalError("away")
        return claim_due(**options)

    monkeypatch.setattr(deliver, "claim_due", away)
    register(there.url)
    join("a")
    delivering()
    waits(lambda: there.nodes == ["a"])
    assert caplog.text.count("looked at again") == 3


def test_what_was_delivered_is_noted_when_the_database_is_back(committed_db, receiver, delivering, waits, monkeypatch):
    """At once, and not when the lease ends; nothing is delivered twice."""
    monkeypatch.setattr("webhooks.worker.SWEEP_SECONDS", 0.05)
    there, held, failures = receiver(), deliver._held, iter(range(3))

    def away(claim):
        if next(failures, None) is not None:
            raise OperationalError("away")
        return held(claim)

    monkeypatch.setattr(deliver, "_held", away)
    uid = register(there.url, "node.")
    join("a")
    delivering()
    waits(lambda: Webhook.objects.get(uid=uid).last_delivered_at)
    join("b")
    waits(lambda: there.nodes == ["a", "b"])


def test_nothing_is_asked_of_a_log_that_nobody_wants(committed_db, monkeypatch, waits):
    looked = []
    claim_due = deliver.claim_due
    monkeypatch.setattr("webhooks.worker.SWEEP_SECONDS", 0.01)
    monkeypatch.setattr("webhooks.worker.wait_for_growth", lambda *_, **__: pytest.fail("nobody waits for growth"))

    def claim(**options):
        looked.append(claim_due(**options))
        return looked[-1]

    monkeypatch.setattr(deliver, "claim_due", claim)
    thread = Deliverer()
    thread.start()
    waits(lambda: len(looked) == 3)
    thread.stop()
    assert not any(each.is_any_enabled for each in looked)
