"""Whose messages are believed: signed ones of nodes with an identity, and who is heard if two agents share one."""

import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from itertools import count

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from msgspec import to_builtins

from eventstore import StoredEvent, database_now, head, load_states, read, transact
from eventstore.store import Append, append
from rollout.delivery import ingestion
from rollout.delivery.ingestion import heartbeats as heartbeat_ingestion
from rollout.delivery.ingestion import order, verification
from rollout.domain.node.commands import (
    AcceptNode,
    AddKey,
    DecommissionNode,
    DrainNode,
    EnrollNode,
    LabelNode,
    RequestRekey,
    RetireOtherKeys,
    RevokeNode,
)
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import (
    NodeDuplicateEnded,
    NodeDuplicateFound,
    NodeJoined,
    NodeKeyRetired,
    node_stream,
)
from rollout.domain.node.pace import BURST, SECONDS
from rollout.messages import HEARTBEATS, REPORTS, Heartbeat, Inventory, Phase, Report, Reports, from_json
from rollout.models import Liveness, Node, NodeModule
from rollout.process import offline_nodes
from rollout.queries.trust import control_secrets
from rollout.signing import ControlSecret, NodeSecret, Purpose, key_id
from rollout.transport import DROPPED
from tests.plugins.cast import client_of
from tests.recorded_fleet import (
    differences,
    grew,
    heartbeat_of,
    installed,
    inventory,
    join,
    know,
    node,
    phases,
    report_of,
    rollout,
    silence,
    start,
    upload,
)

pytestmark = pytest.mark.django_db

INTERVAL = 10.0


class Clock:
    """The database's clock, moved by `seconds`."""

    seconds = 0.0

    def now(self):
        return database_now() + timedelta(seconds=self.seconds)


@pytest.fixture
def clock(monkeypatch):
    moved = Clock()
    for module in (order, heartbeat_ingestion):
        monkeypatch.setattr(module, "database_now", moved.now)
    return moved


@pytest.fixture
def dropped():
    """What was dropped since the last call, by queue and reason."""
    DROPPED.take()
    return lambda: dict(DROPPED.take())


@dataclass(kw_only=True)
class Agent:
    """One start of an agent, which signs what it sends. `ahead`: its clock, in seconds before the database's."""

    name: str = "n1"
    secret: NodeSecret = field(default_factory=NodeSecret.generate)
    host: str | None = None
    incarnation: str = "a"
    ahead: float = 0.0
    clock: Clock = field(default_factory=Clock)
    counter: count = field(default_factory=lambda: count(1))  # type: ignore[type-arg]

    def message(self, *, hello=False, modules=(), **profile):
        body = from_json(Heartbeat, heartbeat_of(self.name, hello=hello, **profile))
        return replace(
            body,
            inventory=Inventory(
                sequence=1, modules=tuple(modules), incarnation=self.incarnation, counter=next(self.counter)
            ),
            host=f"host of {self.name}" if self.host is None else self.host,
            interval_seconds=INTERVAL,
            sent_at=self.clock.now().timestamp() + self.ahead,
        )

    def signed(self, message, *, purpose=Purpose.HEARTBEAT, name=None, to=None):
        control = to or control_secrets()[0].public
        return to_builtins(self.secret.sign(purpose, name or self.name, message, to=control))

    def heartbeat(self, **more):
        return self.signed(self.message(**more))

    def reports(self, *bodies):
        reports = Reports(reports=tuple(from_json(Report, each) for each in bodies))
        return self.signed(reports, purpose=Purpose.REPORTS)

    def beat(self, **more):
        ingestion.record_heartbeats([self.heartbeat(**more)])


def enroll(name, secret, *, accepted=True, is_silent=False, labels=None):
    command = EnrollNode(
        node=name,
        token="t1",
        public_key=secret.public,
        broker_password_sha256="0" * 64,
        labels=labels or {},
        accepted=accepted,
        is_silent=is_silent,
    )
    transact(node_stream(name), NODE, command)


def add_key(name, secret):
    """Request a new key of the node, and add this one."""
    transact(node_stream(name), NODE, RequestRekey(node=name))
    transact(node_stream(name), NODE, AddKey(node=name, public_key=secret.public, broker_password_sha256="1" * 64))


def enrolled(name="n1", **more):
    """The first agent of a node that is enrolled and was not heard yet."""
    agent = Agent(name=name, **more)
    enroll(name, agent.secret)
    return agent


def fleet_of(size):
    """So many nodes with one secret, for it takes long to make many."""
    secret = NodeSecret.generate()
    agents = [Agent(name=f"n{number:04d}", secret=secret) for number in range(size)]
    states = load_states([node_stream(each.name) for each in agents], NODE)
    changes = []
    for agent in agents:
        command = EnrollNode(
            node=agent.name,
            token="t1",
            public_key=secret.public,
            broker_password_sha256="0" * 64,
            labels={},
            accepted=True,
            is_silent=True,
        )
        stream = node_stream(agent.name)
        changes.append(Append(stream, 0, NODE.decide(states[stream].state, command)))
    append(*changes)
    return agents


# --- Signed messages --------------------------------------------------------------------------------------------------


@pytest.mark.dialect
def test_it_works(dropped):
    agent = enrolled()
    assert node("n1").phase == "pending"
    agent.beat(hello=True, server="valkey")
    assert (node("n1").phase, node("n1").identity, node("n1").server) == ("online", "signed", "valkey")
    upload()
    uid = start()
    ingestion.record_reports([agent.reports(report_of(uid, "n1", inventory=inventory(installed())))])
    assert (rollout(uid).phase, dropped()) == ("succeeded", {})
    assert differences() == {}


def test_several_reports_come_in_one_envelope(dropped):
    agent = enrolled()
    agent.beat(hello=True)
    upload()
    upload("other")
    first, second = start(), start(module_name="other")
    said = agent.reports(report_of(first, "n1"), report_of(second, "n1", module_name="other"))
    ingestion.record_reports([said, said])
    assert (rollout(first).phase, rollout(second).phase, dropped()) == ("succeeded", "succeeded", {})


def test_a_message_that_comes_again_changes_nothing(dropped):
    agent = enrolled()
    said = agent.heartbeat(hello=True)
    ingestion.record_heartbeats([said])
    agent.beat(server="redis")
    seen = Liveness.objects.values("counter", "incarnation").get()
    assert grew(lambda: ingestion.record_heartbeats([said])) == 0
    assert (Liveness.objects.values("counter", "incarnation").get(), node("n1").server) == (seen, "redis")


def test_a_former_secret_key_is_valid_until_it_is_dropped(settings, dropped):
    agent, former = enrolled(), ControlSecret("the former one")
    said = [agent.signed(agent.message(hello=True), to=former.public) for _ in range(2)]
    ingestion.record_heartbeats(said[:1])
    assert (dropped(), node("n1").phase) == ({(HEARTBEATS, "untrusted"): 1}, "pending")
    settings.SECRET_KEY_FALLBACKS = ["the former one"]
    ingestion.record_heartbeats(said[1:])
    assert (dropped(), node("n1").phase) == ({}, "online")


# --- Refused messages -------------------------------------------------------------------------------------------------


def unsigned(agent):
    return heartbeat_of(agent.name, hello=True)


def foreign(agent):
    """Of an agent that has another key, but the name."""
    return Agent(name=agent.name).heartbeat()


def renamed(agent):
    """Of another node, which names this one in its message alone."""
    other = enrolled("n2")
    return other.signed(agent.message())


def changed(agent):
    said = agent.heartbeat()
    return said | {"payload": said["payload"].replace("linux", "darwin")}


def of_another_kind(agent):
    return agent.signed(agent.message(), purpose=Purpose.REPORTS)


def for_another_control_plane(agent):
    return agent.signed(agent.message(), to=ControlSecret("of another one").public)


def shapeless(agent):
    return {"node": agent.name, "signature": ["x"]}


def with_half_a_character(agent):
    return agent.heartbeat() | {"payload": "\ud800"}


def no_heartbeat(agent):
    return agent.signed({"node": agent.name})


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (unsigned, "unsigned"),
        (foreign, "untrusted"),
        (renamed, "untrusted"),
        (changed, "untrusted"),
        (of_another_kind, "untrusted"),
        (for_another_control_plane, "untrusted"),
        (shapeless, "untrusted"),
        (with_half_a_character, "untrusted"),
        (no_heartbeat, "malformed"),
    ],
)
def test_a_heartbeat_that_is_not_the_node_s_is_dropped_alone(dropped, forge, reason):
    agent, good = enrolled(), enrolled("good")
    agent.beat(hello=True)
    bad = forge(agent)
    life = Liveness.objects.values().get(node="n1")
    ingestion.record_heartbeats([bad, good.heartbeat()])
    assert dropped() == {(HEARTBEATS, reason): 1}
    assert Liveness.objects.values().get(node="n1") == life
    assert node("good").phase == "online"


@pytest.fixture
def asked():
    """Two nodes with an operation each."""
    agents = [enrolled("n1"), enrolled("n2")]
    for agent in agents:
        agent.beat(hello=True)
    upload()
    return (*agents, start())


def test_a_report_without_a_signature_is_dropped(dropped, asked):
    *_, uid = asked
    ingestion.record_reports([report_of(uid, "n1"), report_of(uid, "n2")])
    assert (dropped(), set(phases(uid).values())) == ({(REPORTS, "unsigned"): 2}, {"queued"})


def test_a_report_of_another_node_is_dropped(dropped, asked):
    _, second, uid = asked
    forged = replace(second, name="n1").reports(report_of(uid, "n1"))
    ingestion.record_reports([forged, second.reports(report_of(uid, "n2"))])
    assert dropped() == {(REPORTS, "untrusted"): 1}
    assert phases(uid) == {"n1": "queued", "n2": "succeeded"}


def test_a_report_that_names_another_node_takes_its_envelope_with_it(dropped, asked):
    _, second, uid = asked
    both = second.reports(report_of(uid, "n2"), report_of(uid, "n1"))
    assert grew(lambda: ingestion.record_reports([both])) == 0
    assert (dropped(), set(phases(uid).values())) == ({(REPORTS, "untrusted"): 1}, {"queued"})


def test_a_heartbeat_is_no_report(dropped, asked):
    first, *_ = asked
    ingestion.record_reports([first.heartbeat()])
    ingestion.record_reports([first.signed(first.message(), purpose=Purpose.REPORTS)])
    assert dropped() == {(REPORTS, "untrusted"): 1, (REPORTS, "malformed"): 1}


def test_a_report_that_is_repeated_is_no_sign_of_life():
    """Anyone who reads the broker's queues may have kept it."""
    agent = enrolled()
    agent.beat(hello=True)
    upload()
    uid = start()
    last = report_of(uid, "n1")
    kept = [agent.reports(last), agent.reports({**last, "module_name": "other"})]
    ingestion.record_reports(kept)
    assert phases(uid) == {"n1": "succeeded"}
    silence("n1")
    offline_nodes.declare_silent_nodes_offline()
    before, heard = head(), Liveness.objects.get().last_seen
    ingestion.record_reports(kept)
    assert (head(), Liveness.objects.get().last_seen, node("n1").phase) == (before, heard, "offline")


@pytest.mark.parametrize("decision", [None, "accept", "revoke"])
def test_a_node_is_heard_once_it_is_accepted_and_until_it_is_revoked(dropped, decision):
    agent = Agent()
    enroll("n1", agent.secret, accepted=False)
    accept = AcceptNode(node="n1", key=key_id(agent.secret.public))
    if decision:
        transact(node_stream("n1"), NODE, accept if decision == "accept" else RevokeNode(node="n1"))
    reason = {"pending": "pending_node", "revoked": "revoked_node"}.get(node("n1").identity)
    events = grew(lambda: ingestion.record_heartbeats([agent.heartbeat(hello=True)]))
    assert dropped() == ({(HEARTBEATS, reason): 1} if reason else {})
    assert (events, Liveness.objects.count()) == ((0, 0) if reason else (1, 1))
    assert differences() == {}


def test_a_revoked_node_is_refused_in_every_way_until_it_joins_again(dropped, asked):
    first, _, uid = asked
    transact(node_stream("n1"), NODE, RevokeNode(node="n1"))
    assert node("n1").phase == "offline"
    ingestion.record_heartbeats([first.heartbeat(), heartbeat_of("n1", hello=True)])
    ingestion.record_reports([first.reports(report_of(uid, "n1")), report_of(uid, "n1")])
    assert dropped() == {(HEARTBEATS, "revoked_node"): 2, (REPORTS, "revoked_node"): 2}
    again = Agent(incarnation="b")
    enroll("n1", again.secret)
    ingestion.record_heartbeats([first.heartbeat(), again.heartbeat(hello=True)])
    assert (dropped(), node("n1").phase) == ({(HEARTBEATS, "untrusted"): 1}, "online")
    assert differences() == {}


def test_a_node_from_before_signatures_needs_none_and_has_none(dropped):
    know("n1")
    ingestion.record_heartbeats([heartbeat_of("n1", server="redis"), Agent().heartbeat(server="valkey")])
    assert (dropped(), node("n1").server) == ({(HEARTBEATS, "unknown_key"): 1}, "redis")


def test_a_node_from_before_signatures_signs_for_good_once_it_is_enrolled(dropped):
    join("n1")
    agent = enrolled()
    ingestion.record_heartbeats([agent.heartbeat(hello=True, server="valkey"), heartbeat_of("n1", server="redis")])
    assert (dropped(), node("n1").server) == ({(HEARTBEATS, "unsigned"): 1}, "valkey")
    assert differences() == {}


@pytest.mark.parametrize("is_signed", [False, True])
def test_invented_nodes_leave_nothing(dropped, is_signed):
    agent = Agent()
    names = [f"invented-{number}" for number in range(3000)]
    heartbeats = [heartbeat_of(each, hello=True) for each in names]
    upload()
    enrolled("real").beat(hello=True)
    report = report_of(start(), "real")
    reports = [report | {"node": each} for each in names]
    if is_signed:
        heartbeats = [agent.signed(body, name=body["node"]) for body in heartbeats]
        reports = [agent.signed({"reports": [body]}, name=body["node"], purpose=Purpose.REPORTS) for body in reports]
    before = StoredEvent.objects.count(), Node.objects.count(), Liveness.objects.count()
    with CaptureQueriesContext(connection) as queries:
        ingestion.record_heartbeats(heartbeats)
        ingestion.record_reports(reports)
    assert len(queries) < 10
    assert (StoredEvent.objects.count(), Node.objects.count(), Liveness.objects.count()) == before
    assert dropped() == {(HEARTBEATS, "unknown_node"): 3000, (REPORTS, "unknown_node"): 3000}


@pytest.mark.parametrize("name", ["", "x" * 200, "a\0b", 7, None, ["n1"], "..", "a:b", "ä", "\ud800"])
@pytest.mark.dialect
def test_a_name_that_is_none(dropped, name):
    """Else one message could block all others: no database can look for such a name."""
    said = Agent().heartbeat() | {"node": name}
    ingestion.record_heartbeats([said, heartbeat_of("x") | {"node": name}])
    ingestion.record_reports([said])
    assert dropped() == {(HEARTBEATS, "malformed"): 2, (REPORTS, "malformed"): 1}


# --- Clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ahead", "is_heard"), [(-301.0, False), (-290.0, True), (290.0, True), (301.0, False)])
def test_a_heartbeat_that_is_too_old_or_too_new_is_dropped_and_shown(dropped, alice, ahead, is_heard):
    agent = enrolled()
    agent.beat(hello=True)
    agent.ahead = ahead
    agent.beat(server="valkey")
    assert dropped() == ({} if is_heard else {(HEARTBEATS, "clock_skew"): 1})
    assert node("n1").server == ("valkey" if is_heard else "")
    document = client_of(alice).get("/v2/nodes/n1").json()
    assert document["clock_skew_seconds"] == pytest.approx(ahead, abs=5)
    assert [each["code"] for each in document["warnings"]] == ["clock_skew"]


def test_a_heartbeat_that_was_kept_cannot_be_sent_again_later(dropped, clock):
    agent = enrolled(clock=clock)
    said = agent.heartbeat(hello=True)
    ingestion.record_heartbeats([said])
    clock.seconds = 301
    assert grew(lambda: ingestion.record_heartbeats([said])) == 0
    assert dropped() == {(HEARTBEATS, "clock_skew"): 1}


def test_a_node_from_before_signatures_may_have_a_wrong_clock(dropped):
    know("n1")
    ingestion.record_heartbeats([heartbeat_of("n1", server="redis") | {"sent_at": 1e9}])
    assert (dropped(), node("n1").server) == ({}, "redis")


# --- Keys -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_keys():
    """The node with its key in use, and with the one that it added."""
    agent = enrolled()
    agent.beat(hello=True)
    new = replace(agent, secret=NodeSecret.generate())
    add_key("n1", new.secret)
    return agent, new


@pytest.mark.dialect
def test_both_keys_are_valid_until_the_new_one_is_used(dropped, two_keys):
    old, new = two_keys
    old.beat(server="redis")
    assert (node("n1").server, len(node("n1").keys)) == ("redis", 2)
    new.beat(server="valkey")
    assert (node("n1").server, node("n1").keys) == ("valkey", [[new.secret.public, "1" * 64]])
    old.beat(server="redis")
    assert (node("n1").server, dropped()) == ("valkey", {(HEARTBEATS, "untrusted"): 1})
    (retired,) = read(event_classes=[NodeKeyRetired])
    assert (retired.event.public_key, retired.actor) == (old.secret.public, "node:n1")
    assert differences() == {}


def test_a_report_of_the_new_key_is_believed_and_ends_no_other(dropped, two_keys):
    _, new = two_keys
    upload()
    uid = start()
    ingestion.record_reports([new.reports(report_of(uid, "n1"))])
    assert (rollout(uid).phase, len(node("n1").keys), dropped()) == ("succeeded", 2, {})


def test_a_former_key_signs_no_report(dropped, two_keys):
    old, new = two_keys
    transact(node_stream("n1"), NODE, RetireOtherKeys(node="n1", public_key=new.secret.public))
    upload()
    uid = start()
    ingestion.record_reports([old.reports(report_of(uid, "n1"))])
    assert (phases(uid), dropped()) == ({"n1": "queued"}, {(REPORTS, "untrusted"): 1})


def test_a_new_key_with_a_wrong_clock_ends_no_other(dropped, two_keys):
    _, new = two_keys
    new.ahead = 1000.0
    new.beat()
    assert (len(node("n1").keys), dropped()) == (2, {(HEARTBEATS, "clock_skew"): 1})


def test_a_node_that_is_revoked_in_between_makes_no_batch_fail(dropped, two_keys, monkeypatch):
    """Its message was verified before."""
    _, new = two_keys
    good = enrolled("good")
    real = verification.verified_heartbeats

    def then_revoked(bodies):
        verified = real(bodies)
        transact(node_stream("n1"), NODE, RevokeNode(node="n1"))
        return verified

    monkeypatch.setattr(heartbeat_ingestion, "verified_heartbeats", then_revoked)
    ingestion.record_heartbeats([new.heartbeat(server="valkey"), good.heartbeat()])
    assert (node("n1").server, node("n1").phase, node("good").phase) == ("", "offline", "online")
    assert differences() == {}


@pytest.mark.dialect
def test_rows_are_rebuilt_as_they_are():
    """Each event of a node's identity, and a rebuild of the rows."""
    agent = enrolled("n1")
    second = NodeSecret.generate()
    enroll("n2", second, accepted=False, labels={"zone": "a"})
    enroll("n3", NodeSecret.generate(), accepted=False)
    know("n4")
    agent.beat(hello=True)
    for command in (
        LabelNode(node="n2", labels={"rack": "1"}),
        AcceptNode(node="n2", key=key_id(second.public)),
        RevokeNode(node="n3"),
        DrainNode(node="n4"),
        RequestRekey(node="n1"),
        AddKey(node="n1", public_key="k2", broker_password_sha256="h2"),
        RequestRekey(node="n2"),
        AddKey(node="n2", public_key="k3", broker_password_sha256="h3"),
        RetireOtherKeys(node="n2", public_key="k3"),
    ):
        transact(node_stream(command.node), NODE, command)
        assert differences() == {}
    enroll("n4", NodeSecret.generate(), labels={"zone": "b"})
    transact(node_stream("n2"), NODE, DecommissionNode(node="n2"))
    enroll("n2", NodeSecret.generate(), labels={"zone": "c"})
    assert differences() == {}
    rows = {each.name: (each.phase, each.identity, each.labels, len(each.keys)) for each in Node.objects.all()}
    assert rows == {
        "n1": ("online", "signed", {}, 2),
        "n2": ("pending", "signed", {"zone": "c"}, 1),
        "n3": ("pending", "revoked", {}, 0),
        "n4": ("draining", "signed", {"zone": "b"}, 1),
    }


# --- Costs ------------------------------------------------------------------------------------------------------------


def queries_of(function):
    with CaptureQueriesContext(connection) as queries:
        function()
    return len(queries)


def statements_of(function):
    """The beginning of each statement, without numbers: a comparison then shows which one is too many."""
    with CaptureQueriesContext(connection) as queries:
        function()
    return [re.sub(r"\d+", "#", each["sql"])[:50] for each in queries]


@pytest.mark.dialect
def test_signed_heartbeats_cost_the_same_for_any_number_of_nodes(dropped):
    agents = fleet_of(31)
    ingestion.record_heartbeats([agents.pop().heartbeat(hello=True)])  # what a process reads once is read now
    joins = [
        statements_of(partial(ingestion.record_heartbeats, [each.heartbeat(hello=True) for each in some]))
        for some in (agents[:3], agents[3:])
    ]
    beats = [
        statements_of(partial(ingestion.record_heartbeats, [each.heartbeat() for each in some]))
        for some in (agents[:3], agents)
    ]
    assert joins[0] == joins[1]
    assert beats[0] == beats[1]
    # Two clocks, keys, nodes, modules, life three times, facts, shards, and the transaction's two.
    assert len(beats[0]) == 12
    assert dropped() == {}


@pytest.mark.dialect
def test_wrong_clocks_cost_the_same_for_any_number_of_nodes(dropped):
    agents = fleet_of(40)
    ingestion.record_heartbeats([each.heartbeat(hello=True) for each in agents])
    for each in agents:
        each.ahead = 1000.0
    counts = [
        queries_of(partial(ingestion.record_heartbeats, [each.heartbeat() for each in some]))
        for some in (agents[:3], agents)
    ]
    assert counts[0] == counts[1]
    assert dropped() == {(HEARTBEATS, "clock_skew"): 43}
    assert Liveness.objects.filter(clock_skew_seconds__gt=900).count() == 40


def test_signed_reports_cost_the_same_for_any_number_of_nodes(dropped):
    agents = fleet_of(30)
    ingestion.record_heartbeats([each.heartbeat(hello=True) for each in agents])
    upload()
    uid = start(max_parallel=30)
    said = [each.reports(report_of(uid, each.name, Phase.LOADING)) for each in agents]
    counts = [queries_of(partial(ingestion.record_reports, some)) for some in (said[:3], said[3:18])]
    assert counts[0] == counts[1]
    assert dropped() == {}


def test_new_keys_and_rivals_cost_the_same_for_any_number_of_nodes(clock):
    agents = [replace(each, clock=clock) for each in fleet_of(24)]
    ingestion.record_heartbeats([each.heartbeat(hello=True) for each in agents])
    new = NodeSecret.generate()
    for agent in agents:
        add_key(agent.name, new)
    newer = [replace(each, secret=new) for each in agents]
    counts = [
        queries_of(partial(ingestion.record_heartbeats, [each.heartbeat() for each in some]))
        for some in (newer[:3], newer[3:])
    ]
    assert counts[0] == counts[1]
    others = [replace(each, host="there", incarnation="b", counter=count(1)) for each in newer]
    counts = [
        queries_of(partial(ingestion.record_heartbeats, [each.heartbeat() for each in some]))
        for some in (others[:3], others[3:])
    ]
    assert counts[0] == counts[1]


# --- Two agents with one identity -------------------------------------------------------------------------------------


@pytest.fixture
def agent(clock):
    """The agent that speaks for n1 on its host."""
    agent = enrolled(clock=clock)
    agent.beat(hello=True, server="redis")
    return agent


def another_start(agent, *, host="there", incarnation="b"):
    return replace(agent, host=host, incarnation=incarnation, counter=count(1))


def speaker():
    """The start of an agent that speaks for n1."""
    return Liveness.objects.get(node="n1").incarnation


def found():
    return [type(each.event) for each in read(event_classes=[NodeDuplicateFound, NodeDuplicateEnded])]


def together(clock, *agents, heartbeats=3, seconds=INTERVAL):
    """All agents send this many heartbeats."""
    for _ in range(heartbeats):
        clock.seconds += seconds
        for each in agents:
            each.beat()


@pytest.mark.dialect
def test_a_copy_on_another_host_is_found_and_changes_nothing(agent, clock):
    copy = another_start(agent)
    copy.beat(hello=True, server="valkey", modules=[installed()])
    assert (speaker(), node("n1").server, found()) == ("a", "redis", [])
    together(clock, agent, copy)
    assert (speaker(), found(), node("n1").duplicate) == ("a", [NodeDuplicateFound], True)
    together(clock, agent, copy, heartbeats=6)
    assert (speaker(), found()) == ("a", [NodeDuplicateFound])
    assert differences() == {}


def test_a_copy_is_found_whatever_batches_the_messages_come_in(agent, clock):
    copy = another_start(agent)
    for _ in range(4):
        clock.seconds += INTERVAL
        ingestion.record_heartbeats([copy.heartbeat(), agent.heartbeat(), copy.heartbeat()])
    assert (speaker(), found()) == ("a", [NodeDuplicateFound])


@pytest.mark.parametrize("copies", [2, 3, 12])
def test_several_copies_are_found(agent, clock, copies):
    """A disk was copied to many hosts."""
    others = [another_start(agent, host=f"host-{number}", incarnation=f"c{number}") for number in range(copies)]
    together(clock, agent, *others, heartbeats=5)
    assert (speaker(), found()) == ("a", [NodeDuplicateFound])
    together(clock, agent, *others[1:], heartbeats=6)
    assert found() == [NodeDuplicateFound], "one is left"
    together(clock, agent, heartbeats=4)
    assert found() == [NodeDuplicateFound, NodeDuplicateEnded]


def test_it_ends_when_the_copy_is_silent(agent, clock):
    copy = another_start(agent)
    together(clock, agent, copy)
    together(clock, agent, heartbeats=4)
    assert (found(), node("n1").duplicate) == ([NodeDuplicateFound, NodeDuplicateEnded], False)
    together(clock, agent, copy)
    assert found()[2:] == [NodeDuplicateFound]
    assert differences() == {}


@pytest.mark.parametrize("is_newest", [True, False], ids=["its own heartbeats", "a heartbeat that is repeated"])
def test_a_copy_that_comes_and_goes_does_not_fill_the_log(agent, clock, is_newest):
    """At first, each change is recorded. Then the end waits: an operator must see that there are two."""
    copy, began = another_start(agent), clock.seconds
    for _ in range(20):
        together(clock, agent, copy)
        together(clock, agent, heartbeats=3)
        kept = agent.heartbeat()
        ingestion.record_heartbeats([kept])
        clock.seconds += 1
        ingestion.record_heartbeats([kept] if not is_newest else [agent.heartbeat()])
    assert BURST <= len(found()) <= BURST + 2 + 2 * (clock.seconds - began) / SECONDS
    clock.seconds += BURST * SECONDS
    together(clock, agent, heartbeats=1)
    assert not node("n1").duplicate
    assert differences() == {}


def test_the_copy_takes_over_when_the_first_is_silent(agent, clock):
    copy = another_start(agent)
    together(clock, agent, copy)
    together(clock, copy, heartbeats=2)
    assert speaker() == "a"
    clock.seconds += INTERVAL + 1
    copy.beat(server="valkey")
    assert (speaker(), node("n1").server) == ("b", "valkey")
    assert Liveness.objects.get().hello_at == Liveness.objects.get().last_seen, "it gets the commands from now on"
    together(clock, copy, heartbeats=6)
    assert (found(), node("n1").duplicate) == ([NodeDuplicateFound, NodeDuplicateEnded], False)


def test_the_first_is_the_copy_after_that(agent, clock):
    copy = another_start(agent)
    copy.beat()
    clock.seconds += 3 * INTERVAL + 1
    copy.beat()
    assert speaker() == "b"
    together(clock, copy, agent)
    assert (speaker(), found()) == ("b", [NodeDuplicateFound])


def test_a_node_that_moves_is_no_duplicate(agent, clock):
    """Its agent ended, and another one starts elsewhere within a second. The last message of the first comes late."""
    together(clock, agent)
    late = agent.heartbeat()
    moved = another_start(agent)
    moved.beat(hello=True)
    clock.seconds += INTERVAL / 2
    ingestion.record_heartbeats([late])
    together(clock, moved, heartbeats=12)
    assert (speaker(), found()) == ("b", [])
    assert not node("n1").duplicate


def test_a_restart_takes_over_at_once(agent, clock):
    restarted = another_start(agent, host=agent.host)
    late = agent.heartbeat(server="redis")
    restarted.beat(hello=True, server="valkey")
    assert (speaker(), node("n1").server) == ("b", "valkey")
    ingestion.record_heartbeats([late])
    together(clock, restarted, heartbeats=6)
    assert (speaker(), node("n1").server, found()) == ("b", "", [])


def test_restarts_again_and_again_are_no_duplicate(agent, clock):
    """A last message of each start comes after the next one has begun."""
    for number in range(10):
        late = agent.heartbeat()
        agent = another_start(agent, host=agent.host, incarnation=f"r{number}")
        agent.beat(hello=True)
        ingestion.record_heartbeats([late])
        clock.seconds += INTERVAL
    assert (speaker(), found()) == ("r9", [])


def test_two_agents_on_one_host_are_found_too(agent, clock):
    second = another_start(agent, host=agent.host)
    second.beat(hello=True)
    together(clock, agent, second)
    assert (speaker(), found()) == ("b", [NodeDuplicateFound])


def test_a_copy_that_replaces_the_key_does_not_end_the_one_in_use(agent, clock):
    """It may receive the request in place of the first."""
    copy = replace(another_start(agent), secret=NodeSecret.generate())
    add_key("n1", copy.secret)
    together(clock, copy, agent)
    assert (speaker(), found(), len(node("n1").keys)) == ("a", [NodeDuplicateFound], 2)
    agent.secret = NodeSecret.generate()
    add_key("n1", agent.secret)
    together(clock, agent, copy)
    assert (speaker(), [each for each, _ in node("n1").keys]) == ("a", [agent.secret.public])
    assert differences() == {}


def test_the_key_of_a_copy_is_in_use_when_it_takes_over(agent, clock):
    copy = replace(another_start(agent), secret=NodeSecret.generate())
    add_key("n1", copy.secret)
    together(clock, copy, heartbeats=4)
    assert (speaker(), [each for each, _ in node("n1").keys]) == ("b", [copy.secret.public])


def test_a_restart_of_the_copy_does_not_help_it(agent, clock):
    copy = another_start(agent)
    together(clock, agent, copy)
    restarted = another_start(copy, incarnation="c")
    restarted.beat(hello=True)
    together(clock, agent, restarted)
    assert (speaker(), found()) == ("a", [NodeDuplicateFound])


def test_in_one_batch_with_the_one_that_takes_over(agent, clock):
    copy = another_start(agent)
    copy.beat()
    clock.seconds += 3 * INTERVAL + 1
    restarted = another_start(agent, host=agent.host, incarnation="c")
    ingestion.record_heartbeats([copy.heartbeat(), restarted.heartbeat(hello=True), agent.heartbeat()])
    assert speaker() == "b", "the others are elsewhere now"


def test_a_report_of_the_copy_changes_no_inventory(agent, clock):
    upload()
    uid = start()
    copy = another_start(agent)
    seen = Inventory(sequence=1, modules=(installed(7, "c7"),), incarnation="b", counter=1)
    ingestion.record_reports([copy.reports(report_of(uid, "n1", Phase.LOADING, inventory=seen))])
    assert (speaker(), seen_modules()) == ("a", [])


def seen_modules():
    return list(NodeModule.objects.filter(node="n1").exclude(observed="absent").values_list("version", flat=True))


def test_an_agent_that_does_not_name_its_host_is_ordered_by_its_starts(agent):
    """An older release was installed over a newer one."""
    older = another_start(agent, host="")
    older.beat(hello=True, server="valkey")
    assert (speaker(), node("n1").server) == ("b", "valkey")


def test_a_copy_does_not_keep_the_node_online(agent, clock, monkeypatch):
    """Nor offline: it takes over as soon as the first counts as silent."""
    copy = another_start(agent)
    together(clock, copy, heartbeats=2)
    monkeypatch.setattr(offline_nodes, "database_now", lambda: clock.now() + timedelta(seconds=INTERVAL + 1))
    assert offline_nodes.declare_silent_nodes_offline() == ["n1"]
    clock.seconds += INTERVAL + 1
    copy.beat()
    assert (speaker(), node("n1").phase) == ("b", "online")


def test_one_of_two_copies_joins_a_node_that_was_never_heard(clock):
    first = enrolled(clock=clock)
    copy = another_start(first)
    ingestion.record_heartbeats([first.heartbeat(hello=True), copy.heartbeat(hello=True)])
    (joined,) = read(event_classes=[NodeJoined])
    assert joined.event.node == "n1"
    together(clock, first, copy, heartbeats=5)
    assert found() == [NodeDuplicateFound]
    assert differences() == {}
