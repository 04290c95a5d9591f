"""Agents with an identity, on a real broker whose users the relay creates: who may speak, and what survives what."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from celery import Celery
from kombu import Connection

from eventstore import transact
from rollout.agent.control_plane.identity import Credentials, Identity, write_identity
from rollout.agent.control_plane.rotation import new_credentials, password_hash
from rollout.delivery.broker_acl import administrator_line, control_line, keys_of
from rollout.delivery.broker_users import CHECK_SECONDS, BrokerUsers, UnsupportedBrokerError
from rollout.delivery.ingestion.verification import Verified, verified_heartbeats, verified_reports
from rollout.domain.node.commands import AddKey, EnrollNode, RequestRekey, RetireOtherKeys, RevokeNode
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import node_stream
from rollout.messages import EXECUTE, HEARTBEATS, REPORTS, Heartbeat, Phase, cancel_queue_for, queue_for, to_json
from rollout.queries.trust import control_secrets
from rollout.signing import Purpose
from tests.integration.agent.conftest import SERVERS, VALKEY
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


class ManagedBroker:
    """Its file has only the control plane, the relay and `user default off`. The users of nodes come from the relay."""

    def __init__(self, folder: Path, binary: Path) -> None:
        folder.mkdir()
        self.folder, self.binary, self.socket = folder, binary, folder / "s"
        lines = [control_line("c"), administrator_line("a"), "user op on >o ~* &* +@all", "user default off"]
        (folder / "users.acl").write_text("\n".join(lines) + "\n")
        self.users = BrokerUsers(self.url("relay", "a"))
        self.start()

    def start(self) -> None:
        words: list[str | Path] = [
            "--port",
            "0",
            "--unixsocket",
            self.socket,
            "--save",
            "",
            "--aclfile",
            self.folder / "users.acl",
        ]
        self.process = subprocess.Popen(
            [self.binary, *words, "--dir", self.folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(self.answers)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def answers(self) -> bool:
        try:
            return bool(self.client("modfleet", "c").ping())
        except redis.ConnectionError:
            return False

    def client(self, user: str, password: str) -> "redis.Redis":
        return redis.Redis(unix_socket_path=str(self.socket), username=user, password=password, protocol=2)

    def url(self, user: str, password: str) -> str:
        return f"redis+socket://{user}:{password}@{self.socket}"

    def relay_once(self) -> int:
        """The relay's next look, without the wait for it."""
        self.users._next_check = 0.0
        return self.users.poll()

    def take(self, queue: str) -> list[Any]:
        """All messages of the queue, as JSON."""
        taken: list[Any] = []
        channel: Any
        with Connection(self.url("modfleet", "c")) as connection, connection.channel() as channel:
            while message := channel.basic_get(queue, no_ack=True):
                taken.append(message.decode())
        return taken

    def connections(self, user: str) -> set[str]:
        """The ids of the connections of this user."""
        with self.client("op", "o") as operator:
            found: list[dict[str, str]] = operator.client_list()
        return {each["id"] for each in found if each["user"] == user}

    def heard(self) -> list[str]:
        """The nodes whose heartbeats are there and valid."""
        return [each.message.node for each in verified_heartbeats(self.take(HEARTBEATS))]


@pytest.fixture(params=SERVERS, ids=lambda binary: binary.name)
def broker(short_folder: Path, request: pytest.FixtureRequest) -> Iterator[ManagedBroker]:
    made = ManagedBroker(short_folder / "b", request.param)
    yield made
    made.stop()


@pytest.fixture
def valkey(short_folder: Path) -> Iterator[ManagedBroker]:
    made = ManagedBroker(short_folder / "b", VALKEY)
    yield made
    made.stop()


def enrol(node: str, credentials: Credentials) -> None:
    command = EnrollNode(
        node=node,
        token="t",
        public_key=credentials.secret.public,
        broker_password_sha256=password_hash(credentials),
        labels={},
        accepted=True,
        is_silent=True,
    )
    transact(node_stream(node), NODE, command)


class Agent:
    """The agent of n1, as a process."""

    def __init__(self, site: Any, broker: ManagedBroker) -> None:
        self.site, self.broker = site, broker
        self.credentials = new_credentials()
        self.file = site.root / "identity.json"
        identity = Identity(node="n1", credentials=self.credentials, control_keys=(control_secrets()[0].public,))
        write_identity(self.file, identity)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environ = {
            **os.environ,
            **self.site.environ,
            "MODFLEET_BROKER_URL": f"redis+socket://{self.broker.socket}",
            "MODFLEET_IDENTITY_FILE": str(self.file),
            "MODFLEET_BEAT_SECONDS": "0.3",
        }
        words = [sys.executable, "-m", "celery", "-A", "rollout.agent", "worker", "--loglevel", "INFO"]
        with (self.site.root / "worker.log").open("a") as log:
            self.process = subprocess.Popen(words, env=environ, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        text: str = (self.site.root / "worker.log").read_text()
        return text

    def incarnation(self) -> str:
        """The start of the agent that its heartbeats name."""
        heard: Sequence[Verified[Heartbeat]] = wait_for(lambda: verified_heartbeats(self.broker.take(HEARTBEATS)))
        return heard[0].message.inventory.incarnation

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def agent(site: Any, broker: ManagedBroker) -> Iterator[Agent]:
    made = Agent(site, broker)
    yield made
    made.stop()


def signed(purpose: Purpose, command: Any) -> Any:
    return msgspec.to_builtins(control_secrets()[0].sign(purpose, "n1", to_json(command)))


def send(broker: ManagedBroker, queue: str = queue_for("n1"), **arguments: Any) -> None:
    with Celery(broker=broker.url("modfleet", "c"), set_as_current=False) as sender:
        sender.send_task(EXECUTE, kwargs=arguments, queue=queue, ignore_result=True)


def outcome(broker: ManagedBroker, rollout: str) -> Any:
    for report in verified_reports(broker.take(REPORTS)):
        if report.rollout == rollout and report.phase.is_final:
            return report
    return None


def test_an_agent_works_with_the_user_that_the_relay_makes_and_outlives_every_loss(broker, agent, built):
    agent.start()
    wait_for(lambda: "consumer: Cannot connect" in agent.log)  # the broker does not know it yet
    enrol("n1", agent.credentials)
    assert broker.relay_once() == 1
    incarnation = agent.incarnation()
    command = replace(agent.site.command(built("greet")), incarnation=incarnation)
    send(broker, signed=signed(Purpose.EXECUTE, command))
    assert wait_for(lambda: outcome(broker, command.rollout)).phase is Phase.SUCCEEDED

    with broker.client("op", "o") as operator:
        operator.flushall()
        wait_for(broker.heard)
        operator.execute_command("ACL", "DELUSER", "node.n1")  # closes its connections
    assert broker.relay_once() == 1
    broker.take(HEARTBEATS)
    wait_for(broker.heard)

    broker.stop()
    broker.start()
    with broker.client(None, None) as nobody, pytest.raises(redis.exceptions.AuthenticationError):
        nobody.llen("control")
    assert broker.relay_once() == 1
    wait_for(broker.heard)
    again = replace(agent.site.command(built("greet", 10100)), incarnation=incarnation)
    send(broker, signed=signed(Purpose.EXECUTE, again))
    assert wait_for(lambda: outcome(broker, again.rollout)).phase is Phase.SUCCEEDED
    with broker.client("op", "o") as operator:
        assert [each for each in operator.acl_log() if each["reason"] != "auth"] == []


def test_the_relay_changes_only_what_differs(broker):
    one, two = new_credentials(), new_credentials()
    enrol("n1", one)
    enrol("n2", two)
    assert [broker.relay_once() for _ in range(2)] == [2, 0]
    fresh = new_credentials()
    key = AddKey(node="n1", public_key=fresh.secret.public, broker_password_sha256=password_hash(fresh))
    for command in (RequestRekey(node="n1"), key):
        transact(node_stream("n1"), NODE, command)
    assert broker.users.poll() == 1, "at once, for an identity has changed"
    for credentials in (one, fresh):
        assert broker.client("node.n1", credentials.broker_password).ping()
    thief, other = broker.client("node.n1", one.broker_password), broker.client("node.n2", two.broker_password)
    assert (thief.ping(), other.ping()) == (True, True)
    connected = broker.connections("node.n2")
    assert broker.users.poll() == 0
    transact(node_stream("n1"), NODE, RetireOtherKeys(node="n1", public_key=fresh.secret.public))
    assert broker.users.poll() == 1
    assert broker.connections("node.n1") == set(), "those that were opened with the former password end too"
    assert broker.connections("node.n2") == connected
    with pytest.raises(redis.exceptions.AuthenticationError):
        broker.client("node.n1", one.broker_password).ping()
    assert broker.client("node.n1", fresh.broker_password).ping()


def test_a_relay_that_has_just_started_gives_current_rights(broker):
    """As after an upgrade of the product: the rules of the older release are replaced."""
    credentials = new_credentials()
    enrol("n1", credentials)
    with broker.client("op", "o") as operator:
        operator.execute_command("ACL", "SETUSER", "node.n1", "on", f"#{password_hash(credentials)}", "~*", "+@all")
    assert broker.relay_once() == 1
    with (
        broker.client("node.n1", credentials.broker_password) as node,
        pytest.raises(redis.exceptions.NoPermissionError),
    ):
        node.flushall()


def test_a_revoked_node_is_out_at_once(broker):
    credentials = new_credentials()
    enrol("n1", credentials)
    broker.relay_once()
    node = broker.client("node.n1", credentials.broker_password)
    assert node.ping()
    with broker.client("modfleet", "c") as control:
        control.lpush(queue_for("n1"), "a command")
    transact(node_stream("n1"), NODE, RevokeNode(node="n1"))
    assert broker.users.poll() == 1
    with pytest.raises((redis.ConnectionError, redis.exceptions.AuthenticationError)):
        node.ping()  # its connection was closed, and it cannot open another one
    with broker.client("modfleet", "c") as control:
        assert control.llen(queue_for("n1")) == 0


#: Each command with which a node may store something for itself.
STORES = {"_kombu": ["SADD", "x"], "unacked": ["HSET", "x", "y"], "unacked_index": ["ZADD", "1", "x"]}


def test_a_revoked_node_leaves_nothing(broker):
    """It can fill the broker through every key that it may write: as list, set, hash or sorted set."""
    credentials = new_credentials()
    enrol("n1", credentials)
    broker.relay_once()
    with broker.client("node.n1", credentials.broker_password) as node, broker.client("op", "o") as operator:
        for key in keys_of("n1"):
            command, *words = STORES.get(key.split(".")[0], ["RPUSH", "x"])
            node.execute_command(command, key, *words)
        assert {each.decode() for each in operator.execute_command("KEYS", "*")} == set(keys_of("n1"))
        for near in ("node.n1!!3", "cancel.n1  9", "node.n1\x06\x161", "unacked.cancel.n1"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                node.rpush(near, "x")
        transact(node_stream("n1"), NODE, RevokeNode(node="n1"))
        broker.relay_once()
        assert operator.execute_command("KEYS", "*") == []


def test_a_relay_with_the_rights_of_an_older_release_still_ends_the_node(valkey, caplog):
    credentials = new_credentials()
    enrol("n1", credentials)
    valkey.relay_once()
    with valkey.client("op", "o") as operator, valkey.client("node.n1", credentials.broker_password) as node:
        operator.execute_command("ACL", "SETUSER", "relay", "resetkeys", "~node.*", "~cancel.*")
        for key in ("node.n1", "cancel.n1", "node.n1\x06\x163"):
            node.rpush(key, "x")
        transact(node_stream("n1"), NODE, RevokeNode(node="n1"))
        assert valkey.relay_once() == 1
        assert "broker_acl --administrator" in caplog.text
        assert operator.execute_command("KEYS", "*") == [b"node.n1\x06\x163"]
    assert valkey.relay_once() == 0


def test_the_relay_may_do_no_more_than_that(broker):
    with broker.client("relay", "a") as relay:
        for words in (
            "GET x",
            "LRANGE node.n1 0 -1",
            "LPUSH node.n1 x",
            "DEL control",
            "FLUSHALL",
            "CONFIG GET *",
            "SHUTDOWN",
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                relay.execute_command(*words.split())


def test_without_an_administrator_the_relay_manages_no_users(settings):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, broker_admin_url="")
    assert BrokerUsers().poll() == 0
    assert CHECK_SECONDS > 0


@pytest.mark.parametrize("broker", [VALKEY], indirect=True, ids=["valkey"])
def test_an_agent_runs_nothing_but_what_was_signed_for_this_start_of_it(broker, agent, built):
    """Each in its queue, as an attacker with the control plane's access to the broker could put it there."""
    enrol("n1", agent.credentials)
    broker.relay_once()
    agent.start()
    incarnation = agent.incarnation()
    command = replace(agent.site.command(built("greet")), incarnation=incarnation)
    other = control_secrets()[0].sign(Purpose.EXECUTE, "n2", to_json(replace(command, node="n2")))
    send(broker, command=to_json(command))
    send(broker, signed=to_json(command))
    send(broker, signed=signed(Purpose.CANCEL, command))
    send(broker, signed=msgspec.to_builtins(other))
    send(broker, signed=signed(Purpose.EXECUTE, replace(command, incarnation="another start")))
    with Connection(broker.url("modfleet", "c")) as connection:
        producer = connection.Producer()
        for body in (to_json(command), signed(Purpose.EXECUTE, command)):
            producer.publish(body, exchange="", routing_key=cancel_queue_for("n1"), serializer="json")
    good = replace(agent.site.command(built("greet", 10100)), incarnation=incarnation)
    send(broker, signed=signed(Purpose.EXECUTE, good))
    assert wait_for(lambda: outcome(broker, good.rollout)).phase is Phase.SUCCEEDED
    assert agent.site.server.loaded() == {("greet", 10100)}
    assert not agent.site.folder(built("greet")).exists(), "nothing of the others was installed"
    wait_for(lambda: agent.log.count("Dropped a cancel") == 2)
    assert agent.log.count("Dropped a command") == 4
    assert "another start of this agent" in agent.log


@pytest.mark.parametrize("broker", [VALKEY], indirect=True, ids=["valkey"])
def test_an_agent_fetches_only_from_hosts_that_the_control_plane_has_named(broker, agent, built):
    enrol("n1", agent.credentials)
    broker.relay_once()
    agent.start()
    made = replace(agent.site.command(built("greet")), incarnation=agent.incarnation())
    assert made.package is not None
    elsewhere = replace(made.package, url=made.package.url.replace("127.0.0.1", "localhost"))
    command = replace(made, package=elsewhere)
    send(broker, signed=signed(Purpose.EXECUTE, command))
    report = wait_for(lambda: outcome(broker, command.rollout))
    assert (report.phase, report.reason) == (Phase.FAILED, "fetch_failed")
    assert "neither the control plane nor its storage" in report.message
    assert agent.site.shelf.asked == ["/v2/enrolment"], "only where packages may be now, and nothing of `localhost`"


@pytest.mark.parametrize("broker", [VALKEY], indirect=True, ids=["valkey"])
def test_a_command_that_a_killed_agent_had_is_not_run_by_the_next_one(broker, agent, built):
    """The control plane sends it again, to the new start."""
    enrol("n1", agent.credentials)
    broker.relay_once()
    agent.site.shelf.gate.clear()
    agent.start()
    command = replace(agent.site.command(built("greet")), incarnation=agent.incarnation())
    send(broker, signed=signed(Purpose.EXECUTE, command))
    wait_for(lambda: agent.site.shelf.asked)
    assert agent.process is not None
    agent.process.send_signal(signal.SIGKILL)
    agent.process.wait()
    agent.site.shelf.gate.set()
    agent.start()
    wait_for(lambda: "another start of this agent" in agent.log)
    broker.take(HEARTBEATS)
    again = replace(command, incarnation=agent.incarnation())
    assert again.incarnation != command.incarnation
    send(broker, signed=signed(Purpose.EXECUTE, again))
    assert wait_for(lambda: outcome(broker, command.rollout)).phase is Phase.SUCCEEDED


@pytest.mark.parametrize("broker", [VALKEY], indirect=True, ids=["valkey"])
def test_what_another_node_puts_into_the_queues_is_not_from_this_one(broker, agent):
    """With the credentials of n2, in the name of n1."""
    enrol("n1", agent.credentials)
    two = new_credentials()
    enrol("n2", two)
    broker.relay_once()
    forged = two.secret.sign(Purpose.HEARTBEAT, "n1", {"node": "n1"}, to=control_secrets()[0].public)
    with Connection(broker.url("node.n2", two.broker_password)) as connection:
        channel: Any = connection.channel()
        producer = connection.Producer(channel)
        for body in (msgspec.to_builtins(forged), {"node": "n1", "sent_at": time.time()}):
            producer.publish(body, exchange="", routing_key=HEARTBEATS, serializer="json")
    assert broker.heard() == []


@pytest.mark.parametrize(
    ("version", "is_refused"),
    [("6.2.14", True), ("5.0.7", True), ("7.0.15", False), ("7.2.4", False), ("10.0.1", False)],
)
def test_a_broker_whose_rules_are_too_coarse_gets_no_users(valkey, version, is_refused):
    """Redis 6.2 cannot give a user different rights on different keys. Valkey calls itself Redis 7.2."""
    enrol("n1", new_credentials())
    asked = valkey.users._broker.info

    def info(section: str) -> Any:
        return asked(section) | {"redis_version": version}

    valkey.users._broker.info = info
    if is_refused:
        with pytest.raises(UnsupportedBrokerError, match=f"The broker is Redis {version}"):
            valkey.relay_once()
    else:
        assert valkey.relay_once() == 1
