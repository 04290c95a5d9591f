"""A node reports the names of other servers as its own. It can make others wait, but it never makes them lose writes."""

from dataclasses import replace
from typing import Any

import pytest

from rollout.domain.errors import UnmanagedReplicaError
from rollout.messages import ServerState, SlotMigration
from rollout.models import ShardMember
from rollout.process.advance import advance
from rollout.queries.explanations import of_node
from rollout.services.ignored_replicas import ignore_replica
from rollout.services.nodes import decommission_node, set_address
from tests.recorded_fleet import installed, inventory, join, operation, phases, start, upload
from tests.recorded_fleet import say as answer
from tests.recorded_shards import beat, master_of, member, replica_of, say

pytestmark = pytest.mark.django_db

ALL_AT_ONCE: dict[str, Any] = {"canary": 0, "max_parallel": "100%", "max_failures": "100%"}
STATES = {
    "m": master_of("a:2", "a:3", addresses=("a:1",)),
    "r1": replica_of("a:1", addresses=("a:2",)),
    "r2": replica_of("a:1", addresses=("a:3",)),
}
ALL_THREE = master_of(addresses=("a:1", "a:2", "a:3"))


def shard(lie: ServerState) -> None:
    upload()
    upload("other", content="c9")
    join(*STATES, "liar")
    say(*(beat(node, state) for node, state in STATES.items()))
    say(beat("liar", lie))
    after_a_minute()


def after_a_minute() -> None:
    """The shards have changed, and the nodes no longer belong to their former ones."""
    ShardMember.objects.update(moved_at=None, former_shard="")


def repeat(*with_module: str) -> None:
    say(*(beat(each, STATES[each], modules=[installed()] if each in with_module else []) for each in STATES))


def test_two_copies_of_a_shard_take_turns_although_a_node_reports_the_masters_address():
    shard(master_of(addresses=("a:1",)))
    repeat("r1", "r2")
    first = start(nodes=("m",), careful=ALL_AT_ONCE)
    second = start(nodes=("r1",), module_name="other", careful=ALL_AT_ONCE)
    assert (phases(first), phases(second)) == ({"m": "queued"}, {"r1": "scheduled"})


def test_a_cluster_node_id_that_two_nodes_report():
    cluster: dict[str, Any] = {"cluster_enabled": True, "cluster_state": "ok", "migrations": ()}
    upload()
    join("m", "r", "liar")
    say(
        beat("m", master_of("a:2", addresses=("a:1",), node_id="1" * 40, replica_node_ids=("2" * 40,), **cluster)),
        beat("r", replica_of("a:1", addresses=("a:2",), node_id="2" * 40, master_node_id="1" * 40, **cluster)),
        beat("liar", master_of(addresses=("e:1",), node_id="1" * 40, **cluster)),
    )
    assert member("liar").shard == member("m").shard == member("r").shard


def test_a_master_comes_after_the_replicas_of_a_stranger_that_two_nodes_list():
    upload()
    join("m", "r", "a-liar")
    honest = [beat("m", master_of("x:1", addresses=("a:1",))), beat("r", replica_of("x:1", addresses=("a:2",)))]
    say(*honest)
    ignore_replica("x:1", reason="It is switched off soon.")
    say(beat("a-liar", master_of("x:1", addresses=("e:1",))))
    after_a_minute()
    uid = start(nodes=("m", "r"), careful=ALL_AT_ONCE)
    assert phases(uid) == {"m": "scheduled", "r": "queued"}


def test_the_address_of_a_node_cannot_be_ignored():
    """The refusal names the nodes that report it, and what to do."""
    shard(ALL_THREE)
    expected = r"m \(a:2, a:3\).*as their own: liar, r1, r2\..*`modfleet nodes set NAME --address ADDRESS`"
    with pytest.raises(UnmanagedReplicaError, match=expected):
        start(nodes=("m", "r1", "r2"), careful=ALL_AT_ONCE)
    for address in ("a:2", "a:3"):
        ignore_replica(address, reason="A mistake.")
    assert (member("m").unmanaged, member("m").ignored) == (["a:2", "a:3"], [])
    with pytest.raises(UnmanagedReplicaError):
        start(nodes=("m", "r1", "r2"), careful=ALL_AT_ONCE)


@pytest.mark.parametrize("heal", ["addresses", "decommission"])
def test_a_person_ends_the_lie(heal):
    shard(ALL_THREE)
    if heal == "addresses":
        for node, address in (("m", "a:1"), ("r1", "a:2"), ("r2", "a:3")):
            set_address(node, address)
    else:
        decommission_node("liar")
    assert (member("m").replicas, member("m").unmanaged, member("m").claimants) == (["r1", "r2"], [], [])
    assert {member(each).shard for each in STATES} == {"m"}


@pytest.mark.parametrize("word", [master_of(addresses=("u:1",)), replica_of("a:2", addresses=("u:1",))])
def test_a_node_that_denies_to_be_the_replica_is_none(word):
    """Only its claim of an address speaks for it: the real replica may be no node, and lacks the module."""
    upload()
    join("m", "n", "liar")
    say(beat("m", master_of("u:1", addresses=("a:1",))))
    say(beat("n", master_of(addresses=("a:2",))), beat("liar", word, modules=[installed()]))
    after_a_minute()
    uid = start(nodes=("m",), careful=ALL_AT_ONCE)
    assert operation(uid, "m").phase == "scheduled"
    assert "waits for liar to copy m" in of_node(uid, "m").document["summary"]
    decommission_node("liar")
    assert member("m").unmanaged == ["u:1"]


def test_one_node_is_not_two_replicas():
    upload()
    join("m", "liar")
    say(beat("m", master_of("u:1", "u:2", addresses=("a:1",))))
    say(beat("liar", replica_of("a:1", addresses=("u:1", "u:2")), modules=[installed()]))
    assert member("m").unmanaged == ["u:1", "u:2"]


I_COPY_IT = replica_of("a:1", addresses=("e:1",))


def test_a_node_that_says_that_it_copies_a_master_lets_it_wait_until_a_person_decides():
    """The master itself does not list it, so it is not skipped. The wait names the node and the way out."""
    shard(I_COPY_IT)
    uid = start(nodes=("m", "r1", "r2"), careful=ALL_AT_ONCE)
    for replica in ("r1", "r2"):
        answer(uid, replica, inventory=inventory(installed()))
    advance(uid)
    row = operation(uid, "m")
    assert (row.phase, row.reason) == ("scheduled", "replica_lacks_module")
    assert "liar, which lacks the module and says that it copies m; m does not list it." in row.message
    assert "If that is wrong, decommission or revoke it." in row.message
    decommission_node("liar")
    advance(uid)
    assert operation(uid, "m").phase == "queued"


def test_a_replica_that_its_master_lists_is_believed():
    shard(master_of(addresses=("e:1",)))
    repeat("r1")
    uid = start(nodes=("m",), careful=ALL_AT_ONCE)
    assert (operation(uid, "m").phase, operation(uid, "m").reason) == ("skipped", "replica_lacks_module")


@pytest.mark.parametrize(
    "claim", [{"role": "replica", "master": "a:1"}, {"addresses": ("a:2",)}], ids=["copies the master", "is a replica"]
)
def test_its_slots_keep_no_server_of_another_shard_waiting(claim):
    slots = SlotMigration(slots="5", source="s:1", target="t:1", atomic=False)
    lie: dict[str, Any] = {"cluster_enabled": True, "cluster_state": "ok", "migrations": (slots,)}
    named = replica_of("a:1", **lie, addresses=("e:1",)) if "role" in claim else master_of(**lie, **claim)
    upload()
    join(*STATES, "liar")
    cluster: dict[str, Any] = {"cluster_enabled": True, "cluster_state": "ok", "migrations": ()}
    honest = {name: replace(state, **cluster) for name, state in STATES.items()}
    say(*(beat(name, state) for name, state in honest.items()), beat("liar", named))
    say(*(beat(name, state) for name, state in honest.items()))
    assert {name: member(name).not_ready for name in STATES} == dict.fromkeys(STATES, "")
    assert member("liar").not_ready == "server_not_ready"


def test_two_strangers_in_a_row_do_not_split_a_shard():
    """A master, two servers without agents, and a replica of the second one: INFO has one replication id for all."""
    upload()
    upload("other", content="c9")
    join("m", "r")
    say(
        beat("m", master_of("x:1", addresses=("a:1",), replication_id="f" * 40)),
        beat("r", replica_of("y:1", addresses=("a:2",), replication_id="f" * 40)),
    )
    ignore_replica("x:1", reason="It is decommissioned.")
    after_a_minute()
    assert member("m").shard == member("r").shard
    uid = start(nodes=("m", "r"), careful=ALL_AT_ONCE)
    assert phases(uid) == {"m": "scheduled", "r": "queued"}
    answer(uid, "r", inventory=inventory(installed()))
    assert phases(uid)["m"] == "queued"


def test_a_lie_during_a_rollout_is_named_in_the_wait():
    shard(master_of(addresses=("e:1",)))
    uid = start(nodes=("m", "r1", "r2"), careful=ALL_AT_ONCE)
    say(beat("liar", master_of(addresses=("a:2",))))
    repeat("r1", "r2")
    assert operation(uid, "m").phase == "scheduled"
    assert member("m").claimants == ["liar", "r1"]
