"""POST /v2/enrolment/holds: what a node still has to hold after it was restarted with another version."""

import time
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from eventstore import database_now
from rollout.delivery import ingestion
from rollout.messages import Phase, Replica, Ways
from rollout.models import Liveness, NodeFacts, Operation, Rollout
from rollout.process.advance import advance
from rollout.queries.explanations import of_node
from rollout.services.enrolment import create_join_token
from rollout.signing import Purpose
from tests.hosts import Host
from tests.integration.rollout.shard_of_four import ALL_AT_ONCE
from tests.recorded_fleet import installed, inventory, know, operation, phases, report_of, start, upload
from tests.recorded_fleet import say as answer
from tests.recorded_shards import beat, master_of, member, replica_of, say

pytestmark = [pytest.mark.django_db, pytest.mark.dialect]

STOCK = {
    "enable_module_command": "no",
    "restart": "shutdown",
    "aof_enabled": True,
    "min_replicas_to_write": 0,
    "failover": "cluster",
    "replication_id": "r",
}
OLD, NEW = installed(1, "c1"), installed(2, "c2")


class Shard:
    """The master n1 with the replicas n2 and n3, which have version 1. n2 has an identity, and asks."""

    def __init__(self):
        self.host = Host(name="n2")
        self.states = {
            "n1": master_of(
                "a:2",
                "a:3",
                addresses=("a:1",),
                replicas=tuple(Replica(address=each, state="online") for each in ("a:2", "a:3")),
                **STOCK,
            ),
            "n2": replica_of("a:1", addresses=("a:2",), **STOCK),
            "n3": replica_of("a:1", addresses=("a:3",), **STOCK),
        }
        self.modules = dict.fromkeys(self.states, OLD)
        know("n1", "n3")
        self.host.join(create_join_token(node="n2", labels={}, expires_in_seconds=600))
        for hello in (True, False):
            for name in self.states:
                self.say(name, hello=hello)

    def say(self, name, *, module=None, hello=False, **changes):
        """A heartbeat of the node, with this module and these facts from now on."""
        self.modules[name] = module or self.modules[name]
        self.states[name] = replace(self.states[name], **changes)
        said = beat(name, self.states[name], modules=[self.modules[name]], hello=hello) | {"sent_at": time.time()}
        if name == "n2":
            ingestion.record_heartbeats([msgspec.to_builtins(self.host.sign(Purpose.HEARTBEAT, said))])
        else:
            say(said)


@pytest.fixture
def shard():
    upload()
    upload(version=2, content="c2")
    return Shard()


@pytest.fixture
def uid(shard):
    """A rollout of version 2, which has changed n2."""
    uid = start(version=2, ways=Ways.RESTART, may_interrupt=True, careful=ALL_AT_ONCE)
    assert phases(uid)["n2"] == "queued"
    answer_as(shard, uid, "n2")
    return uid


def answer_as(shard, uid, name):
    said = report_of(uid, name, Phase.SUCCEEDED, inventory=inventory(NEW))
    if name == "n2":
        signed = shard.host.sign(Purpose.REPORTS, {"reports": [said]})
        ingestion.record_reports([msgspec.to_builtins(signed)])
    else:
        answer(uid, name, inventory=inventory(NEW))
    shard.say(name, module=NEW)
    shard.say("n1")  # the next restart waits for what the master says after this one


def body(host, uid, **changes):
    message = {"rollout": uid, "module_name": "greet", "version": 2, "sent_at": time.time(), **changes}
    return msgspec.to_builtins(host.sign(Purpose.HOLDS, message))


@pytest.fixture
def ask(anyone, shard):
    def asked(uid, **changes):
        found = anyone.post("/v2/enrolment/holds", body(shard.host, uid, **changes), format="json")
        assert found.status_code == 200, found.content
        return found.json()

    return asked


def one_way(uid, *, promoted=False):
    Rollout.objects.filter(uid=uid).update(one_way={"node": "n2", "result": "closed", "promoted": promoted})


def silence(node):
    Liveness.objects.filter(node=node).update(facts_at=database_now() - timedelta(seconds=100))


def end(uid):
    Rollout.objects.filter(uid=uid).update(phase="aborted")


def test_another_replica_has_the_former_version(shard, uid, ask):
    assert member("n3").master == "n1"
    assert ask(uid) == {"withhold": True, "keep_data": True}


def test_all_replicas_have_the_new_version(shard, uid, ask):
    shard.say("n3", module=NEW)
    assert ask(uid) == {"withhold": False, "keep_data": True}


def test_its_master_has_the_new_version(shard, uid, ask):
    shard.say("n1", module=NEW)
    assert not ask(uid)["withhold"]


@pytest.mark.parametrize(
    "changes",
    [
        {"problem": "server_unreachable"},
        {"maintenance": "restart"},
        {"withheld": True},
        {"loading": True},
        {"link_status": "down"},
    ],
)
def test_the_other_replica_could_not_take_over(shard, uid, ask, changes):
    shard.say("n3", **changes)
    assert not ask(uid)["withhold"]


def test_the_other_replica_is_silent(shard, uid, ask):
    silence("n3")
    assert not ask(uid)["withhold"]


def test_the_master_is_away_and_the_other_replica_takes_over(shard, uid, ask):
    silence("n1")
    shard.say("n3", link_status="down")
    assert ask(uid)["withhold"]


def test_it_has_become_the_master(shard, uid, ask):
    shard.states["n2"] = master_of(addresses=("a:2",), **STOCK)
    shard.say("n2")
    assert member("n2").role == "master"
    assert not ask(uid)["withhold"]


def test_a_node_that_only_says_that_it_is_a_replica(shard, uid, ask):
    """It could keep another one back for ever."""
    shard.say("n3", replication_id="other")
    assert member("n3").doubted
    assert not ask(uid)["withhold"]


def test_a_rollout_that_waits_for_a_person(shard, uid, ask):
    shard.say("n3", module=NEW)
    one_way(uid)
    assert ask(uid) == {"withhold": True, "keep_data": True}
    one_way(uid, promoted=True)
    assert not ask(uid)["withhold"]
    one_way(uid)
    silence("n1")  # then the replica must take over
    assert not ask(uid)["withhold"]


@pytest.mark.parametrize("is_one_way", [False, True])
def test_a_rollout_that_has_ended(shard, uid, ask, is_one_way):
    """The replica is kept back as long as another one with the former version could take over. Its data stay for the way back, if
    that is closed and no person has accepted it."""
    if is_one_way:
        one_way(uid)
    end(uid)
    assert ask(uid) == {"withhold": True, "keep_data": is_one_way}
    silence("n3")
    assert ask(uid) == {"withhold": False, "keep_data": is_one_way}


@pytest.mark.parametrize("other", ["unknown", "of another node"])
def test_a_rollout_that_is_not_known_here(shard, uid, ask, other):
    """Its data are kept."""
    if other == "of another node":
        end(uid)
        Operation.attempts.filter(rollout=uid, node="n2").delete()
    else:
        uid = "0" * 32
    assert ask(uid) == {"withhold": True, "keep_data": True}


def test_a_node_without_a_place(ask, shard, uid):
    member("n2").delete()
    assert ask(uid) == {"withhold": False, "keep_data": True}


def test_queries(shard, uid, ask, anyone):
    with CaptureQueriesContext(connection) as queries:
        ask(uid)
    assert len(queries) == 9


def refused(found, status, code):
    assert (found.status_code, found.json()["error_code"]) == (status, code), found.content
    return True


def test_only_the_node_itself_may_ask(shard, uid, anyone):
    stranger, other = Host(name="n2"), Host(name="n9")
    other.join(create_join_token(node="n9", labels={}, expires_in_seconds=600))
    own = body(shard.host, uid)
    for sent in (
        body(stranger, uid),
        body(replace(stranger, secret=other.secret), uid),
        {**own, "payload": body(other, uid)["payload"] + " "},
        {**body(other, uid), "node": "n2"},
        {**own, "node": "n3"},
        {**own, "node": "unheard-of"},
        {**own, "purpose": "rekey"},
        {**own, "signature": "é"},
    ):
        assert refused(anyone.post("/v2/enrolment/holds", sent, format="json"), 403, "untrusted_node")


@pytest.mark.parametrize(
    "changes",
    [
        {"sent_at": 0.0},
        {"sent_at": time.time() + 86_400},  # from when the tests were collected, which may be long ago
        {"sent_at": 1e300},
        {"version": -1},
        {"version": 2**63},
        {"version": "2"},
        {"module_name": "../x"},
        {"rollout": "\0"},
        {"rollout": None},
    ],
)
def test_what_it_cannot_ask(shard, uid, anyone, changes):
    sent = body(shard.host, uid, **changes)
    assert refused(anyone.post("/v2/enrolment/holds", sent, format="json"), 400, "invalid_request")


# --- The master's turn ------------------------------------------------------------------------------------------------


def test_the_master_waits_until_its_replicas_may_take_over(shard, uid):
    shard.say("n2", withheld=True)
    advance(uid)
    assert phases(uid)["n3"] == "queued"  # the other replica does not wait
    answer_as(shard, uid, "n3")
    advance(uid)
    row = operation(uid, "n1")
    assert (row.phase, row.reason) == ("scheduled", "")
    assert "the agent of n2 to let the server become the master again" in of_node(uid, "n1").document["summary"]
    shard.say("n2", withheld=False)
    advance(uid)
    assert phases(uid)["n1"] == "queued"


@pytest.mark.parametrize(("is_withheld", "expected"), [(True, "scheduled"), (False, "skipped")])
def test_a_plan_is_not_refused_for_what_will_end(shard, is_withheld, expected):
    """The master's doctor sees a replica that cannot become the master, and its agent says that it withholds it."""
    finding = {"check": "failover", "status": "warn", "message": "no", "fix": "Each replica has replica-priority 0."}
    shard.say("n2", withheld=is_withheld)
    NodeFacts.objects.filter(node="n1").update(doctor=[finding])
    uid = start(version=2, ways=Ways.RESTART, may_interrupt=True, careful=ALL_AT_ONCE)
    assert phases(uid)["n1"] == expected
