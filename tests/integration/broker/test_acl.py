"""A broker user for each node: enough for its agent, and not enough to read another node's commands."""

import io
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from django.core.management import CommandError, call_command
from kombu import Connection

from rollout.delivery.broker_acl import control_line, node_line, operator_line
from rollout.messages import (
    EXECUTE,
    HEARTBEATS,
    REPORTS,
    Phase,
    Report,
    cancel_queue_for,
    from_json,
    queue_for,
    to_json,
)
from tests.fleet import ROOT
from tests.integration.agent.conftest import VALKEY
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.slow


#: For the tests alone: looks at what the broker refused.
OPERATOR = "user op on >o ~* &* +@all"
SERVERS = [VALKEY, "redis-server"]


class GuardedBroker:
    """Knows two nodes and the control plane, and nobody else."""

    def __init__(self, folder, binary=VALKEY):
        folder.mkdir()
        self.socket = folder / "s"
        users = [control_line("c"), node_line("n1", "p1"), node_line("n2", "p2"), operator_line("o"), OPERATOR]
        self.users = folder / "users.acl"
        self.users.write_text("\n".join([*users, "user default off"]) + "\n")
        words = ["--port", "0", "--unixsocket", self.socket, "--save", "", "--aclfile", folder / "users.acl"]
        words += ["--enable-debug-command", "yes", "--enable-module-command", "yes"]  # so that only the ACL refuses
        self.process = subprocess.Popen([binary, *words, "--dir", folder], stdout=subprocess.DEVNULL)
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

    def refused(self):
        """What the users were refused: user and command or key."""
        with self.client("op", "o") as client:
            return [(each["username"], each["object"]) for each in client.acl_log()]


@pytest.fixture(params=SERVERS, ids=lambda binary: Path(binary).name)
def broker(short_folder, request):
    made = GuardedBroker(short_folder / "b", request.param)
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
    channel: Any  # the stubs do not know `basic_get`
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
    assert second.wait(timeout=PATIENCE) == 0
    assert broker.refused() == []
    with broker.client("modfleet", "c") as client:
        assert client.llen(HEARTBEATS) > 0


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


@pytest.mark.parametrize("queue", [REPORTS, HEARTBEATS])
def test_it_only_adds_to_the_queues_of_the_control_plane(node, queue):
    assert node.lpush(queue, "x") == 1
    for words in (["RPOP", queue], ["LLEN", queue], ["DEL", queue], ["RPUSH", queue, "x"], ["SET", queue, "x"]):
        with pytest.raises(redis.exceptions.NoPermissionError):
            node.execute_command(*words)


#: What stops, slows, empties or watches a broker, or what others do there.
HARMFUL = """
EVAL "while true do end" 0 | EVAL "return 1" 0 | EVAL_RO "return 1" 0 | EVALSHA x 0 | SCRIPT LOAD "return 1" | SCRIPT KILL
SCRIPT FLUSH | SCRIPT EXISTS x | FUNCTION LIST | FUNCTION LOAD "#!lua name=x" | FUNCTION FLUSH | FCALL x 0 | FCALL_RO x 0
KEYS * | SCAN 0 | RANDOMKEY | DBSIZE | DEBUG SLEEP 100 | DEBUG SEGFAULT | DEBUG RELOAD | MONITOR | SLOWLOG GET
CLIENT KILL TYPE normal | CLIENT PAUSE 100000 | CLIENT UNPAUSE | CLIENT NO-EVICT on | CLIENT LIST | CLIENT UNBLOCK 1
CLIENT TRACKING on | CLIENT REPLY SKIP | CLIENT INFO | SUBSCRIBE x | PSUBSCRIBE * | SSUBSCRIBE x | PUBLISH x y
SPUBLISH x y | PUBSUB CHANNELS | CONFIG GET * | CONFIG SET maxmemory 1 | CONFIG REWRITE | CONFIG RESETSTAT
FLUSHALL | FLUSHDB | SWAPDB 0 1 | SAVE | BGSAVE | BGREWRITEAOF | LASTSAVE | SHUTDOWN NOSAVE | REPLICAOF NO ONE
SLAVEOF localhost 1 | FAILOVER | PSYNC ? -1 | SYNC | REPLCONF capa x | ROLE | CLUSTER INFO | MODULE LIST | MODULE LOAD /x
ACL LIST | ACL SETUSER node.n2 on | ACL DELUSER node.n2 | ACL LOAD | ACL LOG RESET | ACL CAT | ACL WHOAMI
MEMORY USAGE node.n1 | MEMORY PURGE | LATENCY DOCTOR | INFO | COMMAND | OBJECT ENCODING node.n1 | LOLWUT
WAIT 1 0 | WAITAOF 0 1 0 | BLPOP node.n1 0 | BLMOVE node.n1 node.n1 LEFT LEFT 0 | BZPOPMIN node.n1 0 | BLMPOP 0 1 node.n1 LEFT
BRPOP node.n2 0 | BRPOP control 0 | RPOP node.n1 | LPOP node.n1 | LMOVE node.n2 node.n1 LEFT LEFT | RPOPLPUSH node.n2 node.n1
SORT node.n1 | SORT control STORE node.n1 | SETRANGE node.n1 500000000 x | APPEND node.n1 x | SETBIT node.n1 4000000000 1
BITFIELD node.n1 SET u8 4000000000 1 | SET node.n1 x | SET control x | GET control | GETRANGE control 0 -1 | MSET control x
LRANGE control 0 -1 | LRANGE node.n1 0 -1 | LTRIM control 1 0 | LREM control 0 x | LSET control 0 x | LINSERT control BEFORE x y
LINDEX control 0 | LPOS control x | LLEN control | LLEN control.beats | RPUSH control x | RPUSH control.beats x | LPUSH control.tasks x
LPUSHX node.n2 x | DEL control | DEL node.n1 | UNLINK control | EXISTS node.n2 | TYPE control | TTL control | EXPIRE control 1
PERSIST control | RENAME control node.n1 | COPY control node.n1 | MOVE control 1 | DUMP control | RESTORE control 0 x | TOUCH control
MIGRATE localhost 1 x 0 1 | HGETALL unacked | HSET unacked a b | HGET unacked.node.n2 a | ZADD unacked_index 1 a
ZRANGE unacked_index.node.n2 0 -1 | ZRANGESTORE node.n1 unacked_index.node.n2 0 -1 | SADD _kombu.binding.node.n2 x
SMEMBERS _kombu.binding.node.n2 | SUNIONSTORE node.n1 control | PFCOUNT control | XADD control * a b | GEOADD control 1 1 x
LCS node.n1 node.n2 | WATCH control | HSET unacked.node.n1x a b
"""
#: What the control plane needs none of either.
RULERS = (
    "KEYS *",
    "MONITOR",
    "CONFIG GET *",
    "ACL LIST",
    "ACL SETUSER x",
    "FLUSHALL",
    "DEBUG SLEEP 0",
    "SHUTDOWN NOSAVE",
    "REPLICAOF NO ONE",
    "MODULE LOAD /x",
    "CLIENT KILL TYPE normal",
)


def harmful():
    return [shlex.split(each) for each in HARMFUL.replace("\n", "|").split("|") if each.strip()]


def known(words, client):
    """Whether this server has the command: older ones lack some."""
    client.set_response_callback("COMMAND", lambda answer, **_: answer)  # redis-py stumbles over an unknown command
    return client.execute_command("COMMAND", "INFO", words[0])[0] is not None


def test_a_node_can_do_no_harm(broker, node):
    with broker.client("op", "o") as client:
        commands = [words for words in harmful() if known(words, client)]
    allowed = []
    for words in commands:
        try:
            node.execute_command(*words)
        except redis.exceptions.NoPermissionError:
            continue
        except redis.exceptions.ResponseError as error:
            allowed.append((words, str(error)))
        else:
            allowed.append((words, "done"))
    assert allowed == []
    assert len(commands) > 130


def test_a_transaction_is_no_way_around(node):
    for words in (["RPOP", "control"], ["EVAL", "return 1", "0"], ["LPUSH", queue_for("n2"), "x"]):
        assert node.execute_command("MULTI") in (b"OK", True)
        with pytest.raises(redis.exceptions.NoPermissionError):
            node.execute_command(*words)
        with pytest.raises(redis.exceptions.ExecAbortError):
            node.execute_command("EXEC")


def test_the_commands_that_a_node_may_use_are_few():
    """Each new one is a risk: put it into `HARMFUL` as well, with what it must not do."""
    own, put = node_line("n1", "p1").split("(")
    assert [word for word in put.split() if word[0] in "+%"] == ["%W~control", "%W~control.beats", "+lpush)"]
    allowed = " ".join(sorted(word for word in own.split() if word[0] == "+"))
    assert allowed == (
        "+auth +brpop +exec +hdel +hello +hget +hset +llen +lpush +multi +ping +rpush +sadd +select +time +unwatch "
        "+watch +zadd +zrange +zrem"
    )


@pytest.mark.parametrize("command", RULERS)
def test_the_control_plane_rules_no_broker(broker, command):
    with broker.client("modfleet", "c") as control, pytest.raises(redis.exceptions.NoPermissionError):
        control.execute_command(*command.split())


def test_only_the_operator_loads_the_users_anew(broker):
    broker.users.write_text(broker.users.read_text().replace("user node.n2 on", "user node.n2 off"))
    for user, password in (("modfleet", "c"), ("node.n1", "p1")):
        with broker.client(user, password) as client, pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command("ACL LOAD")
    with broker.client(None, None) as nobody, pytest.raises(redis.exceptions.AuthenticationError):
        nobody.execute_command("ACL LOAD")
    with broker.client("operator", "o") as operator:
        assert operator.execute_command("ACL LOAD")
    with broker.client("node.n2", "p2") as client, pytest.raises(redis.exceptions.AuthenticationError):
        client.ping()


def test_the_operator_looks_after_the_broker_and_reads_no_queue(broker):
    with broker.client("operator", "o") as operator:
        for words in (
            "INFO",
            "CLIENT LIST",
            "SLOWLOG GET",
            "MEMORY USAGE control",
            "CONFIG GET maxmemory",
            "LLEN control",
        ):
            operator.execute_command(*words.split())
        operator.execute_command("ACL SETUSER node.n1 off")
        operator.execute_command("CLIENT KILL USER node.n1")
        for words in (
            "LRANGE control 0 -1",
            "RPOP control",
            "FLUSHALL",
            "SHUTDOWN NOSAVE",
            "MODULE LOAD /x",
            "EVAL x 0",
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                operator.execute_command(*words.split())


@pytest.mark.parametrize("binary", SERVERS, ids=lambda binary: Path(binary).name)
def test_each_server_starts_with_what_the_command_prints(short_folder, binary):
    """As the page says it: the command's own output, one line for each user."""
    lines = []
    for words in (["--control"], ["--operator"], ["node-1"]):
        out = io.StringIO()
        call_command("broker_acl", *words, stdout=out, stderr=io.StringIO())
        lines.append(out.getvalue())
    path = short_folder / "users.acl"
    path.write_text("".join(lines) + "user default off\n")
    words = [binary, "--port", "0", "--unixsocket", short_folder / "s", "--save", "", "--aclfile", path]
    with subprocess.Popen([*words, "--dir", short_folder], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        started = any("eady to accept connections" in line for line in server.stdout)
        server.kill()
    assert started


@pytest.mark.parametrize("binary", SERVERS, ids=lambda binary: Path(binary).name)
def test_a_node_has_no_other_database_to_fill(short_folder, binary):
    """With the configuration that is shipped: the relay deletes the keys of a revoked node in one database."""
    (short_folder / "users.acl").write_text("\n".join([node_line("n1", "p1"), "user default off"]) + "\n")
    words = [binary, ROOT / "deploy/valkey.conf", "--port", "0", "--unixsocket", short_folder / "s"]
    words += ["--aclfile", short_folder / "users.acl", "--dir", short_folder]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        assert any("eady to accept connections" in line for line in server.stdout)
        with redis.Redis(unix_socket_path=str(short_folder / "s"), username="node.n1", password="p1") as node:
            assert node.execute_command("SELECT", "0")
            with pytest.raises(redis.exceptions.ResponseError, match="DB index is out of range"):
                node.execute_command("SELECT", "1")
        server.kill()


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
