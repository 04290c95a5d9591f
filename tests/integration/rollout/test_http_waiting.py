"""Requests that wait for a rollout, and its stream of events; with real commits."""

import threading
import time
from collections import Counter
from dataclasses import replace

import pytest
from django.db import connection, connections
from django.db.backends.signals import connection_created

from api import waiting
from api.slots import Slots
from eventstore import head, wait_for_news
from eventstore.waiting import Waiter, watcher
from rollout.api.views import documents
from rollout.api.views import stream as streaming
from rollout.messages import Action
from rollout.models import Rollout
from rollout.queries.nodes import node_row
from rollout.queries.rollouts import rollout_events, unfinished_rollouts_of
from rollout.services import local_node
from rollout.services.rollouts import pause_rollout, resume_rollout
from tests.integration.rollout.conftest import events
from tests.plugins.cast import client_of
from tests.recorded_fleet import fleet, join, say, start


@pytest.fixture
def committed(committed_db):
    """An admin's client on a database in which commits are real."""
    from django.test import override_settings

    from accounts import services as accounts
    from accounts.credentials import remembered
    from accounts.roles import Role

    remembered.clear()
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        user = accounts.create_user(
            name="alice", email="a@example.com", password="correct horse 1", role=Role.ADMIN, by=None
        )
        yield client_of(user)
    remembered.clear()


def later(function):
    def run():
        time.sleep(0.2)  # what is awaited must not have happened before
        function()
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_wait_ends_with_a_change(committed):
    fleet(1)
    uid = start()
    said = later(lambda: say(uid, "n0000"))
    assert committed.get(f"/v2/rollouts/{uid}?wait=30").json()["progress"]["succeeded"] == 1
    said.join()


def test_a_wait_ends_in_time_without_a_change(committed):
    fleet(1)
    uid = start()
    other = later(lambda: join("stranger"))
    before = time.monotonic()
    assert committed.get(f"/v2/rollouts/{uid}?wait=0.5").status_code == 200
    assert time.monotonic() - before >= 0.5
    other.join()


def test_a_wait_holds_no_connection(committed, monkeypatch):
    fleet(1)
    uid = start()
    held = []

    def look(*args, **more):
        watch = later(lambda: None)
        answer = wait_for_news(*args, **more)
        held.append(connection.connection is not None)
        watch.join()
        return answer

    monkeypatch.setattr(documents, "wait_for_news", look)
    committed.get(f"/v2/rollouts/{uid}?wait=0.3")
    assert held
    assert not any(held)


def test_a_stream_tells_every_event_once_over_interruptions(committed):
    fleet(3)
    uid = start()
    stream = events(committed.get(f"/v2/rollouts/{uid}/events"))
    first = [next(stream) for _ in range(3)]
    stream.close()

    def say_all():
        for number in range(3):
            say(uid, f"n000{number}")

    said = later(say_all)
    headers = {"Last-Event-ID": str(first[-1]["position"])}
    rest = list(events(committed.get(f"/v2/rollouts/{uid}/events", headers=headers)))
    said.join()
    whole = list(events(committed.get(f"/v2/rollouts/{uid}/events")))
    assert [*first, *rest] == whole
    assert (whole[0]["type"], whole[-1]["type"]) == ("rollout.started.v1", "rollout.finished.v1")
    assert len({each["position"] for each in whole}) == len(whole)


@pytest.mark.parametrize("lost", [True, False])
def test_a_stream_ends_when_a_backup_is_restored(committed, monkeypatch, lost):
    """Of a rollout that was started after the backup, and of one that had come further."""
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.1)
    fleet(1)
    uid = start()
    stream = streaming.event_stream(uid, 0)
    while "nothing new" not in next(stream):
        pass
    if lost:
        Rollout.objects.all().delete()
    monkeypatch.setattr(streaming, "head", lambda: 1)
    watcher._go_back_to(1)
    assert list(stream)[-1] == streaming.RESTORED


def test_a_stream_speaks_up_although_others_are_busy(committed, monkeypatch):
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.3)
    fleet(1)
    uid = start()
    answer = committed.get(f"/v2/rollouts/{uid}/events")
    stop = threading.Event()

    def busy():
        number = 0
        while not stop.wait(0.05):
            join(f"x{number}")
            number += 1
        connections.close_all()

    thread = threading.Thread(target=busy)
    thread.start()
    lines = iter(answer.streaming_content)
    try:
        while (line := next(lines)) != b": nothing new\n\n":
            assert line.startswith(b"id: ")
    finally:
        stop.set()
        thread.join()


def test_a_stream_reads_no_events_when_others_are_busy(committed, monkeypatch):
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.5)
    fleet(1)
    uid = start()
    read = []

    def read_one(*args, **more):
        read.append(1)
        return rollout_events(*args, **more)

    monkeypatch.setattr(streaming, "rollout_events", read_one)
    lines = iter(committed.get(f"/v2/rollouts/{uid}/events").streaming_content)
    next(lines)
    other = later(lambda: join("stranger"))
    next(lines)
    other.join()
    assert len(read) == 1


@pytest.fixture
def one_place(monkeypatch, settings):
    monkeypatch.setattr(waiting, "_slots", Slots())
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, waiting_requests_per_user=1)


def test_only_so_many_requests_of_a_user_wait(committed, one_place):
    fleet(1)
    uid = start()
    stream = committed.get(f"/v2/rollouts/{uid}/events")
    for path in (f"/v2/rollouts/{uid}?wait=30", f"/v2/rollouts/{uid}/events"):
        refused = committed.get(path)
        assert (refused.status_code, refused.json()["error_code"]) == (429, "too_many_requests")
        assert refused["Retry-After"] == "1"
    assert committed.get(f"/v2/rollouts/{uid}").status_code == 200
    stream.close()
    assert committed.get(f"/v2/rollouts/{uid}?wait=0.1").status_code == 200


def test_all_together_have_a_limit_too(committed, one_place, settings):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, waiting_requests_per_user=2, waiting_requests=1)
    fleet(1)
    uid = start()
    stream = committed.get(f"/v2/rollouts/{uid}/events")
    assert committed.get(f"/v2/rollouts/{uid}?wait=30").status_code == 429
    stream.close()
    assert committed.get(f"/v2/rollouts/{uid}?wait=0.1").status_code == 200


@pytest.fixture
def asked():
    """How many queries about rollouts, and about anything else, each thread has made: by its name."""
    counts: Counter[tuple[str, bool]] = Counter()

    def count(execute, sql, params, many, context):
        counts[threading.current_thread().name, "rollout_rollout" in sql] += 1
        return execute(sql, params, many, context)

    def watch(connection, **_):
        connection.execute_wrappers.append(count)

    connection_created.connect(watch)
    yield counts
    connection_created.disconnect(watch)


@pytest.fixture
def asleep(monkeypatch):
    """The requests that sleep, or have slept."""
    found, real = set(), Waiter.wait

    def wait(waiter, timeout):
        found.add(threading.current_thread().name)
        return real(waiter, timeout)

    monkeypatch.setattr(Waiter, "wait", wait)
    return found


SLEEPERS, EVENTS = 50, 200


@pytest.mark.parametrize("path", ["/v2/rollouts/{}?wait=60", "/v2/rollouts/{}/events"])
def test_requests_that_wait_ask_nothing_while_another_rollout_is_busy(committed, asked, asleep, waits, path):
    fleet(2)
    quiet, busy = start(nodes=("n0000",)), start(nodes=("n0001",))
    answers = []

    def wait():
        response = committed.get(path.format(quiet))
        answers.append(b"".join(response) if response.streaming else response.content)
        connections.close_all()

    sleepers = [threading.Thread(target=wait, name=f"sleeper-{number}") for number in range(SLEEPERS)]
    for each in sleepers:
        each.start()
    waits(lambda: len(asleep) == SLEEPERS)
    before, first = Counter(asked), head()
    for _ in range(EVENTS // 2):
        pause_rollout(busy)
        resume_rollout(busy)
    waits(lambda: watcher._position == head() == first + EVENTS)
    made = asked - before
    assert [name for name, _ in made if name.startswith("sleeper")] == []
    assert made["log-watcher", True] <= EVENTS + 1
    assert answers == []
    say(quiet, "n0000")
    for each in sleepers:
        each.join()
    assert len(answers) == SLEEPERS
    assert all(b"succeeded" in each for each in answers)


def test_a_local_call_asks_nothing_while_another_rollout_is_busy(committed_db, asked, asleep, waits):
    fleet(2)
    busy = start(nodes=("n0001",))
    request = local_node._request(Action.INSTALL, node_row("n0000"), "greet", 1)

    def install():
        try:
            local_node._carry_out(request, lambda _: start(nodes=("n0000",)))
        finally:
            connections.close_all()

    sleeper = threading.Thread(target=install, name="sleeper")
    sleeper.start()
    waits(lambda: asleep)
    before, first = Counter(asked), head()
    for _ in range(EVENTS // 2):
        pause_rollout(busy)
        resume_rollout(busy)
    waits(lambda: watcher._position == head() == first + EVENTS)
    assert [name for name, _ in asked - before if name == "sleeper"] == []
    (uid,) = unfinished_rollouts_of("n0000")
    say(uid, "n0000")
    sleeper.join()
