"""The place of each node in its shard, from what all nodes report. A node that lies changes only the places of servers
that it names."""

import re
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.errors import InvalidAddressError
from rollout.domain.topology.addresses import PATTERN, canonical, checked, is_loopback, is_replica_address, shown
from rollout.domain.topology.places import Place, places_of
from rollout.domain.topology.servers import Peer, Server, ServerFacts, facts_of, replication_of
from rollout.domain.words import SHOWN
from rollout.messages import MOST_REPLICAS, Replica, Replication, ServerState


def at(name: str) -> str:
    return f"10.0.0.{name}:6379"


def server(name, *, of=None, replicas=(), address="", addresses=None, **facts):
    """`of`: the address of its master."""
    reported = ServerFacts(
        role="replica" if of else "master",
        master=Peer(address=of) if of else None,
        replicas=tuple(replicas),
        addresses=(at(name),) if addresses is None else addresses,
    )
    return Server(node=name, address=address, facts=replace(reported, **facts))


def test_a_master_with_replicas_and_a_replica_of_a_replica():
    found = places_of(
        [
            server("1", replicas=[at("2"), at("3")]),
            server("2", of=at("1"), replicas=[at("4")]),
            server("3", of=at("1")),
            server("4", of=at("2")),
        ]
    )
    assert {name: (each.shard, each.role, each.master, each.depth, each.replicas) for name, each in found.items()} == {
        "1": ("1", "master", "", 0, ("2", "3")),
        "2": ("1", "replica", "1", 1, ("4",)),
        "3": ("1", "replica", "1", 1, ()),
        "4": ("1", "replica", "2", 2, ()),
    }


def test_a_server_alone_is_a_shard():
    assert places_of([server("1")]) == {"1": Place(shard="1", role="master")}


def test_a_server_that_is_not_known_is_a_shard():
    assert places_of([Server(node="1")]) == {"1": Place(shard="1", role="")}


def test_a_replica_without_an_agent_is_unmanaged_unless_a_person_accepts_it():
    fleet = [server("1", replicas=["10.0.0.9:6379", at("2")]), server("2", of=at("1"))]
    assert places_of(fleet)["1"].unmanaged == ("10.0.0.9:6379",)
    accepted = places_of(fleet, {"10.0.0.9:6379"})["1"]
    assert (accepted.unmanaged, accepted.ignored, accepted.replicas) == ((), ("10.0.0.9:6379",), ("2",))


def test_a_node_is_never_ignored():
    found = places_of([server("1", replicas=[at("2")]), server("2", of=at("1"))], {at("2")})["1"]
    assert (found.replicas, found.ignored) == (("2",), ())


def test_replicas_of_a_master_without_an_agent_are_one_shard():
    found = places_of([server("1", of="redis:6379"), server("2", of="redis:6379"), server("3", of=at("1"))])
    assert {each.shard for each in found.values()} == {"redis:6379"}
    assert [found[name].depth for name in "123"] == [1, 1, 2]
    assert (found["1"].unmanaged_master, found["3"].unmanaged_master, found["3"].master) == ("redis:6379", "", "1")


def test_replicas_of_a_replica_without_an_agent_stay_in_the_shard():
    """Listed by its address, or by its id in a cluster. Also if a person has accepted it."""
    by_address = [
        Server(node="m", facts=ServerFacts(role="master", replicas=("x:1",), addresses=("m:1",))),
        Server(node="r", facts=ServerFacts(role="replica", master=Peer(address="x:1"), addresses=("r:1",))),
        Server(node="s", facts=ServerFacts(role="replica", master=Peer(address="r:1"))),
    ]
    by_id = [
        Server(node="m", facts=ServerFacts(role="master", replica_ids=("x",))),
        Server(
            node="r", facts=ServerFacts(role="replica", master=Peer(address="?:0", node_id="x"), addresses=("r:1",))
        ),
        Server(node="s", facts=ServerFacts(role="replica", master=Peer(address="r:1"))),
    ]
    for servers, ignored in ((by_address, ()), (by_address, ("x:1",)), (by_id, ())):
        found = places_of(servers, ignored)
        assert {name: (each.shard, each.depth, each.master) for name, each in found.items()} == {
            "m": ("m", 0, ""),
            "r": ("m", 2, ""),
            "s": ("m", 3, "r"),
        }
        assert found["m"].replicas == ("r",)


def test_a_loop_through_a_server_without_an_agent_has_a_top():
    found = places_of(
        [
            Server(node="a", facts=ServerFacts(role="replica", master=Peer(address="x:1"), addresses=("a:1",))),
            Server(node="b", facts=ServerFacts(role="replica", master=Peer(address="a:1"), replicas=("x:1",))),
        ]
    )
    assert {each.shard for each in found.values()} == {"x:1"}


def test_a_replica_that_does_not_tell_its_master():
    found = places_of([server("1", role="replica"), server("2", role="replica", master=Peer(address=":"))])
    assert {name: (each.shard, each.unmanaged_master, each.depth) for name, each in found.items()} == {
        "1": ("1", "unknown", 1),
        "2": ("2", "unknown", 1),
    }


def test_an_address_that_is_not_known_is_the_address_of_none():
    fleet = [server("1", role="replica", master=Peer(address=":")), server("2", addresses=("", ":", "x"))]
    fleet.append(server("3", role="replica", master=Peer(address="x")))
    assert [each.master for each in places_of(fleet).values()] == ["", "", ""]


def test_a_replica_whose_own_word_differs_from_the_list_of_a_master():
    """It follows its own word. The master still counts it: it may copy it again."""
    ids = {"1": "e", "2": "f", "3": "f"}
    fleet = [server("1", replicas=[at("3")]), server("2", replicas=[at("3")]), server("3", of=at("2"))]
    found = places_of([replace(each, facts=replace(each.facts, replication_id=ids[each.node])) for each in fleet])
    assert (found["1"].shard, found["3"].shard, found["3"].master) == ("1", "2", "2")
    assert (found["1"].replicas, found["2"].replicas) == (("3",), ("3",))
    fleet[1] = server("2")
    assert {each.shard for each in places_of(fleet).values()} == {"1"}, "which of them it copies is not certain"


def test_a_replica_that_lost_its_connection_is_not_in_the_list():
    assert places_of([server("1"), server("2", of=at("1"))])["1"].replicas == ("2",)


def test_replicas_that_are_counted_but_not_named():
    fleet = [server("1", unnamed=3), server("2", of=at("1"))]
    assert places_of(fleet)["1"].unmanaged == ("2 more",)


def test_an_address_of_two_nodes_is_the_address_of_none():
    fleet = [server("1", replicas=[at("2")]), server("2", of=at("1")), server("3", addresses=(at("2"),))]
    found = places_of(fleet)["1"]
    assert (found.replicas, found.unmanaged) == (("2",), (at("2"),))


@pytest.mark.parametrize(
    "liar",
    [server("0", addresses=(at("1"),)), server("0", node_id="a"), server("0", addresses=(at("1"), at("2"), at("3")))],
)
def test_a_node_that_reports_the_names_of_others_does_not_split_their_shard(liar):
    fleet = [
        server("1", node_id="a", replicas=[at("2"), at("3")]),
        server("2", role="replica", master=Peer(address=at("1"), node_id="a")),
        server("3", of=at("1")),
    ]
    found = places_of([*fleet, liar])
    assert {found[name].shard for name in "123"} == {found["1"].shard}


def test_no_person_accepts_an_address_that_two_nodes_report():
    fleet = [server("1", replicas=[at("2")]), server("2", of=at("1")), server("3", addresses=(at("2"),))]
    found = places_of(fleet, {at("2")})["1"]
    assert (found.unmanaged, found.ignored, found.claimants) == ((at("2"),), (), ("2", "3"))
    found = places_of([fleet[0], replace(fleet[1], address=at("2")), fleet[2]], {at("2")})["1"]
    assert (found.replicas, found.unmanaged, found.claimants) == (("2",), (), ())


def test_no_person_accepts_an_id_that_two_nodes_report():
    fleet = [server("1", replica_ids=("b",)), server("2", of=at("1"), node_id="b"), server("3", node_id="b")]
    found = places_of(fleet, {"b"})["1"]
    assert (found.unmanaged, found.ignored, found.claimants) == (("b",), (), ("2", "3"))


def test_all_nodes_that_list_a_replica_without_an_agent_are_above_its_replicas():
    found = places_of([server("2", replicas=["x:1"]), server("3", of="x:1"), server("1", replicas=["x:1"])], {"x:1"})
    assert {each.shard for each in found.values()} == {"1"}
    assert [found[name].replicas for name in "12"] == [("3",), ("3",)]


def test_two_replicas_of_one_master_are_not_one_node():
    fleet = [server("1", replicas=["x:1", "x:2"]), server("2", of=at("1"), addresses=("x:1", "x:2"))]
    found = places_of(fleet, {"x:1", "x:2"})["1"]
    assert (found.replicas, found.unmanaged, found.claimants) == (("2",), ("x:1", "x:2"), ("2",))


def test_many_nodes_that_report_one_address():
    fleet = [server(str(number), of="x:1", replicas=["x:1"], addresses=("x:1",)) for number in range(5_000)]
    found = places_of(fleet)
    assert {each.shard for each in found.values()} == {"x:1"}
    assert found["4999"].claimants == ("0", "1", "10", "100", "1000", "1001", "1002", "1003", "1004", "1005")


def test_the_address_that_a_person_set_means_its_node():
    """Also if another node reports it. Those that the node reports itself mean nothing then."""
    fleet = [
        server("1", replicas=["lb:7000", at("2")]),
        server("2", of=at("1"), address="lb:7000"),
        server("3", addresses=("lb:7000",)),
    ]
    found = places_of(fleet)["1"]
    assert (found.replicas, found.unmanaged) == (("2",), (at("2"),))


def test_a_loopback_address_means_a_server_in_the_same_network():
    own, other = "127.0.0.1:1", "127.0.0.1:2"
    fleet = [
        server("1", network="a", replicas=[other], addresses=(own,)),
        server("2", network="a", of=own, addresses=(other,)),
        server("3", network="b", of=own, addresses=(other,)),
    ]
    found = places_of(fleet)
    assert (found["1"].replicas, found["2"].master) == (("2",), "1")
    assert found["3"].unmanaged_master == own


def test_a_loopback_address_means_nothing_if_the_networks_are_not_known():
    own, other = "127.0.0.1:1", "127.0.0.1:2"
    found = places_of([server("1", replicas=[other], addresses=(own,)), server("2", of=own, addresses=(other,))])
    assert (found["1"].unmanaged, found["2"].unmanaged_master) == ((other,), own)


def test_a_cluster_node_id_counts_more_than_an_address():
    master = server("1", node_id="a", replicas=["nat:8"], replica_ids=("b",))
    replica = server("2", node_id="b", addresses=("own:1",), role="replica", master=Peer(node_id="a", address="nat:9"))
    found = places_of([master, replica])
    assert (found["2"].master, found["1"].replicas, found["1"].unmanaged) == ("1", ("2",), ())


@pytest.mark.parametrize(
    ("replicas", "ids", "ignored", "unmanaged"),
    [
        (["nat:2", "nat:3"], ("b", "c"), (), ("nat:2", "nat:3")),  # one of them is c: which one is not known
        (["nat:2", "nat:3"], ("b", "c"), ("nat:3",), ("nat:2",)),
        (["nat:2", "nat:3"], ("b", "c"), ("nat:3", "nat:2"), ()),
        (["nat:2", "nat:3"], ("b", "c"), ("nat:3", "c"), ()),  # the other one is b
        (["nat:2"], ("b", "c"), (), ("nat:2",)),
        ([], ("b", "c"), (), ("c",)),  # it is not connected
        ([], ("b", "c"), ("c",), ()),
        (["nat:2", "nat:3"], ("b",), (), ("nat:2", "nat:3")),
        ([at("2"), "nat:3"], ("b",), (), ("nat:3",)),
        ([at("2"), "nat:3"], ("b",), ("nat:3",), ()),
    ],
)
def test_replicas_that_only_the_cluster_or_only_the_master_names(replicas, ids, ignored, unmanaged):
    fleet = [server("1", node_id="a", replicas=replicas, replica_ids=ids), server("2", node_id="b", of=at("1"))]
    assert places_of(fleet, ignored)["1"].unmanaged == unmanaged


def test_an_empty_id_is_the_id_of_none():
    fleet = [server("1", replicas=["lb:7000"], replica_ids=("",)), server("2", of=at("1"), address="lb:7000")]
    assert places_of(fleet)["1"].unmanaged == ("",)


def test_an_id_of_two_nodes_is_the_id_of_none():
    fleet = [server("1", replica_ids=("b",)), server("2", of=at("1"), node_id="b"), server("3", node_id="b")]
    assert places_of(fleet)["1"].unmanaged == ("b",)


def test_a_replica_does_not_have_the_address_of_its_master():
    """A node claims the address of a replica without an agent, which it copies."""
    stranger = "10.0.0.9:6379"
    found = places_of([server("1", replicas=[stranger]), server("2", of=stranger, addresses=(at("2"), stranger))])
    assert (found["1"].unmanaged, found["1"].claimants) == ((stranger,), ("2",))


def test_an_address_with_another_id_is_no_match():
    replica = server("2", role="replica", master=Peer(address=at("1"), node_id="a"))
    assert places_of([server("1", node_id="x"), replica])["2"].unmanaged_master == at("1")


def test_loops_have_a_top():
    found = places_of(
        [server("1", of=at("2")), server("2", of=at("3")), server("3", of=at("1")), server("4", of=at("3"))]
    )
    assert {name: (each.shard, each.depth) for name, each in found.items()} == {
        "1": ("1", 0),
        "2": ("1", 2),
        "3": ("1", 1),
        "4": ("1", 2),
    }
    alone = places_of([server("1", of=at("1"))])["1"]
    assert (alone.shard, alone.master, alone.unmanaged_master) == (at("1"), "", at("1"))


def test_a_chain_of_ten_thousand():
    fleet = [server(str(number), of=at(str(number + 1))) for number in range(10_000)]
    assert places_of(fleet)["0"].depth == 10_000


NAMES = st.sampled_from("123456")
ADDRESSES = st.one_of(NAMES.map(at), st.sampled_from(["", ":", "x", "127.0.0.1:1", "::1:1", "\ud7ff:0"]))
PEERS = st.builds(Peer, address=ADDRESSES, node_id=st.sampled_from(["", "a", "b", "c"]))
FACTS = st.builds(
    ServerFacts,
    role=st.sampled_from(["master", "replica", "", "odd"]),
    master=st.none() | PEERS,
    replicas=st.lists(ADDRESSES, max_size=4).map(tuple),
    unnamed=st.integers(0, 3),
    replica_ids=st.lists(st.sampled_from(["", "a", "b", "c"]), max_size=3).map(tuple),
    node_id=st.sampled_from(["", "a", "b", "c"]),
    addresses=st.lists(ADDRESSES, max_size=3).map(tuple),
    network=st.sampled_from(["", "h"]),
    replication_id=st.sampled_from(["", "e", "f"]),
).map(lambda facts: facts if facts.role == "replica" else replace(facts, master=None))
SERVERS = st.builds(Server, node=NAMES, address=st.just("") | ADDRESSES, facts=FACTS)
FLEETS = st.lists(SERVERS, max_size=6, unique_by=lambda each: each.node)


@given(FLEETS, st.sets(ADDRESSES), st.randoms())
def test_any_facts_lead_to_places_in_any_order(fleet, ignored, random):
    found = places_of(fleet, ignored)
    shuffled = random.sample(fleet, len(fleet))
    assert found == places_of(shuffled, ignored)
    assert found.keys() == {each.node for each in fleet}
    for name, place in found.items():
        assert place.master != name
        assert name not in place.replicas
        assert not place.master or (name in found[place.master].replicas and place.shard == found[place.master].shard)
        claimed = {address for each in fleet if each.node != name for address in (each.address, *each.facts.addresses)}
        assert ignored.isdisjoint({*place.unmanaged} - claimed)


@given(FLEETS, SERVERS)
def test_a_liar_never_splits_a_shard(fleet, liar):
    """Two nodes that are in one shard without it stay in one shard. It does not know the replication id."""
    honest = [each for each in fleet if each.node != liar.node and each.facts.replication_id]
    facts = replace(liar.facts, replication_id="")
    before, after = places_of(honest), places_of([*honest, replace(liar, address="", facts=facts)])
    for one, other in combinations(before, 2):
        assert before[one].shard != before[other].shard or after[one].shard == after[other].shard


def named_by(*servers):
    """Return all addresses and ids that the servers claim or mention."""
    found = set()
    for each in servers:
        facts, master = each.facts, each.facts.master or Peer()
        addresses = (each.address, master.address, *facts.addresses, *facts.replicas)
        found |= {*addresses, facts.node_id, master.node_id, facts.replication_id, *facts.replica_ids}
    return found - {""}


@given(FLEETS, SERVERS)
def test_a_lie_changes_only_shards_that_it_names(fleet, liar):
    honest = [each for each in fleet if each.node != liar.node]
    before, after = places_of(honest), places_of([*honest, liar])
    named = named_by(liar)
    for each in honest:
        if before[each.node] != after[each.node]:
            shards = {before[each.node].shard, after[each.node].shard}
            related = {*before[each.node].replicas, *after[each.node].replicas}
            members = [
                other
                for other in honest
                if other.node in related or {before[other.node].shard, after[other.node].shard} & shards
            ]
            assert named_by(*members) & named


def test_the_facts_that_matter_of_a_server():
    state = ServerState(
        role="replica",
        master="m:1",
        replicas=(Replica(address="B:1"), Replica(address="a:1")),
        replica_count=4,
        backups=1,
        replication=Replication(role="replica", master="[::1]:1", replicas=("a:1", "b:1")),
        node_id="me",
        master_node_id="m",
        replica_node_ids=("b", "a"),
        addresses=("y:1", "x:1"),
        network="n",
    )
    assert facts_of(state) == ServerFacts(
        role="replica",
        master=Peer(address="::1:1", node_id="m"),
        replicas=("a:1", "b:1"),
        replica_ids=("a", "b"),
        node_id="me",
        addresses=("x:1", "y:1"),
        network="n",
    )


def test_a_long_list_of_replicas_is_cut():
    names = tuple(f"{number:02}:1" for number in range(MOST_REPLICAS))
    replication = Replication(role="master", replicas=names)
    assert facts_of(ServerState(role="master", replica_count=40, backups=1, replication=replication)).unnamed == 7


def test_an_older_agent_sends_no_replication():
    """It leaves out the list if its heartbeat is too large."""
    state = ServerState(role="master", replicas=(Replica(address="b:1"), Replica(address="a:1")), replica_count=2)
    assert replication_of(state) == Replication(role="master", replicas=("a:1", "b:1"))
    assert (facts_of(state).replicas, facts_of(state).unnamed) == (("a:1", "b:1"), 0)
    assert facts_of(ServerState(role="master", replica_count=2)).unnamed == 2


def test_addresses():
    assert canonical("[FE80::1]:6379") == "fe80::1:6379"
    assert checked(" Redis-1.example:6379 ") == "redis-1.example:6379"
    assert [is_loopback(each) for each in ("127.0.0.1:1", "::1:1", "localhost:1", "10.0.0.1:1")] == [
        True,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    "address",
    [
        "",
        "redis",
        "redis:",
        "redis:0",
        "redis:65536",
        ":6379",
        "-a:1",
        "--reason:1",
        "re dis:1",
        "redis:\u0661",
        "a:1\n:2",
    ],
)
def test_an_address_that_cannot_be_used(address):
    assert not is_replica_address(address)
    assert not re.fullmatch(PATTERN, address)
    with pytest.raises(InvalidAddressError, match="write HOST:PORT"):
        checked(address)


@pytest.mark.parametrize("text", ["a:1", "::1:6379", "f" * 40, "2 more", "unknown"])
def test_an_address_is_shown_as_it_is(text):
    assert shown(text) == text


@given(st.text(max_size=300))
def test_other_text_is_shown_short_and_escaped(text):
    if is_replica_address(text) or shown(text) == text:
        return
    assert shown(text).isascii()
    assert shown(text).isprintable()
    assert shown(text)[0] in "'\""
    assert len(shown(text)) <= 10 * SHOWN + 5
