"""Threads that answer requests, and the database."""

import gc
import threading

import pytest
from django.db import connection

from api import threads
from api.threads import Threads
from tests.waiting import PATIENCE


@pytest.fixture
def no_garbage_collection():
    gc.disable()
    yield
    gc.enable()


def test_a_thread_that_ends_closes_its_connection(committed_db, monkeypatch, no_garbage_collection):
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.05)
    used, thread = [], []

    def ask():
        connection.ensure_connection()
        used.append(connection.connection)
        thread.append(threading.current_thread())
        done.set()

    done = threading.Event()
    Threads(1, "test").submit(ask)
    assert done.wait(PATIENCE)
    thread[0].join(PATIENCE)
    with pytest.raises(Exception, match="closed"):
        used[0].cursor()
