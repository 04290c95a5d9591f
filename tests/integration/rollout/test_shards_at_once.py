"""Several processes that place nodes at the same moment; on connections of their own, with real commits."""

import pytest
from django.db import transaction

from rollout.models import ShardMember
from rollout.process.shards import place_members
from rollout.services.ignored_replicas import ignore_replica
from rollout.services.nodes import decommission_node
from tests.plugins.databases import at_once
from tests.recorded_fleet import differences, fleet
from tests.recorded_shards import beat, master_of, member, replica_of, say

pytestmark = pytest.mark.usefixtures("committed_db")


def is_settled():
    """Nothing changes if all nodes are placed again."""
    with transaction.atomic():
        return place_members() == set()


def test_the_nodes_of_a_shard_report_at_the_same_moment():
    names = fleet(6)
    own = {name: (f"a:{number}",) for number, name in enumerate(names)}
    for round_number in range(4):
        top = round_number % 6
        beats = [
            beat(name, master_of(addresses=own[name]) if number == top else replica_of(f"a:{top}", addresses=own[name]))
            for number, name in enumerate(names)
        ]
        at_once(*(lambda some=some: say(*some) for some in (beats[:1], beats[1:2], beats[2:4], beats[4:])))
        assert is_settled()
        assert {row.shard for row in ShardMember.objects.all()} == {names[top]}
        assert member(names[top]).replicas == [each for each in names if each != names[top]]


def test_places_change_for_several_reasons_at_the_same_moment():
    names = fleet(4)
    say(*(beat(name, master_of("b:9", addresses=(f"a:{number}",))) for number, name in enumerate(names)))
    at_once(
        lambda: ignore_replica("b:9", reason="A backup"),
        lambda: decommission_node(names[0]),
        lambda: say(beat(names[1], replica_of("a:2", addresses=("a:1",)))),
        lambda: say(
            *(
                beat(name, master_of("b:9", addresses=(f"a:{number}",), loading=True))
                for number, name in enumerate(names)
                if number > 1
            )
        ),
    )
    assert is_settled()
    assert names[0] not in {row.node for row in ShardMember.objects.all()}
    assert [(row.unmanaged, row.not_ready) for row in ShardMember.objects.exclude(node=names[1])] == [
        ([], "server_not_ready")
    ] * 2
    assert (member(names[1]).master, member(names[2]).replicas) == (names[2], [names[1]])
    assert differences() == {}
