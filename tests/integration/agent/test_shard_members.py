"""Real servers are put into shards by what their agents report."""

import pytest

from rollout.models import ShardMember
from tests.integration.agent.shards import another, at, both, cluster_of, follow, state_of
from tests.recorded_fleet import know
from tests.recorded_shards import beat, say
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


def report(site, **servers):
    """Let one node after the other report its server."""
    know(*servers)
    for name, server in servers.items():
        say(beat(name, state_of(at(site, server))))


def places():
    rows = ShardMember.objects.order_by("node")
    return {row.node: (row.shard, row.role, row.master, row.depth, row.replicas, row.unmanaged) for row in rows}


@both
def test_a_master_a_replica_and_a_replica_of_it(site):
    with another(site, "middle") as middle, another(site, "below") as below:
        follow(middle, site.server)
        follow(below, middle)
        report(site, top=site.server, middle=middle, below=below)
        assert places() == {
            "top": ("top", "master", "", 0, ["middle"], []),
            "middle": ("top", "replica", "top", 1, ["below"], []),
            "below": ("top", "replica", "middle", 2, [], []),
        }
        assert [row.not_ready for row in ShardMember.objects.all()] == ["", "", ""]


@both
def test_a_replica_without_an_agent_and_a_failover(site):
    with another(site, "first") as first, another(site, "second") as second:
        follow(first, site.server)
        follow(second, site.server)
        report(site, top=site.server, first=first)
        (address,) = ShardMember.objects.get(node="top").unmanaged
        assert address == f"127.0.0.1:{second.call('CONFIG GET', 'port')['port']}"
        first.call("REPLICAOF", "NO", "ONE")
        follow(site.server, first)
        follow(second, first)
        report(site, top=site.server, first=first, second=second)
        assert places() == {
            "first": ("first", "master", "", 0, ["second", "top"], []),
            "second": ("first", "replica", "first", 1, [], []),
            "top": ("first", "replica", "first", 1, [], []),
        }


@both
def test_a_cluster(site):
    """Its servers are matched by their node ids, although they report no address that others know."""
    with cluster_of(site) as cluster:
        wait_for(lambda: state_of(site).replica_node_ids)
        report(site, first=cluster.first, second=cluster.second)
        (unmanaged,) = ShardMember.objects.get(node="first").unmanaged
        assert unmanaged.startswith("127.0.0.1:")
        know("replica")
        for name, server in (("first", cluster.first), ("replica", cluster.replica)):
            state = state_of(at(site, server))
            say(beat(name, state) | {"facts": {**beat(name, state)["facts"], "addresses": ()}})
        assert places() == {
            "first": ("first", "master", "", 0, ["replica"], []),
            "replica": ("first", "replica", "first", 1, [], []),
            "second": ("second", "master", "", 0, [], []),
        }
