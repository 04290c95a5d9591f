"""The database's clock ran eleven hours ahead for some time, and was set back: no wait lasts until it has caught up."""

from datetime import timedelta

import pytest
from django.db import models

from eventstore import database_now, position_at, read, registered_types
from eventstore.clock import ClockSetBack
from eventstore.verification import verify
from rollout.delivery import ingestion
from rollout.management.commands.relay import run_once
from rollout.messages import Phase, Reason
from rollout.models import Liveness, NodeFacts, Operation, Rollout, ShardMember
from rollout.process import clock, timeouts
from rollout.process.advance import advance
from rollout.projections.deadlines import BEGINS_SECONDS
from rollout.queries.turns import in_progress
from rollout.services.freeze import freeze_fleet, thaw_fleet
from tests.recorded_fleet import differences, fleet, heartbeat_of, installed, operation, phases, rollout, say, start

pytestmark = pytest.mark.django_db
AHEAD = 11 * 3600.0


@pytest.fixture
def sent(monkeypatch):
    monkeypatch.setattr("rollout.delivery.outbox._send", lambda *_, **__: None)


def times_in_the_future():
    """Table and column of each time that is later than now."""
    now = database_now()
    return {
        f"{table.__name__}.{column.name}"
        for table in (Rollout, Operation, Liveness, NodeFacts, ShardMember)
        for column in table._meta.concrete_fields
        if isinstance(column, models.DateTimeField)
        and table._base_manager.filter(**{f"{column.name}__gt": now}).exists()
    }


def test_an_operation_in_progress(set_clock, sent):
    """Its deadline is as far from now as if it were released now. After that, its node may be at it for no longer than always."""
    set_clock(AHEAD)
    fleet(1)
    uid = start(deadline=300.0)
    assert operation(uid, "n0000").phase == Phase.QUEUED
    set_clock(0)
    run_once()
    assert times_in_the_future() == {"Operation.deadline_at"}
    until = operation(uid, "n0000").deadline_at
    assert until is not None
    assert until <= database_now() + timedelta(seconds=300)
    assert differences() == {}
    set_clock(301)
    timeouts.end_overdue_operations()
    assert (operation(uid, "n0000").phase, operation(uid, "n0000").reason) == (Phase.TIMED_OUT, Reason.NODE_DEADLINE)
    set_clock(302 + 300 + BEGINS_SECONDS)
    assert not Operation.objects.filter(in_progress(database_now())).exists()


def test_an_operation_that_its_node_may_still_be_at(set_clock, sent):
    """It had no answer when the clock was ahead: its shard waits for it, and not for eleven hours."""
    set_clock(AHEAD)
    fleet(1)
    uid = start(deadline=300.0)
    set_clock(AHEAD + 301)
    timeouts.end_overdue_operations()
    assert operation(uid, "n0000").may_run_until is not None
    set_clock(0)
    clock.follow()
    assert times_in_the_future() == {"Operation.may_run_until"}
    assert Operation.objects.filter(in_progress(database_now())).exists()
    set_clock(300 + BEGINS_SECONDS + 1)
    assert not Operation.objects.filter(in_progress(database_now())).exists()
    assert differences() == {}


def test_a_wait_that_began_before_is_not_longer(set_clock, sent):
    fleet(1)
    uid = start(deadline=300.0)
    before = operation(uid, "n0000").deadline_at
    set_clock(AHEAD)
    freeze_fleet("a look")
    thaw_fleet()
    set_clock(0)
    run_once()
    assert operation(uid, "n0000").deadline_at == before


def test_a_soak_begins_again(set_clock, sent):
    set_clock(AHEAD)
    fleet(1)
    uid = start(careful={"canary": 0, "soak_seconds": 60.0})
    say(uid, "n0000")
    ingestion.record_heartbeats([heartbeat_of("n0000", modules=[installed()])])
    advance(uid)
    assert rollout(uid).waves[0]["phase"] == "soaking"
    set_clock(0)
    run_once()
    run_once()
    assert rollout(uid).phase == "running"
    set_clock(61)
    run_once()
    assert rollout(uid).phase == "succeeded"
    assert differences() == {}


def test_what_begins_after_it_has_the_right_times(set_clock, sent):
    """Without a set clock in between: events before the relay's look have the newest time, and then the clock's."""
    set_clock(AHEAD)
    fleet(2)
    first = start(max_parallel=1, deadline=300.0)
    set_clock(0)
    say(first, "n0000")  # before the relay's look
    assert "Operation.finished_at" in times_in_the_future()
    run_once()
    advance(first)
    assert phases(first) == {"n0000": Phase.SUCCEEDED, "n0001": Phase.QUEUED}
    assert times_in_the_future() == {"Operation.deadline_at"}
    say(first, "n0001")
    assert times_in_the_future() == set()
    assert rollout(first).phase == "succeeded"
    assert rollout(first).created_at.isoformat()[:19] in rollout(first).document
    assert differences() == {}


def test_silence_and_facts_of_nodes(set_clock, sent):
    fleet(1)
    set_clock(AHEAD)
    ingestion.record_heartbeats([heartbeat_of("n0000")])
    assert Liveness.objects.get().last_seen > database_now() - timedelta(seconds=60)
    start()
    set_clock(0)
    run_once()
    assert Liveness.objects.get().last_seen <= database_now()


def test_it_is_recorded_once_and_the_log_stays_in_order(set_clock, sent):
    set_clock(AHEAD)
    fleet(1)
    start()
    set_clock(0)
    for _ in range(3):
        run_once()
    (found,) = read(event_classes=[ClockSetBack])
    assert abs(found.event.seconds - AHEAD) < 60
    assert found.recorded_at <= database_now()
    assert found.actor == "system:clock"
    events = [*read()]
    before = [each.recorded_at for each in events if each.position < found.position]
    after = [each.recorded_at for each in events if each.position >= found.position]
    assert before == sorted(before)
    assert after == sorted(after)
    assert verify() == len(events)
    set_clock(AHEAD + 60)
    assert position_at(database_now()) == events[-1].position


def test_again_while_the_first_time_has_not_come_back(set_clock, sent):
    set_clock(AHEAD)
    fleet(2)
    start(deadline=300.0)
    set_clock(0)
    run_once()
    set_clock(3600)
    freeze_fleet("a look")
    set_clock(0)
    run_once()
    assert len([*read(event_classes=[ClockSetBack])]) == 2
    assert differences() == {}


def test_a_few_seconds_are_no_event(set_clock, sent):
    fleet(1)
    set_clock(4)
    start()
    set_clock(0)
    clock.follow()
    assert [*read(event_classes=[ClockSetBack])] == []
    assert "clock.set_back.v1" in registered_types()
