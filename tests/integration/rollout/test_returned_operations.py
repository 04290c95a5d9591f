"""Operations that agents return, because the server is not as the command expects."""

from datetime import timedelta

import pytest
from django.db.models import F

from eventstore import database_now, head
from rollout.messages import Activation, Phase, Reason
from rollout.models import Liveness, Operation, Rollout
from rollout.process.advance import advance
from rollout.queries.explanations import of_node, of_rollout
from tests.integration.rollout.shard_of_four import ALL_AT_ONCE, STATES, shard
from tests.recorded_fleet import (
    differences,
    join,
    operation,
    phases,
    rollout,
    start,
    upload,
)
from tests.recorded_fleet import say as answer
from tests.recorded_shards import beat, say

pytestmark = [pytest.mark.django_db, pytest.mark.dialect]


def test_a_returned_operation_counts_no_failure_and_is_released_again_after_a_heartbeat():
    shard()
    uid = start(careful={"max_failures": 0})
    assert operation(uid, "n2").expects == {"role": "replica", "master": "a:1", "replicas": []}
    answer(uid, "n2", Phase.SCHEDULED, reason=Reason.ROLE_CHANGED, message="It is a master now.", release=1)
    row = operation(uid, "n2")
    assert (row.phase, row.reason, row.message) == ("scheduled", "role_changed", "It is a master now.")
    assert (row.releases, row.attempt, rollout(uid).phase) == (1, 1, "running")
    say(beat("n2", STATES["n2"]))
    advance(uid)
    row = operation(uid, "n2")
    assert (row.phase, row.releases, row.reason) == ("queued", 2, "")
    answer(uid, "n2", Phase.SCHEDULED, reason=Reason.ROLE_CHANGED, release=1)  # it arrives again
    answer(uid, "n2", Phase.FETCHING, release=1)
    assert operation(uid, "n2").phase == "queued"
    answer(uid, "n2", Phase.FETCHING, release=2)
    assert operation(uid, "n2").phase == "fetching"
    assert differences() == {}


def test_a_server_that_is_ready_only_by_its_heartbeats_is_skipped_in_the_end():
    """Each release is returned at once, and a heartbeat comes every 10 s. Without a pause, that was 18 events each minute."""
    upload()
    join("n1")
    uid = start(released=False, careful=ALL_AT_ONCE | {"ready_deadline_seconds": 600.0})
    before, seconds = head(), 0
    while phases(uid)["n1"] != "skipped" and seconds < 3600:
        advance(uid)
        if (row := operation(uid, "n1")).phase == "queued":
            why = "The server is loading its data."
            answer(uid, "n1", Phase.SCHEDULED, reason=Reason.SERVER_NOT_READY, message=why, release=row.releases)
        for model, columns in (
            (Operation, ("returned_at", "waiting_since", "wait_noted_at")),
            (Rollout, ("progressed_at",)),
        ):
            model.objects.update(**{each: F(each) - timedelta(seconds=30) for each in columns})
        seconds += 30
        say(beat("n1"))
    row = operation(uid, "n1")
    assert (row.phase, row.reason, rollout(uid).phase) == ("skipped", "server_not_ready", "succeeded")
    assert "The agent has returned each of" in row.message
    assert 600 <= seconds <= 600 + 330
    assert head() - before < 30


def test_a_rollout_says_why_a_release_was_returned():
    upload()
    join("n1")
    uid = start(careful=ALL_AT_ONCE)
    said = "The server is loading its data."
    for release in (1, 2):
        answer(uid, "n1", Phase.SCHEDULED, reason=Reason.SERVER_NOT_READY, message=said, release=release)
        say(beat("n1"))
        advance(uid)
    assert operation(uid, "n1").phase == "scheduled"
    assert f"because its agent has returned the last one: {said}" in of_rollout(uid).document["summary"]


def test_only_a_heartbeat_counts_after_a_return():
    upload("other")
    shard()
    uid = start(careful={"max_failures": 0})
    other = start(module_name="other", nodes=("n2",), activation=Activation.FILES, careful=ALL_AT_ONCE)
    answer(uid, "n2", Phase.SCHEDULED, reason=Reason.ROLE_CHANGED, release=1)
    answer(other, "n2", module_name="other")
    advance(uid)
    assert (operation(uid, "n2").phase, of_node(uid, "n2").document["rule"]["id"]) == ("scheduled", "heartbeat")
    say(beat("n2", STATES["n2"]))
    advance(uid)
    assert operation(uid, "n2").phase == "queued"


def test_a_report_makes_no_old_facts_fresh():
    shard()
    upload("other")
    other = start(module_name="other", nodes=("n2",), activation=Activation.FILES, careful=ALL_AT_ONCE)
    Liveness.objects.update(facts_at=database_now() - timedelta(seconds=60))
    answer(other, "n2", module_name="other")
    uid = start(nodes=("n2",), careful=ALL_AT_ONCE)
    assert phases(uid) == {"n2": "scheduled"}


def test_what_is_said_before_a_return_and_arrives_after_it():
    shard()
    uid = start(careful={"max_failures": 0})
    answer(uid, "n2", Phase.SCHEDULED, reason=Reason.BACKUP_RUNNING, release=1)
    answer(uid, "n2", Phase.FETCHING, release=1)
    assert operation(uid, "n2").phase == "scheduled"


def test_a_return_without_its_reason_is_rejected():
    shard()
    uid = start(careful={"max_failures": 0})
    answer(uid, "n2", Phase.SCHEDULED, reason=Reason.DISK_FULL)
    assert operation(uid, "n2").phase == "queued"
