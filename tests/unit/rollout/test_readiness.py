"""When a server may be changed, by its state alone. tests/integration/agent/test_place.py asks real servers."""

from dataclasses import fields, replace

import pytest

from rollout.messages import Reason, Replication, ServerState, SlotMigration
from rollout.readiness import what_changed, why_not_ready

READY = ServerState(role="master", loading=False, async_loading=False, cluster_enabled=False, backups=0)
REPLICA = replace(READY, role="replica", master="m:1", link_status="up", master_sync_in_progress=False)
CLUSTER = replace(READY, cluster_enabled=True, cluster_state="ok", migrations=())
ATOMIC = SlotMigration(slots="5-9", source="a:1", target="b:2", atomic=True)
MASTER = Replication(role="master", replicas=("a:1", "b:2"))


@pytest.mark.parametrize("state", [READY, REPLICA, CLUSTER, replace(READY, sentinels=None, addresses=(), node_id="")])
def test_it_works(state):
    assert why_not_ready(state) is None


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (replace(READY, loading=True), "The server is loading its data."),
        (replace(READY, async_loading=True), "The server is loading its data."),
        (replace(REPLICA, master_sync_in_progress=True), "The server synchronizes with its master m:1."),
        (replace(REPLICA, link_status="down"), "The server's link to its master m:1 is down."),
        (replace(REPLICA, link_status=""), "The server's link to its master m:1 is not known."),
        (replace(CLUSTER, cluster_state="fail"), "The state of the cluster is fail."),
        (replace(CLUSTER, migrations=(replace(ATOMIC, slots="5"),)), "Slot 5 migrates from a:1 to b:2."),
        (replace(CLUSTER, migrations=(ATOMIC,)), "Slots 5-9 migrate from a:1 to b:2."),
        (replace(READY, problem="server_silent", message="No answer."), "No answer."),
        (replace(READY, problem="of_a_newer_agent"), "The server cannot be used: of_a_newer_agent."),
    ],
)
def test_a_server_that_is_not_ready(state, words):
    assert why_not_ready(state) == (Reason.SERVER_NOT_READY, words)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1, "1 tool copies the server's data, such as `redis-cli --rdb`."),
        (2, "2 tools copy the server's data, such as `redis-cli --rdb`."),
    ],
)
def test_a_server_that_is_copied(count, words):
    assert why_not_ready(replace(READY, backups=count)) == (Reason.BACKUP_RUNNING, words)


def test_slots_of_another_node_of_the_shard():
    found = why_not_ready(CLUSTER, others={"a": CLUSTER, "m": replace(CLUSTER, migrations=(ATOMIC,))})
    assert found == (Reason.SERVER_NOT_READY, "Slots 5-9 migrate from a:1 to b:2, as m says.")


@pytest.mark.parametrize(
    ("state", "names", "right"),
    [
        (READY, ["role", "loading", "async_loading", "cluster_enabled", "backups"], "+info"),
        (REPLICA, ["master_sync_in_progress"], "+info"),
        (CLUSTER, ["cluster_state"], "+cluster|info"),
        (CLUSTER, ["migrations"], "+cluster|nodes"),
    ],
)
def test_a_needed_fact_that_is_not_known(state, names, right):
    defaults = {each.name: each.default for each in fields(ServerState)}
    for name in names:
        reason, message = why_not_ready(replace(state, **{name: defaults[name]})) or ("", "")
        assert reason is Reason.SERVER_NOT_READY
        assert message.startswith("It is not known ")
        assert f"Allow {right} " in message


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (MASTER, ""),
        (Replication(role="replica", master="m:1"), "The server is a replica now; it was a master."),
        (replace(MASTER, replicas=("b:2",)), "The server has lost the replica a:1."),
        (replace(MASTER, replicas=("a:1", "b:2", "c:3")), "The server has the replica c:3 now."),
        (
            replace(MASTER, replicas=("c:3",)),
            (
                "The server has the replica c:3 now. The server has lost the replica a:1. "
                "The server has lost the replica b:2."
            ),
        ),
    ],
)
def test_what_has_changed(now, words):
    assert what_changed(MASTER, now) == words


def test_another_master():
    before, now = Replication(role="replica", master="m:1"), Replication(role="replica", master="m:2")
    assert what_changed(before, now) == "The server's master is m:2 now; it was m:1."
