"""The server's health while a module settles: crashes, restarts, lost writes, failed calls, hangs, and what is measured."""

import signal
import threading
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from rollout.agent.node.heartbeat import Heartbeats
from rollout.agent.operations import settle
from rollout.agent.server import call_outcomes
from rollout.agent.server.session import Server
from rollout.messages import FailedCalls, Phase, Reason, ServerProblem, from_json, to_json
from tests.integration.agent.conftest import SERVERS, Valkey
from tests.ports import free_port
from tests.waiting import wait_for

pytestmark = pytest.mark.slow
BOTH = pytest.mark.parametrize("binary", SERVERS, ids=lambda path: path.name)
SETTLE = {"settle_seconds": 1.5}


@pytest.fixture(autouse=True)
def log(site):
    site.environ["MODFLEET_SERVER_LOG"] = str(site.server.folder / "log")
    site.restart_agent()


@pytest.fixture
def unread(site):
    """The agent reads no log: the server's output is not its log file."""
    del site.environ["MODFLEET_SERVER_LOG"]
    site.restart_agent()


def supervised(site, stop):
    """Wait until the server has ended after `stop`, then start it, as a supervisor does. In a thread of its own."""

    def supervise():
        stop()
        site.server.process.wait()
        site.server.start()

    thread = threading.Thread(target=supervise)
    thread.start()
    return thread


def shut_down(site):
    with suppress(redis.ConnectionError):
        site.server.call("SHUTDOWN")


def calls(site, count):
    """How many of so many calls failed."""
    failed = 0
    with redis.Redis(unix_socket_path=str(site.server.socket), protocol=2) as client:
        for _ in range(count):
            try:
                client.execute_command("FAILS.CALL")
            except redis.ResponseError:
                failed += 1
    return failed


def noted(site):
    """The reasons of reports that are not final."""
    return [each.reason for each in site.said if each.reason and not each.phase.is_final]


# --- Crash or restart


@BOTH
def test_a_module_that_aborts_seconds_after_its_load(site, built):
    """With the default time to settle."""
    threads = []

    def abort_in_two_seconds():
        site.server.call("FAILS.ABORT", "2000")
        threads.append(supervised(site, lambda: None))

    command = site.command(built("fails", 1), settle_seconds=10)
    report = site.run_and(command, Phase.SETTLING, abort_in_two_seconds)
    threads[0].join()
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.SERVER_CRASHED)
    assert "crash report" in report.message
    assert (site.server.loaded(), site.left(), noted(site)) == (set(), [], [])


@BOTH
@pytest.mark.usefixtures("unread")
def test_a_person_restarts_the_server_while_it_settles(site, built):
    threads = []
    command = site.command(built("greet"), **SETTLE)
    report = site.run_and(command, Phase.SETTLING, lambda: threads.append(supervised(site, lambda: shut_down(site))))
    threads[0].join()
    assert (report.phase, report.health.restarts) == (Phase.SUCCEEDED, 1)
    assert "restarted during the operation" in report.message
    assert noted(site) == [Reason.SERVER_RESTARTED]
    assert site.phases().count(Phase.SETTLING) == 3, "two times, and one note"
    assert site.server.loaded() == {("greet", 10000)}
    site.server.restart()
    assert site.server.loaded() == {("greet", 10000)}


def test_after_a_restart_an_upgrade_is_loaded_again(site, built):
    site.install(built("greet"))
    report = site.run_and(site.command(built("greet", 10001), **SETTLE), Phase.SETTLING, site.server.restart)
    assert (report.phase, report.health.restarts) == (Phase.SUCCEEDED, 1)
    assert site.server.loaded() == {("greet", 10001)}


def test_a_restart_while_it_probes(site, built):
    report = site.run_and(site.command(built("greet"), **SETTLE), Phase.PROBING, site.server.restart)
    assert (report.phase, report.health.restarts) == (Phase.SUCCEEDED, 1)
    assert site.server.loaded() == {("greet", 10000)}


@BOTH
@pytest.mark.usefixtures("unread")
def test_restarted_twice_within_a_minute_is_a_crash(site, built):
    site.install(built("greet"))
    command = site.command(built("greet", 10001), **SETTLE)

    def restart_each_time(said):
        if said.phase is Phase.SETTLING and said.reason is None:
            site.server.restart()

    report = site.runner.execute(command, report=restart_each_time)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.SERVER_CRASHED)
    assert "twice" in report.message
    assert site.server.loaded() == {("greet", 10000)}


def test_a_broken_connection_is_no_restart(site, built):
    report = site.run_and(
        site.command(built("greet"), **SETTLE),
        Phase.SETTLING,
        lambda: site.server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
    )
    assert (report.phase, report.health.restarts, noted(site)) == (Phase.SUCCEEDED, 0, [])


def test_the_unit_says_that_the_server_crashed(site, built, tmp_path, monkeypatch):
    """systemd's own lines are in the unit's journal, also if the server logs to a file."""
    program = tmp_path / "journalctl"
    program.write_text("#!/bin/sh\necho 'redis.service: Main process exited, code=exited, status=1/FAILURE'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    site.environ["MODFLEET_SERVER_UNIT"] = "redis.service"
    site.restart_agent()
    report = site.run_and(site.command(built("greet"), **SETTLE), Phase.SETTLING, site.server.restart)
    assert report.reason is Reason.SERVER_CRASHED
    assert "unit" in report.message


def test_an_undo_after_a_restart_does_not_trust_the_calls(site, built):
    """INFO commandstats has begun again: earlier calls may be in the AOF."""
    command = site.command(built("writes", 1), settle_seconds=30)

    def write_and_restart(said):
        if said.reason is Reason.SERVER_RESTARTED:
            site.runner.give_up(command)
        elif said.phase is Phase.SETTLING:
            site.server.call("WRITES.SET", "k", "v")
            site.server.restart()

    report = site.runner.execute(command, report=write_and_restart)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.UNLOAD_REFUSED)
    site.server.restart()
    assert site.server.call("GET", "k") == "v"


# --- A replica


@pytest.fixture
def master(site, binary):
    """The site's server is its replica. Only the master has the module `writes`."""
    server = Valkey(site.root / "m", binary=binary, aof="no", options=("--repl-diskless-sync-delay", "0")).start()
    yield server
    server.kill()


@pytest.fixture
def replicates(site, master, waits):
    """REPLICAOF takes a host and a port."""
    port = free_port()
    master.call("CONFIG", "SET", "port", port)
    site.server.call("REPLICAOF", "127.0.0.1", port)
    waits(lambda: "master_link_status:up" in raw(site.server, "replication"))
    return master


def raw(server, section):
    info = server.call("INFO", section)
    return info if isinstance(info, str) else "\n".join(f"{key}:{value}" for key, value in info.items())


@BOTH
@pytest.mark.parametrize("is_reset", [False, True])
def test_a_replica_that_drops_writes(site, built, replicates, is_reset):
    site.install(built("greet"))
    module = site.folder(built("writes", 1)) / "writes.so"
    site.install(built("writes", 1), activation="files")
    replicates.call("MODULE", "LOAD", str(module))
    replicates.call("WRITES.SET", "before", "v")  # dropped before: that is not this operation's fault

    def drop_a_write():
        if is_reset:
            site.server.call("CONFIG", "RESETSTAT")
        replicates.call("WRITES.SET", "k", "v")

    report = site.run_and(site.command(built("greet", 10001), settle_seconds=30), Phase.SETTLING, drop_a_write)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.ERROR_REPLIES)
    assert "rose from" in report.message
    assert site.server.loaded() == {("greet", 10000)}


def test_a_replica_whose_link_was_down_before(site, built):
    site.server.call("REPLICAOF", "127.0.0.1", free_port())
    assert site.install(built("greet"), **SETTLE).phase is Phase.SUCCEEDED


def test_a_replica_is_restarted_while_it_settles(site, built, replicates):
    """It settles again after it has synchronized."""
    site.server.options = ("--replicaof", f"127.0.0.1 {raw(replicates, 'server').partition('tcp_port:')[2].split()[0]}")
    report = site.run_and(site.command(built("greet"), **SETTLE), Phase.SETTLING, site.server.restart)
    assert (report.phase, report.health.restarts) == (Phase.SUCCEEDED, 1)
    assert "master_link_status:up" in raw(site.server, "replication")


def test_an_unreadable_log_is_asked_for_once(site, built):
    """A server counts each refused command."""
    site.server.call("ACL", "SETUSER", "default", "-config|get")
    del site.environ["MODFLEET_SERVER_LOG"]
    site.restart_agent()
    assert site.install(built("greet"), settle_seconds=3).phase is Phase.SUCCEEDED
    refused = raw(site.server, "commandstats").partition("cmdstat_config|get:")[2].split("\n")[0]
    assert "rejected_calls=1" in refused.replace("'", "").replace(": ", "=")


def cut(master):
    """Let the master accept no connection, as while a person restarts it. Return its port."""
    port = raw(master, "server").partition("tcp_port:")[2].split()[0]
    master.call("CONFIG", "SET", "port", 0)
    master.call("CLIENT", "KILL", "TYPE", "replica")
    return port


def test_a_replica_that_loses_its_link(site, built, replicates):
    command = site.command(built("greet"), settle_seconds=1.5, deadline_seconds=12)
    report = site.run_and(command, Phase.SETTLING, lambda: cut(replicates))
    assert (report.phase, report.reason, noted(site)) == (Phase.FAILED, Reason.LINK_DOWN, [Reason.LINK_DOWN])
    assert "was up before" in report.message
    assert site.server.loaded() == set()


@BOTH
def test_a_person_restarts_the_master_while_its_replica_settles(site, built, replicates):
    """The replica settles again when its link is back."""
    back_at = []

    def bring_back(port):
        wait_for(lambda: Reason.LINK_DOWN in noted(site))
        replicates.call("CONFIG", "SET", "port", port)
        wait_for(lambda: "master_link_status:up" in raw(site.server, "replication"))
        back_at.append(time.monotonic())

    threads = []

    def restart_master():
        threads.append(threading.Thread(target=bring_back, args=[cut(replicates)]))
        threads[0].start()

    report = site.run_and(site.command(built("greet"), settle_seconds=3), Phase.SETTLING, restart_master)
    settled = time.monotonic() - back_at[0]
    threads[0].join()
    assert (report.phase, noted(site)) == (Phase.SUCCEEDED, [Reason.LINK_DOWN])
    assert settled > 2
    assert site.server.loaded() == {("greet", 10000)}


# --- Failed calls


@BOTH
@pytest.mark.parametrize(("more", "phase"), [({}, Phase.SUCCEEDED), ({"failed_calls": FailedCalls.STOP}, Phase.FAILED)])
def test_more_calls_fail_than_before(site, built, more, phase):
    site.install(built("fails", 1), command_line_args="50")
    assert calls(site, 200) == 4
    command = site.command(built("fails", 2), command_line_args="10", **SETTLE, **more)
    report = site.run_and(command, Phase.SETTLING, lambda: calls(site, 200))
    assert (report.phase, report.reason) == (phase, Reason.FAILED_CALLS if more else None)
    assert "10 % of 200 calls" in report.message
    assert "2 % of 200" in report.message
    assert (report.health.before.calls, report.health.before.failed_calls) == (200, 4)
    assert (report.health.after.calls, report.health.after.failed_calls) == (200, 20)
    assert site.server.loaded() == {("fails", 1 if more else 2)}


@BOTH
def test_the_calls_of_as_long_a_time_before_count(site, built, monkeypatch):
    """A thousand calls failed long ago."""
    monkeypatch.setattr(call_outcomes, "SAMPLE_SECONDS", 0.0)
    site.install(built("fails", 1), command_line_args="50")
    with redis.Redis(unix_socket_path=str(site.server.socket), protocol=2) as client:
        pipe = client.pipeline(transaction=False)
        for _ in range(1000):
            pipe.execute_command("FAILS.CALL", "too", "many")
        pipe.execute(raise_on_error=False)
    site.runner.heartbeat(hello=False)
    assert calls(site, 200) == 4
    command = site.command(built("fails", 2), command_line_args="10", settle_seconds=0.05)
    report = site.run_and(command, Phase.SETTLING, lambda: calls(site, 200))
    assert (report.health.before.calls, report.health.before.failed_calls) == (200, 4)
    assert "before, it was 2 % of 200" in report.message


@pytest.mark.parametrize(("before", "after"), [(99, 200), (200, 99)])
def test_few_calls_are_not_compared(site, built, before, after):
    site.install(built("fails", 1))
    calls(site, before)
    command = site.command(built("fails", 2), command_line_args="2", failed_calls=FailedCalls.STOP, **SETTLE)
    report = site.run_and(command, Phase.SETTLING, lambda: calls(site, after))
    assert (report.phase, report.message) == (Phase.SUCCEEDED, "")


@BOTH
def test_no_call_at_all_is_said(site, built):
    report = site.install(built("greet"), **SETTLE)
    assert report.message == "No client called its commands while it settled."
    assert report.health.after.calls == 0


# --- What is measured


@BOTH
def test_the_server_is_measured_before_and_after(site, built):
    site.install(built("fails", 1))
    calls(site, 10)
    report = site.run_and(site.command(built("fails", 2), **SETTLE), Phase.SETTLING, lambda: calls(site, 20))
    before, after = report.health.before, report.health.after
    assert (before.calls, after.calls) == (10, 20)
    for each in (before, after):
        assert each.p99_usec > 0
        assert each.used_memory > 0
        assert (each.evicted_keys, each.rejected_connections) == (0, 0)
    assert report.health.run_id == site.server.call("INFO", "server")["run_id"]
    assert report.health.unexpected_error_replies == 0
    assert from_json(type(report), to_json(report)) == report


def test_a_new_module_has_no_calls_before(site, built):
    report = site.install(built("greet"), **SETTLE)
    assert (report.health.before.calls, report.health.before.p99_usec) == (None, None)


def test_nothing_is_measured_without_a_load(site, built):
    assert site.install(built("greet"), activation="files").health is None


# --- A hang


@pytest.fixture
def impatient(monkeypatch):
    """It is a hang after 2 s, not 10 s, and other answers are waited for 1 s, not 5 s."""
    session = Server.session
    monkeypatch.setattr("rollout.agent.operations.settle.HANG_SECONDS", 2.0)
    monkeypatch.setattr("rollout.agent.operations.undo.UNDO_SECONDS", 0.1)
    monkeypatch.setattr("rollout.agent.node.node.PING_SECONDS", 0.5)
    monkeypatch.setattr("rollout.agent.node.heartbeat.WATCH_SECONDS", 0.5)
    monkeypatch.setattr(Server, "session", lambda self, seconds=1.0, **more: session(self, seconds, **more))


def test_a_hang_is_reported_after_ten_seconds(site, built, waits):
    assert settle.HANG_SECONDS == 10
    test_a_hang_is_reported_in_time(site, built, waits, Phase.SETTLING)


@pytest.mark.usefixtures("impatient")
def test_after_a_hang_the_server_settles_again(site, built, waits):
    """It has not run as it should while it hung, for longer than it had to settle."""
    resumed = []

    def stop_until_it_is_reported():
        site.server.process.send_signal(signal.SIGSTOP)

        def go_on():
            waits(lambda: Reason.SERVER_HANGS in noted(site))
            resumed.append(time.monotonic())
            site.server.process.send_signal(signal.SIGCONT)

        threading.Thread(target=go_on).start()

    command = site.command(built("greet"), settle_seconds=1.5)
    report = site.run_and(command, Phase.SETTLING, stop_until_it_is_reported)
    assert report.phase is Phase.SUCCEEDED
    assert time.monotonic() - resumed[0] >= 1.5
    assert "The server did not answer for" in report.message


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("phase", [Phase.PROBING, Phase.SETTLING])
def test_a_hang_is_reported_in_time(site, built, waits, phase):
    """At most one second passes until the agent asks; the other three are for a busy machine."""
    seconds = []

    def stop_until_it_is_reported():
        site.server.process.send_signal(signal.SIGSTOP)
        stopped_at = time.monotonic()

        def go_on_when_it_is_reported():
            waits(lambda: Reason.SERVER_HANGS in noted(site))
            seconds.append(time.monotonic() - stopped_at)
            site.server.process.send_signal(signal.SIGCONT)

        threading.Thread(target=go_on_when_it_is_reported).start()

    report = site.run_and(site.command(built("greet"), **SETTLE), phase, stop_until_it_is_reported)
    assert (report.phase, noted(site)) == (Phase.SUCCEEDED, [Reason.SERVER_HANGS])
    assert settle.HANG_SECONDS <= seconds[0] < settle.HANG_SECONDS + 4
    note = next(each for each in site.said if each.reason is Reason.SERVER_HANGS)
    assert "only SIGKILL" in note.message


def hang(site):
    """A client calls the command that blocks the server for ever."""

    def call():
        with suppress(redis.RedisError):
            site.server.call("FAILS.HANG")

    threading.Thread(target=call, daemon=True).start()


@BOTH
@pytest.mark.usefixtures("impatient")
def test_a_command_that_hangs_fails_the_operation_at_its_deadline(site, built):
    command = site.command(built("fails", 1), settle_seconds=30, deadline_seconds=6)
    report = site.run_and(command, Phase.SETTLING, lambda: hang(site))
    assert noted(site) == [Reason.SERVER_HANGS]
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.SERVER_HANGS)
    assert "only SIGKILL ends it" in report.message


@pytest.mark.usefixtures("impatient")
def test_a_probe_that_gets_no_answer_fails_the_operation_at_its_deadline(site, built):
    command = site.command(built("greet"), deadline_seconds=4)
    report = site.run_and(command, Phase.PROBING, lambda: site.server.process.send_signal(signal.SIGSTOP))
    assert Reason.SERVER_HANGS in noted(site)
    assert (report.phase, report.reason) == (Phase.FAILED, Reason.SERVER_HANGS)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("scratch", ["off"])
def test_a_load_that_hangs_is_reported_before_its_deadline(site, built):
    site.said = []
    report = site.run(site.command(built("hangs", 1), deadline_seconds=4))
    assert [each.phase for each in site.said if each.reason is Reason.SERVER_HANGS] == [Phase.LOADING, Phase.FAILED]
    assert report.reason is Reason.SERVER_HANGS


# --- Between operations


@pytest.mark.usefixtures("impatient")
def test_a_heartbeat_says_that_the_server_hangs_before_the_interval_ends(site, waits):
    sent = []

    def send(heartbeat, **_):
        sent.append(heartbeat)
        return True

    publisher: Any = SimpleNamespace(send=send, close=lambda: None)
    node = site.runner.node
    beats = Heartbeats(lambda hello: node.heartbeat(hello=hello), publisher, interval=3600, is_silent=node.is_silent)
    beats.start()
    waits(lambda: len(sent) == 2)
    site.server.process.send_signal(signal.SIGSTOP)
    try:
        waits(lambda: sent[-1].facts.problem == ServerProblem.SERVER_SILENT)
    finally:
        site.server.process.send_signal(signal.SIGCONT)
        beats.stop()
    assert len(sent) == 3


def test_a_heartbeat_says_that_the_server_crashed(site):
    def facts():
        return site.runner.heartbeat(hello=False).facts

    assert facts().crash == ""
    site.server.restart()
    assert facts().crash == ""
    site.server.crash()
    assert [facts().crash, facts().crash] == ["Its log has a crash report."] * 2
    site.server.restart()
    assert facts().crash == "", "the process before this one did not crash"


def test_a_crash_is_found_in_a_log_that_was_rotated(site):
    log = site.server.folder / "log"
    site.runner.heartbeat(hello=False)
    log.rename(log.with_suffix(".1"))
    site.server.crash()
    assert site.runner.heartbeat(hello=False).facts.crash


def test_a_heartbeat_says_for_how_long_the_link_is_down(site, replicates):
    assert site.runner.heartbeat(hello=False).facts.link_down_seconds is None
    replicates.call("CONFIG", "SET", "port", 0)
    replicates.call("CLIENT", "KILL", "TYPE", "replica")
    wait_for(lambda: (site.runner.heartbeat(hello=False).facts.link_down_seconds or 0) > 0)
