"""/v2/enrolment and /v2/join-tokens: a host exchanges a join token for a node's identity."""

import json
import shlex
from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace

import pytest

from api import rate_limits
from api.models import IdempotencyRecord
from eventstore import all_events, head, read
from rollout.api.views.enrolment import REFUSED_PER_MINUTE
from rollout.models import JoinToken, Liveness
from rollout.process.offline_nodes import declare_silent_nodes_offline
from rollout.queries.join_tokens import token_text
from rollout.queries.trust import control_secrets
from rollout.services.enrolment import create_join_token
from rollout.signing import ControlKey, Purpose, envelope_from, from_text, key_id, opened
from tests.hosts import Host
from tests.plugins.cast import client_of
from tests.recorded_fleet import join, node, silence

pytestmark = pytest.mark.django_db
CA = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.fixture
def create(admin):
    def created(**body):
        answer = admin.post("/v2/join-tokens", body, format="json")
        assert answer.status_code == 201, answer.content
        return answer.json()

    return created


@pytest.fixture
def exchange(anyone):
    def exchanged(host, token, **changes):
        return anyone.post("/v2/enrolment", host.request(token, **changes), format="json")

    return exchanged


@pytest.fixture
def group(create):
    """A token for a group, whose nodes wait for a person."""
    return create(pattern="cache-*", uses=2)["token"]


def types():
    return [each.type for each in all_events()]


def refused(answer, status, code):
    assert (answer.status_code, answer.json()["error_code"]) == (status, code), answer.content
    return True


def test_it_works(create, exchange, admin):
    created = create(node="web-1", labels={"zone": "a"})
    host = Host(name="web-1")
    answer = exchange(host, created["token"], labels={"zone": "mine", "rack": "7"})
    assert answer.status_code == 201
    joined = answer.json()
    assert (joined["phase"], joined["degraded"], joined["heartbeat_seconds"]) == ("pending", None, 10)
    assert joined["labels"] == {"zone": "a", "rack": "7"}
    assert joined["broker_url"] == "redis://node.web-1@127.0.0.1:6379/0"
    host.say_hello()
    found = admin.get("/v2/nodes/web-1").json()
    assert (found["phase"], found["identity"], found["labels"]) == ("online", "signed", {"zone": "a"})
    assert found["warnings"] == []


def test_an_invitation_tells_what_a_host_compares_with_its_token(anyone, create, settings, tmp_path):
    (tmp_path / "ca.pem").write_text(CA)
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, control_ca=str(tmp_path / "ca.pem"))
    _, _, _, fingerprint, ca_sha256 = create(node="web-1")["token"].split(".")
    invitation = anyone.get("/v2/enrolment").json()
    assert sha256(invitation["ca"].encode()).hexdigest() == ca_sha256
    (given,) = invitation["control_keys"]
    key = ControlKey(signing=given["signing"], agreement=given["agreement"])
    assert (key.id, key.fingerprint) == (given["id"], fingerprint)
    assert sha256(from_text(key.signing) + from_text(key.agreement)).hexdigest()[:32] == fingerprint
    document = opened(envelope_from(invitation["trust"][0]), Purpose.TRUST, "all", [key])
    assert document["control_keys"] == [{"signing": key.signing, "agreement": key.agreement}]
    assert invitation["protocols"] == [0, 1]


def test_without_a_certificate_authority_of_its_own(anyone, create):
    assert create(node="web-1")["token"].endswith(".-")
    assert anyone.get("/v2/enrolment").json()["ca"] is None


def test_the_command_is_complete(create):
    created = create(node="web-1", observe=True)
    words = shlex.split(created["command"])
    assert words[:3] == ["modfleet", "agent", "install"]
    assert words[words.index("--token") + 1] == created["token"]
    assert words[words.index("--control") + 1] == "http://127.0.0.1:8000"
    assert words[words.index("--name") + 1] == "web-1"
    assert "--observe" in words


def test_the_same_request_may_be_repeated(create, exchange):
    token, host = create(node="web-1")["token"], Host(name="web-1")
    assert exchange(host, token).status_code == 201
    before = head()
    assert exchange(host, token).status_code == 200
    assert head() == before


def test_another_key_cannot_use_a_used_token(create, exchange):
    token = create(node="web-1")["token"]
    exchange(Host(name="web-1"), token)
    assert refused(exchange(Host(name="web-1"), token), 403, "invalid_token")


def test_all_wrong_tokens_get_the_same_answer_and_leave_nothing(create, exchange, admin):
    expired = create_join_token(node="web-1", labels={}, expires_in_seconds=0)
    revoked, other = create(node="web-1"), create(node="web-2")
    admin.delete(f"/v2/join-tokens/{revoked['id']}")
    version, token, secret, *rest = other["token"].split(".")
    unknown = ".".join((version, "0" * 32, secret, *rest))
    wrong = ".".join((version, token, secret[::-1], *rest))
    before = head()
    answers = {
        exchange(Host(name="web-1"), each).content
        for each in (token_text(expired), revoked["token"], other["token"], unknown, wrong, "mfj1.x.y.z.-")
    }
    assert len(answers) == 1
    assert b"invalid_token" in answers.pop()
    assert head() == before
    assert admin.get("/v2/nodes").json()["results"] == []


def test_invalid_attempts_are_throttled_and_leave_no_event(exchange, create, anyone, monkeypatch):
    # No time passes: on a busy machine, the limit would be restored before it is reached.
    monkeypatch.setattr(rate_limits, "time", SimpleNamespace(monotonic_ns=lambda: 1))
    token = create(node="web-1")["token"]
    before = head()
    for number in range(REFUSED_PER_MINUTE):
        refused(exchange(Host(name=f"invented-{number}"), token), 403, "invalid_token")
    answer = exchange(Host(name="web-1"), token)
    assert refused(answer, 429, "too_many_requests")
    assert int(answer.headers["Retry-After"]) >= 1
    assert head() == before
    elsewhere = anyone.post("/v2/enrolment", Host(name="web-1").request(token), format="json", REMOTE_ADDR="192.0.2.7")
    assert elsewhere.status_code == 201


@pytest.mark.parametrize(
    "changes",
    [
        {"node": "../x"},
        {"node": ""},
        {"public_key": "A" * 42 + "B"},
        {"public_key": "A" * 43},
        {"public_key": "A" * 42},
        {"broker_password_sha256": "x"},
        {"broker_password_sha256": "0" * 64},
        {"proof": "AAAA"},
        {"proof": "\x00"},
        {"proof": "é"},
        {"labels": {"": "x"}},
        {"surplus": 1},
    ],
    ids=ascii,
)
def test_a_request_that_is_wrong(create, exchange, changes):
    token = create(pattern="w*")["token"]
    assert refused(exchange(Host(name="web-1"), token, **changes), 400, "invalid_request")
    assert "node.enrolled.v1" not in types()


def test_a_stolen_request_does_not_join_another_key(create, anyone):
    """The proof covers the key: whoever only sees the public key cannot use it with a token of their own."""
    victim, token = Host(name="web-1"), create(pattern="web-*", uses=9)["token"]
    body = Host(name="web-1").request(token) | {"public_key": victim.secret.public}
    assert refused(anyone.post("/v2/enrolment", body, format="json"), 400, "invalid_request")


def test_a_large_body_is_refused(anyone):
    answer = anyone.post("/v2/enrolment", "x" * 64_001, content_type="application/json")
    assert refused(answer, 413, "payload_too_large")


def test_a_token_for_a_node_of_the_fleet_says_so(create, exchange):
    assert create(node="web-1")["note"] is None
    host = Host(name="web-1")
    exchange(host, create(node="web-1")["token"])
    host.say_hello()
    again = create(node="web-1")
    assert again["note"] == (
        "The fleet has the node web-1 already. A new key replaces its key only while it is offline."
    )
    assert refused(exchange(Host(name="web-1"), again["token"]), 409, "node_exists")
    assert create(pattern="web-*")["note"] is None


def accept(admin, host):
    return admin.post(f"/v2/nodes/{host.name}/accept", {"key": key_id(host.secret.public)}, format="json")


def test_nodes_of_a_group_wait_for_a_person(group, exchange, admin):
    host = Host(name="cache-1")
    assert exchange(host, group).json()["phase"] == "pending"
    host.say_hello()
    (found,) = admin.get("/v2/nodes").json()["results"]
    assert (found["phase"], found["identity"], found["platform"]) == ("pending", "pending", "")
    assert [each["code"] for each in found["warnings"]] == ["pending"]
    assert found["keys"] == [key_id(host.secret.public)]
    assert admin.post("/v2/nodes/cache-1/drain").json()["error_code"] == "node_pending"
    assert refused(admin.post("/v2/nodes/cache-1/accept"), 400, "invalid_request")
    assert accept(admin, host).json()["identity"] == "signed"
    host.say_hello()
    assert admin.get("/v2/nodes/cache-1").json()["phase"] == "online"
    assert accept(admin, host).status_code == 200


def test_a_node_is_accepted_only_with_the_key_that_was_compared(group, exchange, admin):
    """Another host with the token may have joined under this name since."""
    first, second = Host(name="cache-1"), Host(name="cache-1")
    exchange(first, group)
    exchange(second, group)
    assert refused(accept(admin, first), 409, "node_key_changed")
    assert node("cache-1").identity == "pending"
    assert accept(admin, second).json()["identity"] == "signed"


def test_a_pending_node_that_nobody_wants_is_decommissioned(group, exchange, admin):
    host = Host(name="cache-1")
    exchange(host, group)
    before = head()
    assert admin.post("/v2/nodes/cache-1/decommission").json()["phase"] == "decommissioned"
    host.say_hello()
    assert refused(exchange(host, group), 403, "invalid_token")
    assert admin.get("/v2/nodes").json()["results"] == []
    assert admin.get(f"/v2/nodes/cache-1?as_of={before}").json()["phase"] == "pending"


def test_nodes_of_a_group_may_join_without_a_person(create, exchange):
    token = create(pattern="cache-*", uses=2, auto_accept=True)["token"]
    assert exchange(Host(name="cache-1"), token).status_code == 201
    assert exchange(Host(name="cache-2"), token).status_code == 201
    assert [node(f"cache-{number}").identity for number in (1, 2)] == ["signed", "signed"]
    assert refused(exchange(Host(name="cache-3"), token), 403, "invalid_token")


def test_a_token_for_the_one_node_accepts_it(group, create, exchange):
    host = Host(name="cache-1")
    exchange(host, group)
    exchange(host, create(node="cache-1")["token"])
    assert node("cache-1").identity == "signed"


def test_a_node_that_is_heard_keeps_its_name(create, exchange):
    first = create(pattern="cache-*", uses=9, auto_accept=True)["token"]
    host = Host(name="cache-1")
    exchange(host, first)
    host.say_hello()
    before = head()
    assert refused(exchange(Host(name="cache-1"), first), 409, "node_exists")
    assert refused(exchange(Host(name="cache-1"), create(node="cache-1")["token"]), 409, "node_exists")
    assert types()[before:] == ["join_token.created.v1"]


def test_a_silent_node_that_lost_its_key_joins_again_and_keeps_what_it_had(create, exchange, admin):
    token = create(pattern="cache-*", uses=9, auto_accept=True, labels={"zone": "a"})["token"]
    old, new = Host(name="cache-1"), Host(name="cache-1")
    exchange(old, token)
    old.say_hello()
    admin.patch("/v2/nodes/cache-1", {"labels": {"tier": "1"}}, format="json")
    silence("cache-1")
    declare_silent_nodes_offline()
    assert exchange(new, token).status_code == 201
    heard = Liveness.objects.get().last_seen
    old.say_hello()
    assert Liveness.objects.get().last_seen == heard
    new.say_hello()
    assert Liveness.objects.get().last_seen > heard
    assert node("cache-1").labels == {"tier": "1", "zone": "a"}


def test_a_token_that_accepts_no_node_takes_no_key_away(group, create, exchange, admin):
    """A node that is offline for a while, such as during a restart of its host, must be able to come back."""
    old, new = Host(name="cache-1"), Host(name="cache-1")
    exchange(old, create(node="cache-1")["token"])
    for heard in (False, True):
        if heard:
            old.say_hello()
            silence("cache-1")
            declare_silent_nodes_offline()
        answer = exchange(new, group)
        assert refused(answer, 409, "node_exists")
        assert "modfleet nodes add cache-1" in answer.json()["description"]
        old.say_hello()
        assert node("cache-1").phase == "online"
    admin.post("/v2/nodes/cache-1/revoke")
    assert exchange(new, group).json()["identity"] == "pending"


@pytest.mark.parametrize("auto_accept", [True, False])
def test_no_node_loses_its_name_while_the_control_worker_hears_none(create, exchange, auto_accept):
    """As during an upgrade, or with a full broker: the node runs, and its heartbeats wait."""
    host = Host(name="cache-1")
    exchange(host, create(node="cache-1")["token"])
    host.say_hello()
    silence("cache-1")
    token = create(pattern="cache-*", auto_accept=auto_accept)["token"]
    assert refused(exchange(Host(name="cache-1"), token), 409, "node_exists")
    assert node("cache-1").keys[0][0] == host.secret.public


def test_an_unsigned_node_is_replaced_while_it_runs_only_by_a_token_that_accepts(group, create, exchange):
    join("cache-1")
    assert refused(exchange(Host(name="cache-1"), group), 409, "node_exists")
    assert exchange(Host(name="cache-1"), create(node="cache-1")["token"]).status_code == 201
    assert (node("cache-1").identity, node("cache-1").phase) == ("signed", "online")


def test_an_unsigned_node_has_a_warning(admin):
    join("n1")
    (warning,) = admin.get("/v2/nodes/n1").json()["warnings"]
    assert warning == {
        "code": "unsigned",
        "message": "Its messages are not signed. Join it: modfleet nodes add n1",
    }


class TestRevoked:
    @pytest.fixture
    def host(self, create, exchange, admin):
        """It has joined with the token of a group, and was revoked."""
        host = Host(name="cache-1")
        self.token = create(pattern="cache-*", uses=9, auto_accept=True)["token"]
        self.unused = create(node="cache-1")
        exchange(host, self.token)
        host.say_hello()
        answer = admin.post("/v2/nodes/cache-1/revoke")
        assert (answer.status_code, answer.json()["phase"], answer.json()["identity"]) == (200, "offline", "revoked")
        return host

    def test_it_is_not_heard(self, host, admin):
        host.say_hello()
        assert admin.get("/v2/nodes/cache-1").json()["phase"] == "offline"

    def test_its_former_request_does_not_bring_it_back(self, host, exchange):
        assert refused(exchange(host, self.token), 403, "invalid_token")
        assert node("cache-1").identity == "revoked"

    def test_a_group_that_accepts_all_does_not_accept_it(self, host, exchange, admin):
        for _ in range(2):
            assert exchange(Host(name="cache-1"), self.token).status_code == 201
            assert node("cache-1").identity == "pending"
        admin.post("/v2/nodes/cache-1/decommission")
        assert exchange(Host(name="cache-1"), self.token).status_code == 201
        assert node("cache-1").identity == "pending"

    def test_no_second_token_accepts_it(self, host, exchange, create):
        again = Host(name="cache-1")
        for _ in range(2):
            exchange(again, create(pattern="cache-*", auto_accept=True)["token"])
            assert node("cache-1").identity == "pending"

    def test_once_a_person_has_accepted_it_a_group_may_accept_it_again(self, host, exchange, admin):
        again = Host(name="cache-1")
        exchange(again, self.token)
        assert accept(admin, again).status_code == 200
        silence("cache-1")
        assert exchange(Host(name="cache-1"), self.token).json()["identity"] == "signed"

    def test_its_unused_tokens_are_revoked_too(self, host, exchange, admin):
        assert admin.get(f"/v2/join-tokens/{self.unused['id']}").json()["state"] == "revoked"
        assert refused(exchange(host, self.unused["token"]), 403, "invalid_token")

    def test_a_new_token_brings_it_back(self, host, exchange, create):
        assert exchange(host, create(node="cache-1")["token"]).status_code == 201
        host.say_hello()
        assert (node("cache-1").identity, node("cache-1").phase) == ("signed", "online")

    def test_twice_is_once(self, host, admin):
        before = head()
        assert admin.post("/v2/nodes/cache-1/revoke").status_code == 200
        assert head() == before

    def test_it_must_join_first(self, host, admin):
        for answer in (accept(admin, host), admin.post("/v2/nodes/cache-1/rekey")):
            assert refused(answer, 409, "node_not_signed")


class TestNewKey:
    @pytest.fixture
    def host(self, create, exchange):
        host = Host(name="web-1")
        exchange(host, create(node="web-1")["token"])
        host.say_hello()
        return host

    @pytest.fixture
    def send(self, anyone):
        return lambda body: anyone.post("/v2/enrolment/keys", body, format="json")

    @pytest.fixture
    def requested(self, host, admin):
        assert admin.post("/v2/nodes/web-1/rekey").status_code == 200

    @pytest.mark.usefixtures("requested")
    def test_it_works(self, host, send):
        assert node("web-1").rekey_requested
        new = Host(name="web-1")
        answer = send(host.rekey(new))
        assert (answer.status_code, answer.json()["control_keys"][0]["id"]) == (200, control_secrets()[0].public.id)
        assert [each[0] for each in node("web-1").keys] == [host.secret.public, new.secret.public]
        new.say_hello()
        assert node("web-1").keys == [[new.secret.public, new.password_sha256]]

    def test_a_key_that_was_not_requested_is_refused(self, host, send):
        before = head()
        assert refused(send(host.rekey(Host(name="web-1"))), 409, "rekey_not_requested")
        assert head() == before

    @pytest.mark.usefixtures("requested")
    def test_twice_is_once(self, host, send):
        body = host.rekey(Host(name="web-1"))
        assert send(body).status_code == 200
        before = head()
        assert send(body).status_code == 200
        assert head() == before

    def test_only_the_node_itself_may_do_it(self, host, send, create, exchange):
        new, stranger, other = Host(name="web-1"), Host(name="web-1"), Host(name="web-2")
        exchange(other, create(node="web-2")["token"])
        before = head()
        of_another = replace(stranger, secret=other.secret)
        for body in (
            stranger.rekey(new),
            of_another.rekey(new),
            {**host.rekey(new), "payload": other.rekey(new)["payload"]},
            {**other.rekey(new), "node": "web-1"},
            {**host.rekey(new), "purpose": "heartbeat"},
            {**host.rekey(new), "node": "nobody"},
            {**host.rekey(new), "signature": "é"},
        ):
            assert refused(send(body), 403, "untrusted_node")
        assert head() == before

    @pytest.mark.parametrize("sent_at", [0.0, 1e12, float("1e300")])
    def test_it_cannot_be_repeated_later(self, host, send, sent_at):
        assert refused(send(host.rekey(Host(name="web-1"), sent_at=sent_at)), 400, "invalid_request")

    def test_a_signed_message_with_another_content(self, host, send):
        body = json.loads(json.dumps(host.rekey(Host(name="web-1"))))
        envelope = host.sign(Purpose.REKEY, {"public_key": "x"})
        assert refused(
            send({**body, "payload": envelope.payload, "signature": envelope.signature}), 400, "invalid_request"
        )

    def test_a_revoked_node_gets_no_new_key(self, host, send, admin):
        admin.post("/v2/nodes/web-1/revoke")
        assert refused(send(host.rekey(Host(name="web-1"))), 403, "untrusted_node")


class TestTokens:
    def test_a_token_ends_with_the_secret_key_that_it_was_created_with(self, create, exchange, settings):
        """Someone with a former key can compute the secret of a token from its id."""
        token, former = create(pattern="web-*", uses=9)["token"], settings.SECRET_KEY
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another key " * 5, [former]
        assert exchange(Host(name="web-1"), token).status_code == 201
        settings.SECRET_KEY_FALLBACKS = []
        assert refused(exchange(Host(name="web-2"), token), 403, "invalid_token")

    def test_the_list_has_no_secret(self, create, admin):
        created = create(pattern="cache-*", uses=3, auto_accept=True, labels={"zone": "a"})
        answer = admin.get("/v2/join-tokens")
        (listed,) = answer.json()["results"]
        assert listed == {name: value for name, value in created.items() if name in listed}
        assert created.keys() - listed.keys() == {"token", "command", "note"}
        assert listed["created_by"] == "alice"
        assert created["token"].split(".")[2] not in answer.content.decode()

    def test_the_log_and_the_tables_have_a_hash_only(self, create):
        secret = create(node="web-1")["token"].split(".")[2]
        (event,) = (each.event for each in read() if each.type == "join_token.created.v1")
        assert event.secret_sha256 == sha256(secret.encode()).hexdigest()
        assert secret not in str(event)

    def test_the_states(self, create, exchange, admin):
        open_, used, revoked = (create(node=f"web-{number}") for number in range(3))
        expired = {"id": create_join_token(node="web-1", labels={}, expires_in_seconds=0)}
        exchange(Host(name="web-1"), used["token"])
        admin.delete(f"/v2/join-tokens/{revoked['id']}")
        states = [
            admin.get(f"/v2/join-tokens/{each['id']}").json()["state"] for each in (open_, used, revoked, expired)
        ]
        assert states == ["open", "used", "revoked", "expired"]

    def test_a_key_creates_one_token_and_its_secret_is_not_kept(self, admin):
        ask = {"path": "/v2/join-tokens", "data": {"node": "web-1"}, "format": "json"}
        first, second = (admin.post(**ask, headers={"Idempotency-Key": "k"}) for _ in range(2))
        assert first.json() == second.json()
        assert JoinToken.objects.count() == 1
        assert first.json()["token"].split(".")[2] not in IdempotencyRecord.objects.get().body

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"node": "a", "pattern": "a*"},
            {"node": "a b"},
            {"node": "web-1", "uses": 2},
            {"pattern": "*"},
            {"pattern": "cache-1"},
            {"pattern": "cache-[0-9]*"},
            {"pattern": "a*", "uses": 0},
            {"node": "a", "expires_in_seconds": 59},
            {"node": "a", "labels": []},
        ],
        ids=str,
    )
    def test_a_token_that_is_wrong(self, admin, body):
        assert refused(admin.post("/v2/join-tokens", body, format="json"), 400, "invalid_request")

    def test_an_unknown_token(self, admin):
        for method in (admin.get, admin.delete):
            assert refused(method("/v2/join-tokens/x"), 404, "join_token_not_found")

    @pytest.mark.parametrize("method", ["get", "post"])
    def test_only_admins_have_them(self, bob, method):
        assert refused(getattr(client_of(bob), method)("/v2/join-tokens"), 403, "permission_denied")

    @pytest.mark.parametrize("verb", ["accept", "revoke", "rekey"])
    def test_only_admins_change_identities(self, bob, verb):
        join("n1")
        assert refused(client_of(bob).post(f"/v2/nodes/n1/{verb}"), 403, "permission_denied")
