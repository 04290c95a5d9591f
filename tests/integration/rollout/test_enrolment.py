"""Nodes that join with tokens: what is recorded, what follows from it, and what happens at the same moment."""

from functools import partial

import pytest

from eventstore import append, head, load_state, read
from rollout.domain.errors import InvalidTokenError, NodeExistsError
from rollout.domain.join_token.events import JoinTokenUsed, join_token_stream
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import NodeDecommissioned, NodeEnrolled, node_stream
from rollout.messages import Phase
from rollout.models import JoinToken
from rollout.process import advance as advance_module
from rollout.process.advance import advance
from rollout.queries.join_tokens import token_text
from rollout.services import nodes
from rollout.services.enrolment import create_join_token, enrol, revoke_join_token
from rollout.services.nodes import accept_node, revoke_node
from rollout.signing import key_id
from tests.hosts import Host, new_identity
from tests.plugins.cast import client_of
from tests.plugins.databases import at_once
from tests.recorded_fleet import (
    differences,
    fleet,
    installed,
    inventory,
    node,
    operation,
    phases,
    rollout,
    say,
    start,
    state_of,
)


def token(**given):
    return create_join_token(**{"labels": {}, "expires_in_seconds": 3600, **given})


def group(uses=2, **given):
    return token(pattern="cache-*", uses=uses, auto_accept=True, **given)


def exchange(host, token):
    return host.join(token)


def joined(name):
    """A host with an identity that is online."""
    host = Host(name=name)
    exchange(host, token(node=name))
    host.say_hello()
    return host


def events_of(*streams):
    return [each for each in read() if each.stream in streams]


@pytest.mark.django_db
class TestRecorded:
    def test_use_and_identity_together(self):
        given = token(node="web-1", labels={"zone": "a"})
        host = Host(name="web-1")
        assert exchange(host, given)
        used, enrolled = events_of(join_token_stream(given), node_stream("web-1"))[1:]
        assert used.event == JoinTokenUsed(token=given, node="web-1", public_key=host.secret.public)
        assert isinstance(enrolled.event, NodeEnrolled)
        assert (enrolled.event.token, enrolled.event.labels, enrolled.event.accepted) == (given, {"zone": "a"}, True)
        assert enrolled.position == used.position + 1
        assert (used.metadata.actor, enrolled.metadata.actor) == ("node:web-1", "node:web-1")
        assert enrolled.metadata.causation_id == used.event_id.hex

    def test_a_rebuild_makes_the_same_rows(self):
        given = group()
        first, second = Host(name="cache-1"), Host(name="cache-2")
        for each in (first, second):
            exchange(each, given)
        revoke_join_token(token(node="web-1"))
        accept_node("cache-1", key=key_id(first.secret.public))
        revoke_node("cache-2")
        assert not any(differences().values())

    def test_nothing_if_the_node_may_not_have_the_name(self):
        given = group()
        exchange(Host(name="cache-1"), given)
        Host(name="cache-1").say_hello()  # another key: it is not heard
        host = Host(name="cache-2")
        exchange(host, given)
        host.say_hello()
        more = group()
        with pytest.raises(NodeExistsError):
            exchange(Host(name="cache-2"), more)
        assert JoinToken.objects.get(id=more).used == 0

    def test_a_second_token_is_not_used_up_by_the_same_key(self):
        host, more = joined("cache-1"), group()
        assert not exchange(host, more)
        assert JoinToken.objects.get(id=more).used == 0

    def test_an_expired_token_is_refused(self):
        given = token(node="web-1", expires_in_seconds=0)
        with pytest.raises(InvalidTokenError):
            exchange(Host(name="web-1"), given)


@pytest.mark.django_db
def test_three_thousand_invented_nodes_leave_nothing(alice):
    real = Host(name="web-1")
    body = real.request(token_text(token(node="web-1")))
    before = head()
    for number in range(3000):
        with pytest.raises(InvalidTokenError):
            enrol(new_identity({**body, "node": f"invented-{number}"}))
    assert head() == before
    assert client_of(alice).get("/v2/nodes").json()["results"] == []


@pytest.mark.django_db
class TestLeft:
    def test_a_decommissioned_node_joins_again_without_what_it_had(self):
        """In older logs, nothing was forgotten when a node was decommissioned."""
        fleet(1)
        say(start(), "n0000", inventory=inventory(installed()))
        append(load_state(node_stream("n0000"), NODE).append([NodeDecommissioned(node="n0000")]))
        host = Host(name="n0000")
        assert exchange(host, token(node="n0000"))
        assert (state_of("n0000") or ())[:1] == ("absent",)
        assert (node("n0000").phase, node("n0000").identity) == ("pending", "signed")
        host.say_hello()
        assert node("n0000").phase == "online"


@pytest.mark.django_db
class TestRevoked:
    def test_what_it_has_not_started_is_withdrawn_and_waits(self):
        names = fleet(2)
        uid = start()
        assert phases(uid) == dict.fromkeys(names, Phase.QUEUED)
        revoke_node(names[0])
        assert phases(uid) == {names[0]: Phase.SCHEDULED, names[1]: Phase.QUEUED}
        say(uid, names[1])
        advance(uid)
        assert operation(uid, names[0]).phase == Phase.SCHEDULED

    def test_nothing_is_released_to_a_node_that_is_revoked_meanwhile(self, meanwhile, monkeypatch):
        names = fleet(2)
        uid = start(released=False)
        monkeypatch.setattr(nodes, "advance_all", lambda _: None)  # the revocation does not advance the rollout
        meanwhile(advance_module, lambda: revoke_node(names[0]))
        advance(uid)
        assert phases(uid) == {names[0]: Phase.SCHEDULED, names[1]: Phase.QUEUED}

    def test_what_it_works_on_stays(self):
        (name,) = fleet(1)
        uid = start()
        say(uid, name, Phase.FETCHING)
        revoke_node(name)
        assert phases(uid) == {name: Phase.FETCHING}
        assert rollout(uid).finished_at is None

    def test_a_pending_node_takes_part_in_no_rollout(self):
        fleet(1)
        exchange(Host(name="cache-1"), token(pattern="cache-*"))
        assert phases(start()).keys() == {"n0000"}


class TestAtOnce:
    pytestmark = pytest.mark.usefixtures("committed_db")

    def test_two_nodes_and_one_use(self, race):
        given = group(uses=1)
        hosts = [Host(name="cache-1"), Host(name="cache-2")]
        outcomes = race(*(lambda host=host: exchange(host, given) for host in hosts))
        assert sorted(map(str, outcomes)) == sorted(["True", str(InvalidTokenError())])
        assert len([each for each in read() if isinstance(each.event, NodeEnrolled)]) == 1
        assert JoinToken.objects.get().used == 1

    def test_two_keys_and_one_name(self, race):
        tokens, hosts = [group(), group()], [Host(name="cache-1"), Host(name="cache-1")]
        outcomes = race(
            *(lambda host=host, one=one: exchange(host, one) for host, one in zip(hosts, tokens, strict=True))
        )
        # Neither is heard yet, so the later one replaces the other.
        assert outcomes == [True, True]
        newest = [each.event.public_key for each in read() if isinstance(each.event, NodeEnrolled)][-1]
        assert node("cache-1").keys[0][0] == newest

    def test_the_same_host_twice(self, race):
        given, host = token(node="web-1"), Host(name="web-1")
        assert sorted(race(*[lambda: exchange(host, given)] * 2)) == [False, True]
        assert JoinToken.objects.get().used == 1

    def test_a_use_and_a_revocation(self, race):
        given, host = token(node="web-1"), Host(name="web-1")
        outcome, _ = race(lambda: exchange(host, given), lambda: revoke_join_token(given))
        kinds = [each.type for each in events_of(join_token_stream(given))]
        assert kinds[-1] == "join_token.revoked.v1"
        assert (outcome is True) == ("join_token.used.v1" in kinds)

    def test_many_nodes_and_a_limit(self):
        given = group(uses=5)

        def try_it(host):
            try:
                return exchange(host, given)
            except InvalidTokenError:
                return False

        outcomes = at_once(*(partial(try_it, Host(name=f"cache-{number}")) for number in range(12)))
        assert sum(outcomes) == JoinToken.objects.get().used == 5

    def test_accept_and_revoke(self, race):
        host = Host(name="cache-1")
        exchange(host, token(pattern="cache-*"))
        key = key_id(host.secret.public)
        race(lambda: accept_node("cache-1", key=key), lambda: revoke_node("cache-1"))
        assert node("cache-1").identity == "revoked"
