"""A broker user for each node: enough for its agent, and not enough to read another node's commands."""

import io
import os
import signal
import subprocess
import sys

import pytest
import redis
from celery import Celery
from django.core.management import CommandError, call_command
from kombu import Connection

from rollout.broker_acl import control_line, node_line
from rollout.messages import BEATS, EXECUTE, REPORTS, Phase, Report, cancel_queue_for, from_json, queue_for, to_json
from tests.integration.agent.conftest import BINARY, wait_for

pytestmark = pytest.mark.slow


class GuardedBroker:
    """Knows three users, and nobody else."""

    def __init__(self, folder):
        folder.mkdir()
        self.socket = folder / "s"
        users = [control_line("c"), node_line("n1", "p1"), node_line("n2", "p2"), "user default off"]
        (folder / "users.acl").write_text("\n".join(users) + "\n")
        words = ["--port", "0", "--unixsocket", self.socket, "--save", "", "--aclfile", folder / "users.acl"]
        self.process = subprocess.Popen([BINARY, *words, "--dir", folder], stdout=subprocess.DEVNULL)
        wait_for(self.answers)

    def url(self, user, password):
        return f"redis+socket://{user}:{password}@{self.socket}"

    def client(self, user, password):
        return redis.Redis(unix_socket_path=str(self.socket), username=user, password=password, protocol=2)

    def answers(self):
        try:
            return self.client("modfleet", "c").ping()
        except redis.ConnectionError:
            return False


@pytest.fixture
def broker(short_folder):
    made = GuardedBroker(short_folder / "b")
    yield made
    made.process.kill()
    made.process.wait()


@pytest.fixture
def node(broker):
    with broker.client("node.n1", "p1") as client:
        yield client


@pytest.fixture
def agent(site, broker):
    """Starts the agent of n1 as its own user."""
    started = []

    def start():
        environ = os.environ | site.environ | {"MODFLEET_BROKER_URL": broker.url("node.n1", "p1")}
        words = [sys.executable, "-m", "celery", "-A", "rollout.agent", "worker", "--loglevel", "INFO"]
        with (site.root / "worker.log").open("a") as log:
            started.append(subprocess.Popen(words, env=environ, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def send(broker, command):
    with Celery(broker=broker.url("modfleet", "c"), set_as_current=False) as sender:
        sender.send_task(EXECUTE, kwargs={"command": to_json(command)}, queue=queue_for("n1"), ignore_result=True)


def ends(broker, rollout):
    """The final report of that rollout, if it is there."""
    with Connection(broker.url("modfleet", "c")) as connection, connection.channel() as channel:
        while message := channel.basic_get(REPORTS, no_ack=True):
            report = from_json(Report, message.decode())
            if report.rollout == rollout and report.phase.is_final:
                return report
    return None


def test_an_agent_works_as_its_own_user_also_after_it_was_killed(agent, broker, site, built):
    site.shelf.gate.clear()
    command = site.command(built("greet"))
    send(broker, command)
    first = agent()
    wait_for(lambda: site.shelf.asked)  # it has the command in hand, and has not acknowledged it
    first.send_signal(signal.SIGKILL)
    first.wait()
    site.shelf.gate.set()
    second = agent()
    assert wait_for(lambda: ends(broker, command.rollout)).phase is Phase.SUCCEEDED
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=30) == 0
    assert "NOPERM" not in (site.root / "worker.log").read_text()
    with broker.client("modfleet", "c") as client:
        assert client.llen(BEATS) > 0


@pytest.mark.parametrize("key", [queue_for("n2"), cancel_queue_for("n2"), f"{queue_for('n1')}x.3", "unacked.node.n2"])
def test_it_reads_and_writes_nothing_of_another_node(node, key):
    for words in (
        ["RPOP", key],
        ["BRPOP", key, 1],
        ["LPUSH", key, "x"],
        ["LLEN", key],
        ["DEL", key],
        ["HGET", key, "a"],
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            node.execute_command(*words)


@pytest.mark.parametrize("queue", [REPORTS, BEATS])
def test_it_only_adds_to_the_queues_of_the_control_plane(node, queue):
    assert node.lpush(queue, "x") == 1
    for words in (["RPOP", queue], ["LLEN", queue], ["DEL", queue], ["RPUSH", queue, "x"], ["SET", queue, "x"]):
        with pytest.raises(redis.exceptions.NoPermissionError):
            node.execute_command(*words)


@pytest.mark.parametrize("words", [["KEYS", "*"], ["MONITOR"], ["CONFIG", "GET", "*"], ["ACL", "LIST"], ["FLUSHALL"]])
def test_nobody_looks_around(node, broker, words):
    with broker.client("modfleet", "c") as control:
        for client in (node, control):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*words)


def test_the_command_prints_the_line(tmp_path):
    (tmp_path / "password").write_text("p1\n")
    out = io.StringIO()
    call_command("broker_acl", "n1", password_file=str(tmp_path / "password"), stdout=out)
    assert out.getvalue() == node_line("n1", "p1") + "\n"


def test_a_generated_password_is_told_apart_from_the_line(broker):
    out, err = io.StringIO(), io.StringIO()
    call_command("broker_acl", control=True, stdout=out, stderr=err)
    user, password = err.getvalue().strip().removeprefix("user ").split(", password ")
    assert (user, out.getvalue()) == ("modfleet", control_line(password) + "\n")


def test_a_name_that_is_none_is_refused():
    with pytest.raises(CommandError, match="letters, digits"):
        call_command("broker_acl", "n 1")
