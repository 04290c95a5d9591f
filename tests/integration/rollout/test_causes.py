"""Each event knows who did it, at whose request, and what led to it."""

from random import Random

import pytest

from accounts.roles import Role
from eventstore import acting_as, head, load, read
from eventstore.registry import decode, encode, name_of
from rollout.delivery import ingestion
from rollout.domain.placement import decider
from rollout.domain.placement.events import placement_stream
from rollout.domain.placement.reports import record_report
from rollout.domain.rollout.events import Origin, RolloutStarted, rollout_stream
from rollout.messages import Phase
from rollout.models import Operation, Rollout
from rollout.process import offline_nodes, timeouts
from rollout.process.advance import advance_all
from rollout.queries.causes import cause_of
from rollout.services.freeze import freeze_fleet, thaw_fleet
from rollout.services.rollback import roll_back_rollout
from tests.causes import gaps
from tests.plugins.cast import client_of
from tests.random_run import RandomRun
from tests.recorded_fleet import (
    fleet,
    heartbeat_of,
    installed,
    inventory,
    join,
    overdue,
    report_of,
    say,
    silence,
    start,
    upload,
)

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

BODY = {"action": "install", "module_name": "greet", "version": 1}


def begin(admin, request_id, **more):
    response = admin.post("/v2/rollouts", BODY | more, format="json", headers={"X-Request-ID": request_id})
    assert response.status_code == 202
    advance_all([response.json()["uid"]])
    return response.json()["uid"]


def story(admin, request_id):
    return admin.get(f"/v2/events?correlation_id={request_id}&limit=1000").json()["results"]


def test_the_whole_story_of_a_request(admin):
    names = fleet(2)
    uid = begin(admin, "r-1")
    begin_other = admin.patch(f"/v2/nodes/{names[0]}", {"labels": {"a": "b"}}, format="json")
    assert begin_other.status_code == 200
    for name in names:
        say(uid, name, Phase.INSTALLING)
        say(uid, name, inventory=inventory(installed()))
    told = story(admin, "r-1")
    assert {(each["actor"], each["type"]) for each in told} == {
        ("alice", "rollout.started.v1"),
        ("alice", "operation.scheduled.v1"),
        ("system:relay", "rollout.wave_started.v1"),
        ("system:relay", "rollout.released.v1"),
        ("system:relay", "operation.released.v1"),
        *((f"node:{name}", f"operation.{what}.v1") for name in names for what in ("progressed", "finished")),
        *((f"node:{name}", "node.inventory_changed.v1") for name in names),
        ("system:relay", "rollout.wave_passed.v1"),
        ("system:relay", "rollout.finished.v1"),
    }
    assert {each["requested_by"] for each in told} == {"alice"}
    by_id = {each["event_id"]: each for each in told}
    (first,) = [each for each in told if not each["causation_id"]]
    assert first["type"] == "rollout.started.v1"
    causes = {(each["type"], by_id[each["causation_id"]]["type"]) for each in told if each is not first}
    assert ("operation.scheduled.v1", "rollout.started.v1") in causes
    assert ("operation.released.v1", "rollout.released.v1") in causes
    assert ("operation.progressed.v1", "operation.released.v1") in causes
    assert ("operation.finished.v1", "operation.progressed.v1") in causes


def test_two_nodes_in_one_batch_are_told_apart():
    names = fleet(2)
    uid = start()
    ingestion.record_reports([report_of(uid, name) for name in names])
    assert [load(placement_stream(name, "greet"))[-1].actor for name in names] == [f"node:{name}" for name in names]


def test_a_node_that_is_called_like_a_person_is_told_apart(admin):
    upload()
    join("alice")
    uid = begin(admin, "r-1")
    say(uid, "alice")
    by_alice, by_node = (
        {each["type"] for each in admin.get(f"/v2/events?actor={actor}").json()["results"]}
        for actor in ("alice", "node:alice")
    )
    assert by_alice == {"rollout.started.v1", "operation.scheduled.v1"}
    assert by_node == {"node.joined.v1", "operation.finished.v1"}


def test_a_message_of_a_node_cannot_choose_its_story():
    """What is asked of the cause of a report is the log, not the report."""
    names = fleet(1)
    with acting_as("user:alice", correlation_id="hers"):
        uid = start()
    body = report_of(uid, names[0]) | {"correlation_id": "other", "causation_id": "other", "actor": "user:mallory"}
    ingestion.record_reports([body])
    last = load(placement_stream(names[0], "greet"))[-1]
    assert (last.actor, last.metadata.correlation_id) == (f"node:{names[0]}", "hers")


@pytest.mark.parametrize("seed", range(5))
def test_whatever_a_node_reports_its_operation_stays_in_its_request(seed, unrecordable):
    """The answers of a node that says anything, in any order, some of which cannot be recorded."""
    chance, names = Random(seed), fleet(2)
    with acting_as("user:bob", correlation_id="his"):
        other = start(nodes=names[1:])
    with acting_as("user:alice", correlation_id="hers"):
        uid = start(nodes=names[:1])
    for _ in range(150):
        said = report_of(uid, names[0], chance.choice(list(Phase)), message=chance.choice(["", unrecordable]))
        strange = {
            "generation": chance.choice([1, 1, 1, 0, 2, 7]),
            "attempt": chance.choice([1, 1, 1, 0, 2]),
            "rollout": chance.choice([uid, uid, uid, other, "who"]),
            "module_name": chance.choice(["greet", "greet", "other"]),
        }
        ingestion.record_reports([said | strange])
        if chance.random() < 0.02:
            overdue(*names)
            timeouts.end_overdue_operations()
    uploaded, *told = read()
    assert (uploaded.type, gaps(told)) == ("artifact.uploaded.v1", [])
    of_operation = [each for each in told if getattr(each.event, "rollout", "") == uid]
    assert {each.metadata.correlation_id for each in of_operation} == {"hers"}
    assert {each.metadata.requested_by for each in of_operation} == {"user:alice"}
    assert {each.type for each in of_operation} >= {"report.rejected.v1", "operation.reported_late.v1"}
    assert Operation.objects.get(rollout=uid).correlation_id == "hers"
    of_other = [*load(rollout_stream(other)), *load(placement_stream(names[1], "greet"))]
    assert {each.metadata.correlation_id for each in of_other} == {"his"}


def test_what_a_node_says_it_has_after_the_end_is_a_story_of_its_own():
    """Else it could add to the story of a request for ever."""
    (name,) = fleet(1)
    with acting_as("user:alice", correlation_id="hers"):
        uid = start()
    say(uid, name, inventory=inventory(installed()))
    before = head()
    for number, phase in enumerate((Phase.SUCCEEDED, Phase.FAILED, Phase.FAILED)):
        say(uid, name, phase, inventory=inventory(installed(content=f"other{number}")))
    requested_by = {each.type: each.metadata.requested_by for each in read(after=before)}
    # Of a report that says nothing new nothing is taken, and the next heartbeat says what the node has.
    assert requested_by == {
        "operation.reported_late.v1": "user:alice",
        "node.inventory_changed.v1": f"node:{name}",
    }


@pytest.fixture
def unrecordable(monkeypatch):
    """The message of a report that cannot be recorded."""

    def record(state, report):
        if report.message == "poison":
            raise ValueError("nobody foresaw this")
        return record_report(state, report)

    monkeypatch.setattr(decider, "record_report", record)
    return "poison"


def test_who_turns_a_rollout_back_is_asked_for_what_follows(admin, new_user):
    names = fleet(2)
    uid = begin(admin, "r-1", strategy={"canary": 0, "max_parallel": 1})
    bob = client_of(new_user("bob", Role.ADMIN))
    verb = bob.post(f"/v2/rollouts/{uid}/pause", headers={"X-Request-ID": "r-2"})
    assert verb.status_code == 202
    bob.post(f"/v2/rollouts/{uid}/resume", headers={"X-Request-ID": "r-3"})
    say(uid, names[0])
    assert Operation.objects.get(rollout=uid, node=names[1]).requested_by == "user:alice"
    bob.post(f"/v2/rollouts/{uid}/rollback", headers={"X-Request-ID": "r-4"})
    say(uid, names[1], Phase.CANCELED)
    for name in names:
        say(uid, name)
    assert Rollout.objects.get(uid=uid).phase == "rolled_back"
    assert [each["type"] for each in story(admin, "r-2")] == ["rollout.paused.v1"]
    assert [each["type"] for each in story(admin, "r-3")] == ["rollout.resumed.v1"]
    turned = story(admin, "r-4")
    assert {each["requested_by"] for each in turned} == {"bob"}
    types = [each["type"] for each in turned]
    assert (types[0], types[-1]) == ("rollout.rollback_requested.v1", "rollout.finished.v1")
    assert {"operation.cancel_requested.v1", "rollout.rollback_started.v1", "operation.released.v1"} <= set(types)
    assert types.count("operation.finished.v1") == 3


def test_a_thaw_and_a_node_that_is_back_are_causes():
    names = fleet(1)
    with acting_as("user:alice"):
        freeze_fleet("night")
        uid = start()
    with acting_as("user:bob"):
        thaw_fleet()
    released = load(rollout_stream(uid))[-1]
    thawed = load("fleet")[-1]
    assert (released.metadata.causation_id, released.metadata.requested_by) == (thawed.event_id.hex, "user:alice")
    silence(*names)
    offline_nodes.declare_silent_nodes_offline()
    went, given_back = load(f"node:{names[0]}")[-1], load(placement_stream(names[0], "greet"))[-1]
    assert (went.actor, went.metadata.causation_id) == (timeouts.CLOCK, "")
    assert (given_back.type, given_back.metadata.causation_id) == ("operation.given_back.v1", went.event_id.hex)
    ingestion.record_heartbeats([heartbeat_of(names[0], hello=True)])
    assert load(rollout_stream(uid))[-1].metadata.causation_id == load(f"node:{names[0]}")[-1].event_id.hex


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.SUCCEEDED])
@pytest.mark.parametrize("generation", [1, 7])
def test_what_a_node_says_after_the_end_is_no_cause(generation, phase):
    """Neither of its own rollout nor of one that needs it."""
    names = fleet(2)
    needed = start(nodes=names[1:])
    say(needed, names[1], Phase.SUCCEEDED if phase == Phase.FAILED else Phase.FAILED)
    freeze_fleet("night")
    uid = start(nodes=names[:1], released=False)
    Rollout.objects.filter(uid=uid).update(needs=[needed])
    thaw_fleet()
    *_, before = read()
    say(needed, names[1], phase, generation=generation)
    assert head() == before.position + 1
    assert cause_of(uid, names[:1]).causation_id == before.event_id.hex


def test_a_new_rollout_has_the_origin_of_who_asks_for_it(admin):
    names = fleet(1)
    uid = start()
    say(uid, names[0], Phase.FAILED)
    by_cli = admin.post(f"/v2/rollouts/{uid}/retry", headers={"User-Agent": "modfleet-cli"}).json()
    assert (by_cli["retry_of"], by_cli["origin"], by_cli["actor"]) == (uid, "cli", "alice")
    advance_all([by_cli["uid"]])
    say(by_cli["uid"], names[0])
    back = roll_back_rollout(by_cli["uid"], origin=Origin.CONSOLE)
    assert Rollout.objects.get(uid=back).origin == "console"


@pytest.mark.parametrize(("recorded", "origin"), [("local", "vendor"), ("dependency", "api"), ("cli", "cli")])
def test_origins_of_older_versions_are_read(recorded, origin):
    fleet(1)
    event = load(rollout_stream(start()))[0].event
    text = encode(event).replace('"origin":"api"', f'"origin":"{recorded}"')
    started = decode(name_of(RolloutStarted), text)
    assert isinstance(started, RolloutStarted)
    assert started.origin == origin


@pytest.mark.parametrize("seed", range(3))
def test_every_event_leads_back_to_where_a_story_may_begin(seed):
    """A long random run of everything that people, nodes and time do."""
    upload()
    upload(version=2, content="c2")
    began, run = head(), RandomRun(Random(seed))
    for _ in range(400):
        run.step()
    told = list(read(after=began))
    assert gaps(told) == []
    assert len(told) > 300
    kinds = {each.actor.partition(":")[0] if not each.actor.startswith("system") else each.actor for each in told}
    assert {"user", "node", "system:relay", "system:clock", "system:reconciler"} <= kinds
