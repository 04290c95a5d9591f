"""A link to a package is of use to its node alone, and only while the node's identity is valid."""

import time
from hashlib import sha256

import msgspec
import pytest

from artifacts_app.models import Build
from artifacts_app.selectors import build_to_fetch
from eventstore import transact
from rollout.domain.node.commands import AddKey, DecommissionNode, RequestRekey, RetireOtherKeys, RevokeNode
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import node_stream
from rollout.services.enrolment import create_join_token
from rollout.signing import NodeSecret, Purpose, to_text
from tests.hosts import Host
from tests.plugins.packages import ARTIFACTS, as_upload

pytestmark = pytest.mark.django_db


@pytest.fixture
def hosts():
    made = [Host(name="n1"), Host(name="n2")]
    for host in made:
        host.join(create_join_token(node=host.name, labels={}, expires_in_seconds=60))
        host.say_hello()
    return made


@pytest.fixture
def link(admin, pack, hosts):
    """The link of n1."""
    admin.post(ARTIFACTS, as_upload(pack()))
    row = Build.objects.get()
    build = build_to_fetch(row.module_name, row.version, row.content_sha256, [row.platform])
    assert build
    return build.url("n1").partition(":8000")[2]


def proof(host, link, purpose=Purpose.FETCH, **changes):
    message = {"link_sha256": sha256(link.rpartition("/")[2].encode()).hexdigest(), "sent_at": time.time(), **changes}
    return to_text(msgspec.json.encode(host.sign(purpose, message)))


def fetched(client, link, text):
    response = client.get(link, headers={"Modfleet-Proof": text} if text else {})
    if response.status_code == 200:
        response.close()
        return True
    assert (response.status_code, response.json()["error_code"]) == (403, "invalid_link")
    return False


def test_it_works(anyone, link, hosts):
    assert fetched(anyone, link, proof(hosts[0], link))


@pytest.mark.parametrize(
    "text",
    [
        lambda *_: "",
        lambda *_: "x",
        lambda *_: "ä",
        lambda *_: to_text(b"null"),
        lambda *_: to_text(b"[" * 5000),
        lambda link, _, two: proof(two, link),
        lambda link, _, two: proof(Host(name="n1", secret=two.secret), link),
        lambda link, _, __: proof(Host(name="n1", secret=NodeSecret.generate()), link),
        lambda link, one, _: proof(one, link, Purpose.HEARTBEAT),
        lambda link, one, _: proof(one, link + "x"),
        lambda link, one, _: proof(one, link, sent_at=time.time() - 301),
        lambda link, one, _: proof(one, link, sent_at=time.time() + 301),
        lambda link, one, _: proof(one, link, sent_at="now"),
        lambda link, one, _: proof(one, link, sent_at=None),
        lambda link, one, _: proof(one, link, sent_at=10**400),
        lambda link, one, _: proof(one, link, link_sha256=None),
        lambda _, one, __: to_text(msgspec.json.encode(one.sign(Purpose.FETCH, []))),
    ],
    ids=[
        "none",
        "no envelope",
        "no base64",
        "nothing",
        "nested without end",
        "another node",
        "another node's key",
        "an unknown key",
        "another purpose",
        "another link",
        "too old",
        "too new",
        "no time",
        "an empty time",
        "a time that no clock has",
        "no link",
        "no message",
    ],
)
def test_nobody_else_uses_it(anyone, link, hosts, text):
    assert not fetched(anyone, link, text(link, *hosts))


def test_it_ends_with_the_identity(anyone, link, hosts):
    one = hosts[0]
    transact(node_stream("n1"), NODE, RevokeNode(node="n1"))
    assert not fetched(anyone, link, proof(one, link))


def test_it_ends_for_a_node_that_was_decommissioned(anyone, link, hosts):
    transact(node_stream("n1"), NODE, DecommissionNode(node="n1"))
    assert not fetched(anyone, link, proof(hosts[0], link))


def test_both_keys_of_a_rotation_are_good_until_one_ends(anyone, link, hosts):
    one, fresh = hosts[0], Host(name="n1")
    key = fresh.secret.public
    transact(node_stream("n1"), NODE, RequestRekey(node="n1"))
    transact(node_stream("n1"), NODE, AddKey(node="n1", public_key=key, broker_password_sha256="0" * 64))
    assert fetched(anyone, link, proof(one, link))
    assert fetched(anyone, link, proof(fresh, link))
    transact(node_stream("n1"), NODE, RetireOtherKeys(node="n1", public_key=key))
    assert not fetched(anyone, link, proof(one, link))
    assert fetched(anyone, link, proof(fresh, link))
