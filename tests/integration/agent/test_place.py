"""What a heartbeat says of the server's place in its shard."""

import socket
import subprocess

import pytest

from rollout.agent.inspection.sockets import host_addresses
from rollout.agent.server import observation
from rollout.agent.server.call_history import CallHistory
from rollout.agent.server.call_outcomes import CallOutcomes
from rollout.messages import Reason, Replication, SlotMigration
from rollout.readiness import why_not_ready
from tests.integration.agent.conftest import VALKEY
from tests.integration.agent.shards import (
    another,
    at,
    both,
    cluster_of,
    copying,
    follow,
    port_of,
    state_of,
)
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


@both
def test_a_server_alone(site):
    state = state_of(site)
    assert state.replication == Replication(role="master")
    assert (state.addresses, state.backups, state.sentinels, state.migrations) == ((), 0, 0, None)
    assert (state.node_id, state.master_node_id, state.replica_node_ids) == ("", "", ())
    assert state.master_sync_in_progress is None
    assert why_not_ready(state) is None


@both
def test_a_replica_of_a_replica(site):
    with another(site, "master") as master, another(site, "below") as below:
        follow(site.server, master)
        follow(below, site.server)
        state = state_of(site)
        assert state.replication == Replication(
            role="replica", master=f"127.0.0.1:{port_of(master)}", replicas=(f"127.0.0.1:{port_of(below)}",)
        )
        assert (state.master_sync_in_progress, why_not_ready(state)) == (False, None)
        assert state_of(at(site, master)).replication == Replication(
            role="master", replicas=(f"127.0.0.1:{port_of(site.server)}",)
        )
        port = port_of(master)
        master.kill()
        at(site, site.server)
        wait = wait_for(lambda: why_not_ready(state_of(site)))
        assert wait == (Reason.SERVER_NOT_READY, f"The server's link to its master 127.0.0.1:{port} is down.")


@both
def test_all_servers_of_a_chain_have_one_replication_id(site):
    """Also beyond a server without an agent."""
    with (
        another(site, "master") as master,
        another(site, "between") as between,
        another(site, "elsewhere") as elsewhere,
    ):
        follow(between, master)
        follow(site.server, between)
        one = state_of(site).replication_id
        at_master, alone = state_of(at(site, master)).replication_id, state_of(at(site, elsewhere)).replication_id
        assert (len(one), one == at_master, one == alone) == (40, True, False)


@both
def test_a_tool_that_copies_the_data_is_no_replica(site):
    with copying(site.server):
        state = state_of(site)
        assert (state.backups, state.replicas, state.replication) == (1, (), Replication(role="master"))
        assert why_not_ready(state) == (
            Reason.BACKUP_RUNNING,
            "1 tool copies the server's data, such as `redis-cli --rdb`.",
        )
    assert state_of(site).backups == 0


@both
def test_the_names_by_which_other_servers_may_know_it(site):
    port = port_of(site.server)
    at(site, site.server)
    names = {f"{each}:{port}" for each in (*host_addresses(), socket.gethostname(), "127.0.0.1", "::1", "localhost")}
    assert set(state_of(site).addresses) == names
    site.server.call("CONFIG", "SET", "replica-announce-ip", "cache.example")
    site.server.call("CONFIG", "SET", "replica-announce-port", "7000")
    assert state_of(site).addresses[0] == "cache.example:7000"
    assert f"127.0.0.1:{port}" in state_of(site).addresses
    site.environ["MODFLEET_SERVER_URL"] = f"redis://127.0.0.1:{port}"
    site.restart_agent()
    assert set(state_of(site).addresses) > names


def test_a_server_on_another_host_has_not_the_names_of_this_one():
    observer = observation.Observer(lambda _: False, CallHistory(), CallOutcomes(), url="redis://192.0.2.77:6380/0")
    assert list(observer._names({"tcp_port": "6380"}, {})) == ["192.0.2.77:6380"]


@both
def test_what_a_replica_announces_is_the_name_that_its_master_knows(site):
    with another(site) as replica:
        for name, value in (("replica-announce-ip", "192.0.2.9"), ("replica-announce-port", "7009")):
            replica.call("CONFIG", "SET", name, value)
        site.server.call("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        replica.call("REPLICAOF", "127.0.0.1", port_of(site.server))
        (known,) = wait_for(lambda: state_of(site).replicas)
        assert known.address in state_of(at(site, replica)).addresses


@both
def test_a_sentinel_watches_it(site):
    file = site.root / "sentinel.conf"
    file.write_text(
        f"port 0\nunixsocket {site.root}/sentinel.sock\nsentinel monitor shard 127.0.0.1 {port_of(site.server)} 1\n"
    )
    with subprocess.Popen([site.server.binary, file, "--sentinel"], stdout=subprocess.DEVNULL) as sentinel:
        try:
            assert wait_for(lambda: state_of(site).sentinels) == 1
        finally:
            sentinel.kill()
    wait_for(lambda: state_of(site).sentinels == 0)


@both
def test_a_cluster(site):
    with cluster_of(site) as cluster:
        ids = {name: getattr(cluster, name).call("CLUSTER", "MYID") for name in ("first", "second", "replica")}
        wait_for(lambda: state_of(site).replica_node_ids)
        state = state_of(site)
        assert (state.node_id, state.master_node_id, state.replica_node_ids) == (ids["first"], "", (ids["replica"],))
        assert state.addresses[0] == f"127.0.0.1:{port_of(cluster.first)}"
        assert (state.migrations, state.migrating_slots, why_not_ready(state)) == ((), 0, None)
        replica = state_of(at(site, cluster.replica))
        assert (replica.node_id, replica.master_node_id) == (ids["replica"], ids["first"])


@both
def test_slots_that_migrate(site, binary):
    with cluster_of(site) as cluster:
        source, target = (f"127.0.0.1:{port_of(each)}" for each in (cluster.first, cluster.second))
        for slot in (93, 100, 101):
            cluster.begin_migration(slot)
        seen = (SlotMigration(slots="93 100-101", source=source, target=target),)
        of_source, of_target = state_of(site), state_of(at(site, cluster.second))
        assert (of_source.migrations, of_target.migrations, of_source.migrating_slots) == (seen, seen, 3)
        words = f"Slots 93 100-101 migrate from {source} to {target}."
        assert why_not_ready(of_source) == why_not_ready(of_target) == (Reason.SERVER_NOT_READY, words)
        replica = state_of(at(site, cluster.replica))
        # Before Valkey 8, a replica does not know what its master migrates.
        assert replica.migrations == (seen if binary == VALKEY else ())
        assert why_not_ready(replica, others={"m": of_source}) == (
            Reason.SERVER_NOT_READY,
            words if replica.migrations else f"{words[:-1]}, as m says.",
        )
        for slot in (93, 100, 101):
            cluster.end_migration(slot)
        assert why_not_ready(state_of(at(site, cluster.first))) is None


def test_an_atomic_migration_is_in_no_line_of_cluster_nodes(site):
    with cluster_of(site) as cluster:
        source, target = (f"127.0.0.1:{port_of(each)}" for each in (cluster.first, cluster.second))
        with cluster.atomic_migration(200, 300):
            state = state_of(site)
            assert "[" not in cluster.first.call("CLUSTER", "NODES")
            assert state.migrations == (SlotMigration(slots="200-300", source=source, target=target, atomic=True),)
            assert state.migrating_slots == 101
            assert why_not_ready(state) == (
                Reason.SERVER_NOT_READY,
                f"Slots 200-300 migrate from {source} to {target}.",
            )
        wait_for(lambda: state_of(site).migrations == ())


@both
@pytest.mark.parametrize(
    ("missing", "words"),
    [("cluster|info", "if the cluster is ok"), ("cluster|nodes", "if slots of this shard migrate")],
    ids=["info", "nodes"],
)
def test_a_fact_that_the_agent_may_not_read_is_a_reason_to_wait(site, missing, words, monkeypatch):
    with cluster_of(site) as cluster:
        cluster.first.call("ACL", "SETUSER", "agent", "on", ">p", "+@all", f"-{missing}")
        (site.root / "password").write_text("p")
        site.environ |= {"MODFLEET_SERVER_USER": "agent", "MODFLEET_SERVER_PASSWORD_FILE": str(site.root / "password")}
        site.restart_agent()
        reason, message = why_not_ready(state_of(site)) or ("", "")
        assert reason is Reason.SERVER_NOT_READY
        assert message.startswith(f"It is not known {words}. Allow +{missing}")
        cluster.first.call("ACL", "SETUSER", "agent", f"+{missing}")
        assert why_not_ready(state_of(site))
        monkeypatch.setattr(observation, "REFUSED_SECONDS", 0)
        assert why_not_ready(state_of(site)) is None
