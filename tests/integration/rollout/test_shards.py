"""The rows of shard members: written by heartbeats, for all nodes whose place changes."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from eventstore import head
from rollout.delivery.ingestion import shard_members
from rollout.delivery.ingestion.shard_members import BURST
from rollout.messages import Action, ServerProblem, ServerState, SlotMigration
from rollout.models import NodeModule, ShardMember
from rollout.process.advance import advance
from rollout.services.ignored_replicas import ignore_replica
from rollout.services.nodes import decommission_node, forget_node, revoke_node, set_address
from tests.recorded_fleet import fleet, installed, join, know, operation, phases, start
from tests.recorded_shards import beat, master_of, member, replica_of, say

pytestmark = pytest.mark.django_db

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
AWAY = ServerState(problem=ServerProblem.SERVER_UNREACHABLE, message="The server cannot be reached.")


def test_a_server_alone():
    fleet(1)
    say(beat("n0000", host="h"))
    row = member("n0000")
    assert (row.shard, row.role, row.master, row.depth, row.unmanaged, row.host) == ("n0000", "master", "", 0, [], "h")
    assert row.replication == {"role": "master", "master": "", "replicas": []}
    assert (row.not_ready, row.not_ready_since) == ("", None)


def test_a_master_two_replicas_and_a_replica_of_a_replica():
    fleet(4)
    say(
        beat("n0000", master_of("a:2", "a:3", addresses=("a:1",))),
        beat("n0001", replica_of("a:1", "a:4", addresses=("a:2",))),
        beat("n0002", replica_of("a:1", addresses=("a:3",))),
        beat("n0003", replica_of("a:2", addresses=("a:4",))),
    )
    rows = {row.node: (row.shard, row.role, row.master, row.depth, row.replicas) for row in ShardMember.objects.all()}
    assert rows == {
        "n0000": ("n0000", "master", "", 0, ["n0001", "n0002"]),
        "n0001": ("n0000", "replica", "n0000", 1, ["n0003"]),
        "n0002": ("n0000", "replica", "n0000", 1, []),
        "n0003": ("n0000", "replica", "n0001", 2, []),
    }


def test_a_replica_that_loads_its_data_stays_the_replica_of_its_master():
    """It then does not say by which addresses others know it."""
    fleet(2)
    say(beat("n0000", master_of("a:2", addresses=("a:1",))), beat("n0001", replica_of("a:1", addresses=("a:2",))))
    loads = {"loading": True, "problem": ServerProblem.SERVER_LOADING}
    say(beat("n0001", replica_of("a:1", **loads)))
    assert (member("n0000").replicas, member("n0000").unmanaged) == (["n0001"], [])
    assert member("n0001").not_ready == "server_not_ready"


def test_a_failover_moves_all_members():
    fleet(3)
    say(
        beat("n0000", master_of("a:2", "a:3", addresses=("a:1",))),
        beat("n0001", replica_of("a:1", addresses=("a:2",))),
        beat("n0002", replica_of("a:1", addresses=("a:3",))),
    )
    say(beat("n0001", master_of("a:3", addresses=("a:2",))))
    assert (member("n0001").shard, member("n0001").depth) == ("n0001", 0)
    say(beat("n0002", replica_of("a:2", addresses=("a:3",))), beat("n0000", replica_of("a:2", addresses=("a:1",))))
    assert {(row.shard, row.depth) for row in ShardMember.objects.all()} == {("n0001", 0), ("n0001", 1)}


def test_a_new_node_takes_the_place_of_an_unmanaged_replica():
    fleet(1)
    say(beat("n0000", master_of("a:2", addresses=("a:1",))))
    assert member("n0000").unmanaged == ["a:2"]
    join("new")
    say(beat("new", replica_of("a:1", addresses=("a:2",))))
    assert (member("n0000").unmanaged, member("n0000").replicas) == ([], ["new"])
    decommission_node("new")
    assert (member("n0000").unmanaged, member("n0000").replicas) == (["a:2"], [])


def test_a_server_that_is_not_ready():
    fleet(1)
    say(beat("n0000", master_of(loading=True)))
    row = member("n0000")
    assert (row.not_ready, row.not_ready_message) == ("server_not_ready", "The server is loading its data.")
    assert row.not_ready_since is not None
    ShardMember.objects.update(not_ready_since=LONG_AGO)
    say(beat("n0000", master_of(cluster_enabled=True, cluster_state="fail")))  # another message, the same reason
    row = member("n0000")
    assert (row.not_ready_message, row.not_ready_since) == ("The state of the cluster is fail.", LONG_AGO)
    say(beat("n0000", master_of(backups=1)))
    row = member("n0000")
    assert (row.not_ready, row.not_ready_since == LONG_AGO) == ("backup_running", False)
    say(beat("n0000"))
    assert (member("n0000").not_ready, member("n0000").not_ready_message, member("n0000").not_ready_since) == (
        "",
        "",
        None,
    )


def test_a_replica_waits_while_slots_of_its_master_migrate():
    fleet(2)
    cluster: dict[str, Any] = {"cluster_enabled": True, "cluster_state": "ok", "migrations": ()}
    moving = (SlotMigration(slots="93", source="a:1", target="b:1"),)
    master, replica = master_of(addresses=("a:1",), **cluster), replica_of("a:1", **cluster)
    say(beat("n0000", master), beat("n0001", replica))
    assert member("n0001").not_ready == ""
    say(beat("n0000", replace(master, migrations=moving)))
    say(beat("n0001", replica))
    assert member("n0001").not_ready_message == "Slot 93 migrates from a:1 to b:1, as n0000 says."
    say(beat("n0000", master), beat("n0001", replica))
    assert member("n0001").not_ready == ""


def test_replicas_of_a_master_that_is_no_node():
    fleet(3)
    say(beat("n0000", replica_of("10.0.0.9:6379")), beat("n0001", replica_of("10.0.0.9:6379")), beat("n0002"))
    rows = {row.node: (row.shard, row.depth, row.unmanaged_master) for row in ShardMember.objects.all()}
    assert rows == {
        "n0000": ("10.0.0.9:6379", 1, "10.0.0.9:6379"),
        "n0001": ("10.0.0.9:6379", 1, "10.0.0.9:6379"),
        "n0002": ("n0002", 0, ""),
    }


def test_an_agent_that_sends_no_facts_has_no_place():
    know("old")
    say(beat("old") | {"facts": None})
    assert not ShardMember.objects.exists()


def test_no_event_and_one_query_while_nothing_changes(django_assert_num_queries):
    names = fleet(20)
    say(*(beat(name) for name in names))
    before = head()
    with CaptureQueriesContext(connection) as queries:
        say(*(beat(name) for name in names))
    assert head() == before
    assert len([each for each in queries if "shardmember" in each["sql"]]) == 1


def test_a_change_takes_as_many_queries_however_many_nodes_there_are():
    names = fleet(40)
    say(*(beat(name) for name in names))
    counted = []
    for number, some in enumerate((names[:1], names)):
        with CaptureQueriesContext(connection) as queries:
            say(*(beat(name, master_of(f"10.0.0.9:{number}")) for name in some))
        counted.append(len([each for each in queries if "shardmember" in each["sql"]]))
    assert counted == [3, 3]  # the nodes of the heartbeats, all nodes, the write


def test_only_rows_that_change_are_written():
    names = fleet(10)
    say(*(beat(name) for name in names))
    with CaptureQueriesContext(connection) as queries:
        say(*(beat(name, master_of("10.0.0.9:1") if name == "n0003" else master_of()) for name in names))
    (write,) = [each["sql"] for each in queries if 'INSERT INTO "rollout_shardmember"' in each["sql"]]
    assert ("n0003" in write, "n0004" in write) == (True, False)
    assert member("n0003").unmanaged == ["10.0.0.9:1"]


def test_the_place_stays_while_the_server_is_away():
    fleet(1)
    say(beat("n0000", replica_of("m:1")))
    say(beat("n0000", AWAY))
    row = member("n0000")
    assert (row.role, row.unmanaged_master, row.replication["master"]) == ("replica", "m:1", "m:1")


def test_modules_count_as_loaded_while_the_server_is_away():
    """A removal goes to the master first, also if its heartbeats say for a while that nobody can ask it."""
    fleet(2)
    one, other = installed(), installed(module_name="other", content="c2")
    master = master_of("a:2", addresses=("a:1",))
    say(
        beat("n0000", master, modules=[one, other]), beat("n0001", replica_of("a:1", addresses=("a:2",)), modules=[one])
    )
    files = [replace(each, loaded=False) for each in (one, replace(other, content_sha256="c3"))]
    say(beat("n0000", AWAY, modules=files))
    assert (observed("greet"), observed("other")) == ("load", "files")
    uid = start(action=Action.REMOVE, nodes=["n0001"])
    assert (operation(uid, "n0001").phase, operation(uid, "n0001").reason) == ("skipped", "master_has_module")
    say(beat("n0000", master, modules=files))
    assert observed("greet") == "files"


def observed(module_name: str) -> str:
    """What the node n0000 was last seen to have of the module."""
    return NodeModule.objects.get(node="n0000", module_name=module_name).observed


def test_a_node_that_moves_all_the_time_is_placed_now_and_then(monkeypatch):
    monkeypatch.setattr(shard_members, "SECONDS", 1e6)
    fleet(1)
    for number in range(2 * BURST):
        say(beat("n0000", master_of(f"a:{number + 1}")))
    row = member("n0000")
    assert row.unmanaged == row.replication["replicas"] == [f"a:{BURST - 1}"]  # one more was recorded when it joined
    say(beat("n0000", master_of("a:1", loading=True)))
    assert (member("n0000").unmanaged, member("n0000").not_ready) == (row.unmanaged, "server_not_ready")
    ShardMember.objects.update(pace=row.pace - 1e6)
    say(beat("n0000", master_of("a:1")))
    assert member("n0000").unmanaged == ["a:1"]


def test_a_server_that_was_never_seen():
    know("new")
    say(beat("new", AWAY))
    assert (member("new").role, member("new").shard) == ("", "new")


def test_a_rollout_goes_on_when_the_server_is_ready():
    fleet(1)
    say(beat("n0000", master_of(backups=1)))
    uid = start()
    assert phases(uid) == {"n0000": "scheduled"}
    say(beat("n0000", master_of()))
    assert phases(uid) == {"n0000": "queued"}


@pytest.mark.parametrize(
    "change",
    [
        lambda: ignore_replica("a:9", reason="A backup"),
        lambda: set_address("n0001", "a:9"),
        lambda: say(beat("n0001", replica_of("a:1", addresses=("a:9",)), modules=[installed()])),
        lambda: say(beat("n0000", master_of(addresses=("a:1",)))),
    ],
)
def test_a_rollout_goes_on_when_the_places_of_nodes_change(change):
    """Also if the change concerns another node."""
    fleet(2)
    say(
        beat("n0000", master_of(addresses=("a:1",))),
        beat("n0001", replica_of("a:1", addresses=("b:1",)), modules=[installed()]),
    )
    uid = start(nodes=("n0000",), released=False)
    say(beat("n0000", master_of("a:9", addresses=("a:1",))))
    advance(uid)
    assert phases(uid) == {"n0000": "scheduled"}
    change()
    assert phases(uid) == {"n0000": "queued"}


def test_in_the_console(alice):
    fleet(3)
    say(
        beat("n0000", master_of("a:2", "<b>:9", addresses=("a:1",))),
        beat("n0001", replica_of("a:1", addresses=("a:2",), loading=True)),
    )
    client = Client()
    client.force_login(alice)
    page = client.get("/admin/rollout/node/n0001/change/").content.decode()
    for words in ("Shard", "/admin/rollout/node/n0000/change/", "&lt;b&gt;:9", "The server is loading its data."):
        assert words in page
    know("old")
    assert "Unmanaged replicas" not in client.get("/admin/rollout/node/old/change/").content.decode()
    found = client.get("/admin/rollout/node/?q=n0000").content.decode()
    assert ("n0001" in found, "n0002" in found) == (True, False)


@pytest.mark.parametrize("leave", [decommission_node, revoke_node, forget_node])
def test_a_node_that_leaves_has_no_place(leave):
    fleet(2)
    say(beat("n0000"), beat("n0001"))
    leave("n0000")
    assert [row.node for row in ShardMember.objects.all()] == ["n0001"]


def test_a_decommissioned_node_gets_its_place_back_when_its_agent_restarts():
    fleet(1)
    say(beat("n0000"))
    decommission_node("n0000")
    say(beat("n0000"))
    assert not ShardMember.objects.exists()
    join("n0000")
    say(beat("n0000"))
    assert member("n0000").shard == "n0000"
