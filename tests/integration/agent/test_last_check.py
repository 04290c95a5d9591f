"""The agent's last check, directly before it changes the server: an operation that must wait is returned."""

import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest

from rollout.messages import Action, Activation, Phase, Reason, Replication
from tests.integration.agent.shards import (
    another,
    at,
    both,
    cluster_of,
    copying,
    follow,
    listening,
    port_of,
    state_of,
    synchronizing,
)
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

ELSEWHERE = Replication(role="replica", master="192.0.2.1:6379")
#: What an operation does, and what was installed before.
CHANGES = pytest.mark.parametrize("change", ["install", "upgrade", "rebuild", "removal", "unload"])


def released(site, built, action=Action.INSTALL, **changes):
    """A command that was released for the server as it is now."""
    more = {"release": 1, "expects": state_of(site).replication} | changes
    return site.command(built, action, **more)


def prepared(site, built, repack, change):
    """Bring the node into the state that the operation changes, and return its command."""
    greet = built("greet")
    if change == "install":
        return released(site, greet)
    site.install(greet)
    match change:
        case "upgrade":
            return released(site, built("greet", 10001))
        case "rebuild":
            return released(site, repack(greet))
        case "removal":
            return released(site, greet, Action.REMOVE)
    return released(site, greet, activation=Activation.FILES, undoes=greet.version)


def traces(site):
    """All that an operation changes on the node, and how often the server was asked to load or unload."""
    stats = site.server.call("INFO", "commandstats")
    calls = [stats.get(f"cmdstat_module|{name}", {"calls": 0})["calls"] for name in ("load", "unload")]
    return site.left(), site.include(), site.server.loaded(), site.runner.node.inventory().modules, calls


def is_returned(report, reason, message):
    return (report.phase, report.reason, report.message) == (Phase.SCHEDULED, reason, message)


@both
def test_it_works(site, built):
    command = released(site, built("greet"))
    report = site.run(command)
    assert (report.phase, report.release) == (Phase.SUCCEEDED, 1)
    assert site.server.loaded() == {("greet", 10000)}


@both
@CHANGES
def test_a_failover_between_release_and_act(site, built, repack, change):
    with another(site) as master:
        follow(site.server, master)
        command = prepared(site, built, repack, change)
        site.server.call("REPLICAOF", "NO", "ONE")
        before = traces(site)
        report = site.run(command)
        assert is_returned(report, Reason.ROLE_CHANGED, "The server is a master now; it was a replica.")
        assert site.said[-1] == report
        assert traces(site) == before
        again = site.run(replace(command, release=2, expects=state_of(site).replication))
        assert (again.phase, again.release) == (Phase.SUCCEEDED, 2)


@both
def test_a_failover_while_the_package_is_downloaded(site, built):
    with another(site) as master:
        follow(site.server, master)
        command = released(site, built("greet"))
        report = site.run_and(command, Phase.INSTALLING, lambda: site.server.call("REPLICAOF", "NO", "ONE"))
    assert is_returned(report, Reason.ROLE_CHANGED, "The server is a master now; it was a replica.")
    assert (site.left(), site.server.loaded()) == ([], set())


@both
def test_a_sub_replica_that_joins(site, built):
    command = released(site, built("greet"))
    with another(site) as replica:
        follow(replica, site.server)
        report = site.run(command)
        words = f"The server has the replica 127.0.0.1:{port_of(replica)} now."
        assert is_returned(report, Reason.ROLE_CHANGED, words)
        with another(site, "below") as below:
            at(site, replica)
            command = released(site, built("greet", 10001))
            follow(below, replica)
            words = f"The server has the replica 127.0.0.1:{port_of(below)} now."
            assert is_returned(site.run(command), Reason.ROLE_CHANGED, words)


@both
@CHANGES
def test_while_a_tool_copies_the_data_the_operation_waits(site, built, repack, change):
    command = prepared(site, built, repack, change)
    before = traces(site)
    with copying(site.server):
        report = site.run(command)
        words = "1 tool copies the server's data, such as `redis-cli --rdb`."
        assert is_returned(report, Reason.BACKUP_RUNNING, words)
        assert traces(site) == before
    assert site.run(replace(command, release=2)).phase is Phase.SUCCEEDED


@both
def test_while_a_tool_listens_to_the_writes_the_operation_waits(site, built):
    command = released(site, built("greet"))
    with listening(site.server):
        report = site.run(command)
        assert (report.phase, report.reason, site.server.loaded()) == (Phase.SCHEDULED, Reason.BACKUP_RUNNING, set())
    assert site.run(replace(command, release=2)).phase is Phase.SUCCEEDED


@both
@pytest.mark.parametrize("action", Action)
def test_a_server_that_loads_its_data(site, built, action):
    if action is Action.REMOVE:
        site.install(built("greet"))
    command = released(site, built("greet"), action)
    with loading(site):
        report = site.run(command)
        assert is_returned(report, Reason.SERVER_NOT_READY, "The server is loading its data.")
    assert site.run(replace(command, release=2)).phase is Phase.SUCCEEDED


@contextmanager
def loading(site):
    """The server has restarted, and reads a large file."""
    site.server.call("SET", "key", "x")
    site.server.kill()
    (file,) = (site.server.folder / "appendonlydir").glob("*.incr.aof")
    with file.open("ab") as data:
        data.write(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\nabcd\r\n" * 5_000_000)
    server = replace(site.server, process=None)
    thread = threading.Thread(target=server.start)
    thread.start()
    try:
        wait_for(lambda: state_of(site).loading)
        yield
    finally:
        thread.join()
        site.server.process = server.process


@both
def test_a_replica_that_has_lost_its_master(site, built):
    """Then it may answer nothing but INFO."""
    with another(site) as master:
        follow(site.server, master)
        command, port = released(site, built("greet")), port_of(master)
    words = f"The server's link to its master 127.0.0.1:{port} is down."
    wait_for(lambda: state_of(site).link_status == "down")
    assert is_returned(site.run(command), Reason.SERVER_NOT_READY, words)
    site.server.call("CONFIG", "SET", "replica-serve-stale-data", "no")
    assert is_returned(site.run(replace(command, release=2)), Reason.SERVER_NOT_READY, words)


@both
def test_a_replica_that_synchronizes_with_its_master(site, built):
    with another(site) as master:
        with synchronizing(site.server, master):
            command = released(site, built("greet"))
            words = f"The server synchronizes with its master 127.0.0.1:{port_of(master)}."
            assert is_returned(site.run(command), Reason.SERVER_NOT_READY, words)
            assert site.server.loaded() == set()
        assert site.run(replace(command, release=2)).phase is Phase.SUCCEEDED


@both
def test_a_slot_that_migrates(site, built):
    with cluster_of(site) as cluster:
        command = released(site, built("greet"))
        cluster.begin_migration(93)
        source, target = (f"127.0.0.1:{port_of(each)}" for each in (cluster.first, cluster.second))
        words = f"Slot 93 migrates from {source} to {target}."
        assert is_returned(site.run(command), Reason.SERVER_NOT_READY, words)
        cluster.end_migration(93)
        assert site.run(replace(command, release=2)).phase is Phase.SUCCEEDED


def test_an_atomic_slot_migration(site, built):
    with cluster_of(site) as cluster:
        command = released(site, built("greet"))
        with cluster.atomic_migration(0, 10):
            report = site.run(command)
        assert (report.phase, report.reason) == (Phase.SCHEDULED, Reason.SERVER_NOT_READY)
        assert report.message.startswith("Slots 0-10 migrate from ")


@both
def test_a_cluster_whose_state_the_agent_may_not_read(site, built):
    with cluster_of(site) as cluster:
        cluster.first.call("ACL", "SETUSER", "agent", "on", ">p", "+@all", "-cluster|nodes")
        (site.root / "password").write_text("p")
        site.environ |= {"MODFLEET_SERVER_USER": "agent", "MODFLEET_SERVER_PASSWORD_FILE": str(site.root / "password")}
        site.restart_agent()
        report = site.run(released(site, built("greet")))
        assert (report.phase, report.reason) == (Phase.SCHEDULED, Reason.SERVER_NOT_READY)
        assert "Allow +cluster|nodes" in report.message


# --- What is not checked


def test_files_alone_never_wait(site, built):
    command = site.command(built("greet"), activation=Activation.FILES, release=1, expects=ELSEWHERE)
    assert site.run(command).phase is Phase.SUCCEEDED
    removal = site.command(built("greet"), Action.REMOVE, release=1, expects=ELSEWHERE)
    assert site.run(removal).phase is Phase.SUCCEEDED


def test_an_older_control_plane_takes_no_operation_back(site, built):
    with copying(site.server):
        assert site.install(built("greet")).phase is Phase.SUCCEEDED
        assert site.remove(built("greet")).phase is Phase.SUCCEEDED


@both
def test_an_undo_never_waits(site, built, repack):
    """The module is loaded before a tool begins to copy, and its probe fails."""
    site.install(built("greet"))
    command = released(site, repack(built("greet", 10001), version=10002))
    copies = copying(site.server)
    report = site.run_and(command, Phase.PROBING, copies.__enter__)
    try:
        assert (report.phase, report.reason) == (Phase.FAILED, Reason.PROBE_FAILED)
        assert site.server.loaded() == {("greet", 10000)}
    finally:
        copies.__exit__(None, None, None)


def test_an_operation_that_has_changed_the_server_is_finished(site, built):
    """Also if the agent has died in between, and the role has changed."""
    command = released(site, built("greet"))
    site.run_and_die(command, "probing")
    site.restart_agent()
    report = site.run(replace(command, expects=ELSEWHERE))
    assert report.phase is Phase.SUCCEEDED


# --- The fence


def test_a_return_answers_its_release_and_earlier_ones(site, built):
    command = site.command(built("greet"), release=2, expects=ELSEWHERE)
    first = site.run(command)
    assert (first.phase, first.reason, first.release) == (Phase.SCHEDULED, Reason.ROLE_CHANGED, 2)
    site.restart_agent()
    now = state_of(site).replication
    assert [site.run(replace(command, release=each, expects=now)) for each in (2, 1)] == [first, first]
    assert len(site.shelf.asked) == 1
    last = site.run(replace(command, release=3, expects=now))
    assert (last.phase, last.release) == (Phase.SUCCEEDED, 3)


def test_a_return_is_journaled_before_it_is_sent(site, built):
    command = site.command(built("greet"), release=1, expects=ELSEWHERE)
    site.run_and_die(command, "scheduled")
    site.restart_agent()
    report = site.run(replace(command, expects=state_of(site).replication))
    assert (report.phase, report.reason) == (Phase.SCHEDULED, Reason.ROLE_CHANGED)
    assert (site.left(), len(site.shelf.asked)) == ([], 1)


def test_any_other_end_answers_all_releases(site, built):
    command = site.command(built("refuses"), release=1, expects=state_of(site).replication)
    first = site.run(command)
    assert first.phase is Phase.FAILED
    assert [site.run(replace(command, release=each)) for each in (1, 0, 4)] == [first, first, replace(first, release=4)]
    assert len(site.shelf.asked) == 1


def test_an_operation_that_was_returned_is_canceled(site, built):
    command = site.command(built("greet"), release=1, expects=ELSEWHERE)
    site.run(command)
    report = site.runner.cancel(command, report=site.said.append)
    assert (report.phase, report.reason) == (Phase.CANCELED, Reason.MANUAL)
    later = site.run(replace(command, release=2, expects=state_of(site).replication))
    assert (later.phase, site.server.loaded()) == (Phase.CANCELED, set())


def test_the_next_attempt_does_not_wait_for_a_release(site, built):
    command = site.command(built("greet"), release=3, expects=ELSEWHERE)
    site.run(command)
    report = site.run(replace(command, attempt=2, release=1, expects=state_of(site).replication))
    assert report.phase is Phase.SUCCEEDED
