"""The Celery worker as a process: commands from its queue, reports and heartbeats to the control plane's."""

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from celery import Celery
from kombu import Connection

from rollout.agent.operations.announce import FINAL_PATIENCE
from rollout.messages import (
    EXECUTE,
    HEARTBEATS,
    REPORTS,
    Heartbeat,
    Phase,
    Replication,
    Report,
    cancel_queue_for,
    from_json,
    queue_for,
    to_json,
)
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slow


#: `celery`, in a process whose clock is wrong by as many seconds as the first argument says. The second one: for how long it
#: tries to send a final report, seconds.
STARTS = """
import sys, time
off, right, right_ns = float(sys.argv.pop(1)), time.time, time.time_ns
time.time, time.time_ns = lambda: right() + off, lambda: right_ns() + int(off * 1e9)
from rollout.agent.operations import announce
announce.FINAL_PATIENCE = float(sys.argv.pop(1))
from celery.__main__ import main
sys.exit(main())
"""


class Worker:
    """A worker process, and the control plane's side of its broker."""

    def __init__(self, site, broker, waits):
        self.site, self.broker, self.waits = site, broker, waits
        self.url = f"redis+socket://{broker.socket}"
        self.seen: dict[str, list[Any]] = {REPORTS: [], HEARTBEATS: []}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, clock_off=0, patience=FINAL_PATIENCE):
        """`clock_off` and `patience`: of `STARTS`."""
        environ = os.environ | self.site.environ | {"MODFLEET_BROKER_URL": self.url}
        words = [
            sys.executable,
            "-c",
            STARTS,
            str(clock_off),
            str(patience),
            "-A",
            "rollout.agent",
            "worker",
            "--loglevel",
            "INFO",
        ]
        with (self.site.root / "worker.log").open("a") as log:
            self.process = subprocess.Popen(words, env=environ, stdout=log, stderr=log)

    def kill(self, number=signal.SIGKILL):
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE)

    def send(self, body):
        with Celery(broker=self.url, set_as_current=False) as sender:
            sender.send_task(EXECUTE, kwargs={"command": body}, queue=queue_for("n1"), ignore_result=True)

    def cancel(self, body):
        with Connection(self.url) as connection:
            connection.Producer().publish(body, exchange="", routing_key=cancel_queue_for("n1"), serializer="json")

    def push(self, queue, *items):
        """Raw items, in order."""
        for item in items:
            self.broker.call("LPUSH", queue, item)

    def drained(self, queue, kind):
        """All messages so far that the worker has sent to `queue`."""
        channel: Any  # the stubs do not know `basic_get`
        with Connection(self.url) as connection, connection.channel() as channel:
            while message := channel.basic_get(queue, no_ack=True):
                self.seen[queue].append(from_json(kind, message.decode()))
        return self.seen[queue]

    def heartbeats(self):
        return self.drained(HEARTBEATS, Heartbeat)

    def reports(self):
        return self.drained(REPORTS, Report)

    def final(self, rollout):
        """The final reports of that rollout, as soon as there is one."""
        return self.waits(lambda: [each for each in self.reports() if each.rollout == rollout and each.phase.is_final])

    def logged(self, words):
        return (self.site.root / "worker.log").read_text().count(words)

    def hears(self, phase):
        self.waits(lambda: any(each.phase is phase for each in self.reports()))


@pytest.fixture
def broker(short_folder, site):
    broker = type(site.server)(short_folder / "b", modules="no").start()
    yield broker
    broker.kill()


@pytest.fixture
def patience():
    return FINAL_PATIENCE


@pytest.fixture
def worker(site, broker, waits, patience):
    worker = Worker(site, broker, waits)
    worker.start(patience=patience)
    yield worker
    worker.kill()


def test_it_works(worker, site, built):
    command = site.command(built("greet"))
    worker.send(to_json(command))
    (report,) = worker.final(command.rollout)
    assert report.phase is Phase.SUCCEEDED
    assert site.server.call("GREET.HELLO") == "Hello, world, from greet 1.0.0"
    assert worker.kill(signal.SIGTERM) == 0


def test_a_phase_that_lasts_is_told(worker, site, built):
    site.shelf.gate.clear()
    command = site.command(built("greet"))
    worker.send(to_json(command))
    worker.hears(Phase.FETCHING)
    site.shelf.gate.set()
    worker.final(command.rollout)
    assert [each.phase for each in worker.reports()][:: len(worker.reports()) - 1] == [Phase.FETCHING, Phase.SUCCEEDED]


def test_the_first_heartbeat_is_the_hello(worker, waits):
    waits(lambda: len(worker.heartbeats()) >= 3)
    hello, *others = worker.heartbeats()
    assert hello.hello
    assert not any(each.hello for each in others)
    assert (hello.profile.server, hello.profile.role, hello.interval_seconds) == ("valkey", "master", 1.0)
    assert hello.profile.server_version


def test_heartbeats_are_sent_while_an_operation_runs(worker, site, built, waits):
    site.shelf.gate.clear()
    command = site.command(built("greet"))
    worker.send(to_json(command))
    worker.hears(Phase.FETCHING)
    seen = len(worker.heartbeats())
    waits(lambda: len(worker.heartbeats()) >= seen + 2)
    site.shelf.gate.set()
    assert worker.final(command.rollout)[0].phase is Phase.SUCCEEDED


def test_a_heartbeat_follows_an_operation_that_was_returned(site, broker, built, waits):
    """It has the role that the operation was not released for."""
    site.environ["MODFLEET_BEAT_SECONDS"] = "3600"
    worker = Worker(site, broker, waits)
    worker.start()
    try:
        waits(lambda: any(each.doctor for each in worker.heartbeats()))  # else nothing is sent for an hour
        seen = len(worker.heartbeats())
        worker.send(to_json(site.command(built("greet"), release=1, expects=Replication(role="replica"))))
        worker.hears(Phase.SCHEDULED)
        waits(lambda: len(worker.heartbeats()) > seen)
        assert worker.heartbeats()[-1].facts.replication == Replication(role="master")
    finally:
        worker.kill()


@pytest.mark.parametrize("nonsense", [None, 1, {}, {"rollout": "r"}, "text", {"generation": "x"}])
def test_nonsense_is_dropped_and_work_goes_on(worker, site, built, nonsense):
    worker.send(nonsense)
    command = site.command(built("greet"))
    worker.send(to_json(command))
    assert worker.final(command.rollout)[0].phase is Phase.SUCCEEDED


def test_a_repeated_command_is_answered_twice_with_the_same_report(worker, site, built, waits):
    command = site.command(built("greet"))
    worker.send(to_json(command))
    worker.send(to_json(command))
    waits(lambda: len(worker.final(command.rollout)) == 2)
    first, second = worker.final(command.rollout)
    assert first == second
    assert len(site.shelf.asked) == 1


def test_a_killed_worker_takes_its_command_up_again(worker, site, built):
    site.shelf.gate.clear()
    command = site.command(built("greet"))
    worker.send(to_json(command))
    worker.hears(Phase.FETCHING)
    worker.kill()
    site.shelf.gate.set()
    worker.start()
    assert worker.final(command.rollout)[0].phase is Phase.SUCCEEDED
    assert site.left() == ["greet", "greet/10000", "greet/10000/greet.so", "greet/10000/module.json"]


def test_work_is_given_up_while_it_is_fetching(worker, site, built):
    site.shelf.gate.clear()
    command = site.command(built("greet"))
    worker.send(to_json(command))
    worker.hears(Phase.FETCHING)
    worker.cancel(to_json(command))
    assert {each.phase for each in worker.final(command.rollout)} == {Phase.CANCELED}
    assert (site.left(), site.server.loaded()) == ([], set())


def test_a_command_behind_its_cancel_is_answered_canceled(worker, site, built, waits):
    command = site.command(built("greet"))
    worker.cancel(to_json(command))
    worker.final(command.rollout)
    worker.send(to_json(command))
    waits(lambda: len(worker.final(command.rollout)) == 2)
    assert {each.phase for each in worker.final(command.rollout)} == {Phase.CANCELED}
    assert site.shelf.asked == []


def test_a_cancel_waits_for_a_worker_that_was_killed(worker, site, built):
    site.shelf.gate.clear()
    command = site.command(built("greet"))
    worker.send(to_json(command))
    worker.hears(Phase.FETCHING)
    worker.kill()
    worker.cancel(to_json(command))
    worker.start()
    assert {each.phase for each in worker.final(command.rollout)} == {Phase.CANCELED}
    assert site.left() == []


@pytest.mark.parametrize("loss", ["restart", "flush"])
def test_a_cancel_is_heard_after_the_broker_lost_everything(worker, site, built, waits, loss):
    waits(worker.heartbeats)
    if loss == "restart":
        worker.broker.kill()
        waits(lambda: worker.logged("No cancel is received"))
        worker.broker.start()
    else:
        worker.broker.call("FLUSHALL")
    command = site.command(built("greet"))
    worker.cancel(to_json(command))
    assert worker.final(command.rollout)[0].phase is Phase.CANCELED
    assert worker.logged("No cancel is received") == (loss == "restart")


@pytest.mark.parametrize("nonsense", [None, {}, "text", {"generation": "x"}])
def test_a_cancel_that_is_nonsense_is_dropped(worker, site, built, nonsense):
    worker.cancel(nonsense)
    command = site.command(built("greet"))
    worker.cancel(to_json(command))
    assert worker.final(command.rollout)[0].phase is Phase.CANCELED
    assert worker.logged("Dropped a cancel") == 1


@pytest.mark.parametrize("patience", [2.0])
def test_a_command_that_could_not_be_acknowledged_does_not_block_the_next_one(worker, site, built, waits):
    site.shelf.gate.clear()
    first, second = site.command(built("greet")), site.command(built("greet", 10100))
    worker.send(to_json(first))
    worker.hears(Phase.FETCHING)
    worker.broker.kill()
    site.shelf.gate.set()
    waits(lambda: worker.logged("Couldn't ack"))
    worker.broker.start()
    worker.send(to_json(second))
    assert worker.final(second.rollout)[0].phase is Phase.SUCCEEDED


def test_it_outlives_the_broker(worker, site, built, waits):
    waits(worker.heartbeats)
    worker.broker.kill()
    worker.broker.start()
    command = site.command(built("greet"))
    worker.send(to_json(command))
    assert worker.final(command.rollout)[0].phase is Phase.SUCCEEDED
    seen = len(worker.heartbeats())
    waits(lambda: len(worker.heartbeats()) > seen)


def test_a_report_waits_for_the_broker(worker, site, built):
    site.shelf.gate.clear()
    command = site.command(built("greet"))
    worker.send(to_json(command))
    worker.hears(Phase.FETCHING)
    worker.broker.kill()
    site.shelf.gate.set()
    worker.waits(lambda: site.server.loaded() == {("greet", 10000)})
    worker.broker.start()
    assert worker.final(command.rollout)[0].phase is Phase.SUCCEEDED


def test_it_needs_no_binding_after_flushall(worker, site, built, waits):
    waits(worker.heartbeats)
    worker.broker.call("FLUSHALL")
    command = site.command(built("greet"))
    worker.send(to_json(command))
    assert worker.final(command.rollout)[0].reason is None


def test_a_missing_setting_is_one_sentence(site):
    environ = {key: value for key, value in (os.environ | site.environ).items() if key != "MODFLEET_NODE"}
    words = [sys.executable, "-m", "celery", "-A", "rollout.agent", "worker"]
    done = subprocess.run(words, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "MODFLEET_NODE is not set.\n")


def test_it_needs_neither_django_nor_a_database(site):
    blocked = "import sys\nfor name in ('django', 'psycopg', 'sqlite3'): sys.modules[name] = None\n"
    program = blocked + "import rollout.agent.tasks, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | site.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "rollout.agent.celery" in json.loads(done.stdout)
