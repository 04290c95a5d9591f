"""Replicas that are no nodes, and that a person answers for; and the address of a node that a person sets."""

import pytest

from eventstore import StoredEvent, head
from rollout.domain.errors import IgnoredReplicaNotFoundError, InvalidAddressError, NodeNotFoundError, NodePhaseError
from rollout.models import IgnoredReplica
from rollout.services.ignored_replicas import ignore_replica, unignore_replica
from rollout.services.nodes import decommission_node, set_address
from tests.plugins.cast import client_of
from tests.recorded_fleet import differences, fleet, join, know, node
from tests.recorded_shards import beat, master_of, member, replica_of, say

pytestmark = pytest.mark.django_db

STRANGER = "10.0.0.9:6379"


def test_it_works():
    fleet(1)
    say(beat("n0000", master_of(STRANGER)))
    ignore_replica("10.0.0.9:6379", reason="A backup without modules.")
    assert (member("n0000").unmanaged, member("n0000").ignored) == ([], [STRANGER])
    row = IgnoredReplica.objects.get()
    assert (row.address, row.reason) == (STRANGER, "A backup without modules.")
    unignore_replica(STRANGER)
    assert (member("n0000").unmanaged, member("n0000").ignored) == ([STRANGER], [])
    kinds = StoredEvent.objects.filter(stream="fleet").order_by("position").values_list("type", flat=True)
    assert list(kinds) == ["fleet.replica_ignored.v1", "fleet.replica_unignored.v1"]


def test_a_plan_shows_them_until_that_ends(admin):
    fleet(1)
    say(beat("n0000", master_of(STRANGER)))
    ignore_replica(STRANGER, reason="A backup without modules.")
    request = {"action": "install", "module_name": "greet", "version": 1}
    (warning,) = admin.post("/v2/rollouts/plan", request, content_type="application/json").json()["warnings"]
    assert (warning["node"], warning["reason"]) == ("n0000", "unmanaged_replica")
    assert warning["message"].endswith("commands: 10.0.0.9:6379 (A backup without modules).")
    for other in ({"activation": "files"}, {"action": "remove"}):
        shown = admin.post("/v2/rollouts/plan", request | other, content_type="application/json").json()
        assert shown["warnings"] == []


def test_the_rows_can_be_rebuilt():
    for address in ("a:1", "b:1", "c:1"):
        ignore_replica(address, reason="first")
    unignore_replica("a:1")
    unignore_replica("b:1")
    ignore_replica("b:1", reason="again")
    assert {row.address: row.reason for row in IgnoredReplica.objects.all()} == {"b:1": "again", "c:1": "first"}
    assert differences() == {}


def test_the_first_reason_stays():
    ignore_replica("[FE80::1]:6379", reason="first")
    before = head()
    ignore_replica("fe80::1:6379", reason="second")
    assert head() == before
    assert IgnoredReplica.objects.get().reason == "first"


def test_a_cluster_node_id_is_ignored_too():
    fleet(1)
    stranger = "ab" * 20
    say(beat("n0000", master_of(node_id="cd" * 20, replica_node_ids=(stranger,))))
    assert member("n0000").unmanaged == [stranger]
    ignore_replica(stranger, reason="It is switched off.")
    assert member("n0000").unmanaged == []


@pytest.mark.parametrize("address", ["", "redis", "redis:0", "AB" * 20])
def test_an_address_that_cannot_be_used(address):
    with pytest.raises(InvalidAddressError):
        ignore_replica(address, reason="x")


def test_the_server_of_a_node_is_never_ignored():
    fleet(2)
    say(beat("n0000", master_of("a:2", addresses=("a:1",), node_id="ab" * 20)))
    set_address("n0001", "c:7")
    before = head()
    for address, name in (("A:1", "n0000"), ("ab" * 20, "n0000"), ("c:7", "n0001")):
        with pytest.raises(InvalidAddressError, match=f"is the server of node {name}, and a node is never ignored"):
            ignore_replica(address, reason="x")
    assert head() == before
    ignore_replica("a:2", reason="It is no node")


def test_what_is_not_ignored():
    with pytest.raises(IgnoredReplicaNotFoundError):
        unignore_replica("a:1")


def test_the_address_of_a_node():
    """In a container, a server may not know the address by which others reach it."""
    fleet(2)
    say(
        beat("n0000", master_of("host:7001", addresses=("172.17.0.2:6379",))),
        beat("n0001", replica_of("host:7000", addresses=("172.17.0.2:6379",))),
    )
    assert (member("n0000").unmanaged, member("n0001").unmanaged_master) == (["host:7001"], "host:7000")
    set_address("n0000", "Host:7000")
    set_address("n0001", "host:7001")
    assert (member("n0000").replicas, member("n0001").master, node("n0000").address) == (
        ["n0001"],
        "n0000",
        "host:7000",
    )
    before = head()
    set_address("n0001", "host:7001")
    assert head() == before
    set_address("n0001", "")
    assert (node("n0001").address, member("n0000").unmanaged) == ("", ["host:7001"])
    assert differences() == {}


def test_the_address_of_a_node_that_is_not_in_the_fleet():
    fleet(1)
    with pytest.raises(NodeNotFoundError):
        set_address("nope", "a:1")
    set_address("n0000", "a:1")
    decommission_node("n0000")
    with pytest.raises(NodePhaseError):
        set_address("n0000", "a:1")
    join("n0000")
    assert node("n0000").address == ""
    assert differences() == {}


def test_over_http(admin):
    created = admin.post("/v2/ignored-replicas", {"address": "10.0.0.9:6379", "reason": "A backup."}, format="json")
    assert (created.status_code, created.headers["Location"].endswith("/v2/ignored-replicas/10.0.0.9:6379")) == (
        201,
        True,
    )
    fleet(1)
    say(beat("n0000", master_of(STRANGER)))
    found = admin.get(f"/v2/ignored-replicas/{STRANGER}").json()
    assert found.pop("ignored_at").endswith("Z")
    assert found == {"address": STRANGER, "reason": "A backup.", "actor": "alice", "masters": ["n0000"]}
    assert [each["address"] for each in admin.get("/v2/ignored-replicas").json()["results"]] == [STRANGER]
    assert admin.delete(f"/v2/ignored-replicas/{STRANGER}").status_code == 200
    for answer in (admin.get(f"/v2/ignored-replicas/{STRANGER}"), admin.delete(f"/v2/ignored-replicas/{STRANGER}")):
        assert (answer.status_code, answer.json()["error_code"]) == (404, "ignored_replica_not_found")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"address": "redis", "reason": "x"}, "invalid_address"),
        ({"address": STRANGER}, "invalid_request"),
        ({"address": STRANGER, "reason": ""}, "invalid_request"),
        ({"address": STRANGER, "reason": "x" * 1001}, "invalid_request"),
    ],
)
def test_a_request_that_is_refused(admin, body, code):
    answer = admin.post("/v2/ignored-replicas", body, format="json")
    assert (answer.status_code, answer.json()["error_code"]) == (400, code)


def test_the_place_of_a_node_over_http(admin):
    fleet(3)
    say(
        beat("n0000", master_of("a:2", STRANGER, addresses=("a:1",), sentinels=3, backups=1)),
        beat("n0001", replica_of("a:1", addresses=("a:2",))),
    )
    (master, replica) = admin.get("/v2/nodes?shard=n0000").json()["results"]
    shown = ("shard", "master", "depth", "replicas", "unmanaged_replicas", "ignored_replicas", "sentinels")
    assert [master[name] for name in shown] == ["n0000", None, 0, ["n0001"], [STRANGER], [], 3]
    assert [replica[name] for name in shown] == ["n0000", "n0000", 1, [], [], [], None]
    assert (master["not_ready"]["reason"], replica["not_ready"]) == ("backup_running", None)
    know("old")
    unknown = admin.get("/v2/nodes/old").json()
    assert [unknown[name] for name in shown] == [None, None, None, [], [], [], None]


def test_the_address_over_http(admin):
    fleet(1)
    assert admin.patch("/v2/nodes/n0000", {"address": "a:1"}, format="json").json()["address"] == "a:1"
    assert admin.patch("/v2/nodes/n0000", {"labels": {"zone": "a"}}, format="json").json()["address"] == "a:1"
    assert admin.patch("/v2/nodes/n0000", {"address": ""}, format="json").json()["address"] is None
    refused = admin.patch("/v2/nodes/n0000", {"address": "a"}, format="json").json()
    assert refused["error_code"] == "invalid_address"
    assert admin.patch("/v2/nodes/n0000", {}, format="json").status_code == 400


def test_a_viewer_may_look_and_change_nothing(bob):
    viewer = client_of(bob)
    assert viewer.get("/v2/ignored-replicas").status_code == 200
    answers = [
        viewer.post("/v2/ignored-replicas", {"address": STRANGER, "reason": "x"}, format="json"),
        viewer.delete(f"/v2/ignored-replicas/{STRANGER}"),
        viewer.patch("/v2/nodes/n0000", {"address": STRANGER}, format="json"),
    ]
    assert [each.status_code for each in answers] == [403] * 3
    assert not IgnoredReplica.objects.exists()


def test_a_loopback_address_is_ignored_only_while_a_server_has_such_a_replica():
    """It may be that of a node: it means another server on each host."""
    join("m", "r")
    own, replica, other = "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"
    say(
        beat("m", master_of(replica, other, addresses=(own,), network="h")),
        beat("r", replica_of(own, addresses=(replica,), network="h")),
    )
    with pytest.raises(InvalidAddressError, match=r"No server has a replica 127\.0\.0\.1:2 that is no node"):
        ignore_replica(replica, reason="It is a node.")
    for _ in range(2):
        ignore_replica(other, reason="It is switched off soon.")
    assert member("m").ignored == [other]
