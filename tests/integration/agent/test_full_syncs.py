"""Full synchronizations of the node's server with its master: how often they begin, and what comes of a restart then."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rollout.agent.operations import activate
from rollout.agent.restart.process import wait_for_start
from rollout.messages import Phase, Reason
from tests.integration.agent.test_restart import both, in_step, node, other
from tests.shards import Machine
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

__all__ = ["node", "other"]


def counted(node) -> int:
    return int(node.runner.heartbeat(hello=False).facts.full_syncs)


def fall_behind(replica: Machine, master: Machine) -> None:
    """Let the replica miss more than its master's backlog has."""
    master.call("CONFIG", "SET", "repl-backlog-size", "16kb")
    before = master.info("stats")["sync_full"]
    assert replica.process
    replica.process.send_signal(signal.SIGSTOP)
    try:
        master.call("CLIENT", "KILL", "TYPE", "replica")
        master.call_each([("SET", "key", "x" * 50_000)] * 300)
    finally:
        replica.process.send_signal(signal.SIGCONT)
    wait_for(lambda: master.info("stats")["sync_full"] > before and replica.is_in_step(master))


def lose_the_link(replica: Machine, master: Machine) -> None:
    before = master.info("stats")["sync_partial_ok"]
    master.call("CLIENT", "KILL", "TYPE", "replica")
    wait_for(lambda: master.info("stats")["sync_partial_ok"] > before and replica.is_in_step(master))


@both
def test_each_that_begins_is_counted(node, other):
    """Also one that begins and ends between two heartbeats."""
    assert counted(node) == 0
    in_step(node.server, other)
    assert counted(node) == 1
    lose_the_link(node.server, other)
    assert counted(node) == 1
    fall_behind(node.server, other)
    fall_behind(node.server, other)
    assert counted(node) == 3
    assert counted(node) == 3


@both
def test_a_server_whose_log_cannot_be_read(node, other):
    text = node.server.file.read_text()
    node.server.file.write_text(text.replace(f"logfile {node.server.folder}/log\n", ""))
    node.server.restart()
    in_step(node.server, other)
    assert counted(node) == 0  # it was over before the first look at a replica
    lose_the_link(node.server, other)
    other.call("SET", "key", "value")
    wait_for(lambda: node.server.is_in_step(other))
    assert counted(node) == 0
    fall_behind(node.server, other)
    assert counted(node) == 1
    assert counted(node) == 1


@contextmanager
def writing(server: Machine) -> Iterator[None]:
    """A client writes all the time."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            server.call("SET", "written", "x" * 50_000)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@both
def test_a_second_one_after_a_restart(node, built, other):
    """The master ends each, because its replica does not keep up. The server is not restarted again: that would be one more."""
    in_step(node.server, other)
    node.server.append_only(True)
    node.server.call("CONFIG", "REWRITE")
    other.call_each(("SET", f"key{key}", "x" * 10_000) for key in range(100))
    wait_for(lambda: node.server.is_in_step(other))  # else the limit would end its link already now
    other.call("CONFIG", "SET", "repl-backlog-size", "16kb")  # a limit below it has no effect
    other.call("CONFIG", "SET", "client-output-buffer-limit", "replica 100kb 0 0")
    other.call("CONFIG", "SET", "rdb-key-save-delay", 20_000)
    former = node.server.run_id
    wait_for(lambda: not node.runner.heartbeat(hello=False).facts.save_problem)
    with writing(other):
        report = node.restart(built("keeps", 1), settle_seconds=5)
        assert (report.phase, report.reason) == (Phase.FAILED, Reason.SYNC_LOOP), report.message
        assert "keeps the new version" in report.message
        assert counted(node) >= 2
        assert node.runner.node.heartbeat(hello=False).facts.ended == (former,)
        assert node.server.lines() == ["keeps/1/keeps.so"]
    other.call("CONFIG", "SET", "client-output-buffer-limit", "replica 0 0 0")
    other.call("CONFIG", "SET", "rdb-key-save-delay", 0)
    wait_for(lambda: node.server.is_in_step(other))


@both
@pytest.mark.parametrize("is_full", [False, True])
def test_the_report_says_which_one_it_was(node, built, other, is_full):
    in_step(node.server, other)
    if is_full:
        node.server.append_only(True)
    node.server.call("CONFIG", "REWRITE")
    report = node.restart(built("keeps", 1), settle_seconds=1)
    assert report.phase is Phase.SUCCEEDED, report
    words = "got all data of its master with a full" if is_full else "continued with a partial"
    assert f"The replica {words} synchronization." in report.message


@both
@pytest.mark.parametrize("step", ["restarted", "probed"])
def test_one_that_takes_long_to_load(node, built, other, monkeypatch, step):
    """Its server reads the data of its master for some seconds, and refuses commands meanwhile: the agent waits."""
    for key in range(50):
        other.call("SET", f"key{key}", os.urandom(1000))
    in_step(node.server, other)
    node.server.append_only(True)
    node.server.call("CONFIG", "SET", "key-load-delay", 30_000, "loading-process-events-interval-bytes", 1024)
    node.server.call("CONFIG", "REWRITE")
    former = node.server.run_id

    def reads() -> bool:
        found = (
            node.server.info("persistence")["loading"] and node.server.info("replication")["master_sync_in_progress"]
        )
        return bool(found) and node.server.run_id != former

    seen: list[str] = []

    def meets(now: str) -> None:
        """Wait until it reads them, once."""
        if now == step and not seen:
            wait_for(reads)
            seen.append(now)

    def start(*args):
        info = wait_for_start(*args)
        meets("restarted")
        return info

    def probe(*args, former=activate._probe):
        meets("probed")
        former(*args)

    monkeypatch.setattr("rollout.agent.operations.restart.wait_for_start", start)
    monkeypatch.setattr(activate, "_probe", probe)
    report = node.restart(built("keeps", 1), settle_seconds=1)
    assert report.phase is Phase.SUCCEEDED, report.message
    assert seen
    assert node.runner.node.heartbeat(hello=False).facts.ended == (former,)
    assert node.server.is_in_step(other)


# --- A save that is not safe ------------------------------------------------------------------------------------------


@both
def test_why_it_must_not_save(node):
    """Each heartbeat says so: a full synchronization of a replica saves too."""
    assert node.runner.heartbeat(hello=False).facts.save_problem == ""
    for key in range(10):
        node.server.call("SET", f"key{key}", "x")
    node.server.call("CONFIG", "SET", "rdb-key-save-delay", 60_000_000)
    node.server.call("BGSAVE")
    assert node.runner.heartbeat(hello=False).facts.save_problem == "BGSAVE is in progress."
    assert node.server.process
    pid = node.server.process.pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    wait_for(lambda: node.server.info("persistence")["rdb_bgsave_in_progress"] == 0)
    assert (
        node.runner.heartbeat(hello=False).facts.save_problem
        == "The last BGSAVE of the server has failed. See its log."
    )
