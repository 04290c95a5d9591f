"""A broker and a server with TLS: Debian's Redis, with certificates of a private authority."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import redis
from celery import Celery

from rollout.agent.control_plane.publisher import Publisher, connected
from rollout.agent.control_plane.trust import Trust
from rollout.agent.failure import Failure
from rollout.agent.server.session import Server
from rollout.agent.settings import settings_from
from rollout.messages import EXECUTE, REPORTS, Phase, Report, Reports, from_json, queue_for, to_json
from rollout.tls import in_words, secured
from tests.authority import Authority
from tests.plugins.server import prepared
from tests.ports import free_port
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


class Redis:
    """`url` is at its TLS port; it has no other. `requires` says if clients need a certificate of its authority."""

    def __init__(self, folder, authority, *options, requires=False):
        folder.mkdir()
        port = free_port()
        self.authority = authority
        self.url = f"rediss://localhost:{port}"
        self.client_files = authority.issue("client")
        certificate, key = authority.issue("server", "localhost")
        words = ["--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder, *options]
        words += ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", authority.certificate]
        words += ["--tls-auth-clients", "yes" if requires else "no"]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(["redis-server", *words], stdout=log, stderr=log)
        wait_for(self.answers)

    def client(self):
        certificate, key = self.client_files
        url = secured(self.url, ca=self.authority.certificate, certificate=certificate, key=key)
        return redis.Redis.from_url(url, decode_responses=True)

    def answers(self):
        assert self.process.poll() is None, "redis-server ended"
        try:
            with self.client() as client:
                return client.ping()
        except redis.ConnectionError:
            return False

    def stop(self):
        self.process.kill()
        self.process.wait()


@contextmanager
def redis_server(*words, **options):
    made = Redis(*words, **options)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Has the name of ours, and another key."""
    return Authority(tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="module")
def broker(ours, tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("broker") / "b", ours) as made:
        yield made


@pytest.fixture(scope="module")
def server(ours, tmp_path_factory):
    """It requires a certificate of its clients."""
    folder = tmp_path_factory.mktemp("server") / "s"
    with redis_server(folder, ours, "--enable-module-command", "local", requires=True) as made:
        yield made


@pytest.fixture
def settings(broker, server, tmp_path):
    """Of an agent that has all it needs."""
    certificate, key = server.client_files
    return settings_from(
        {
            "MODFLEET_NODE": "n1",
            "MODFLEET_BROKER_URL": broker.url,
            "MODFLEET_BROKER_CA": str(broker.authority.certificate),
            "MODFLEET_CONTROL_URL": "http://127.0.0.1:1",
            "MODFLEET_SERVER_URL": server.url,
            "MODFLEET_SERVER_CA": str(server.authority.certificate),
            "MODFLEET_SERVER_CERTIFICATE": str(certificate),
            "MODFLEET_SERVER_KEY": str(key),
            "MODFLEET_MODULES_DIR": str(tmp_path / "modules"),
            "MODFLEET_JOURNAL_DIR": str(tmp_path / "journal"),
        }
    )


@contextmanager
def process(log, *words, **environ):
    with log.open("wb") as file:
        started = subprocess.Popen([sys.executable, *words], env=os.environ | environ, stdout=file, stderr=file)
    try:
        yield started
    finally:
        started.send_signal(signal.SIGKILL)
        started.wait()


AGENT = ("-m", "celery", "-A", "rollout.agent", "worker", "--loglevel", "INFO")


def test_an_agent_loads_a_module_over_tls(site, built, settings):
    environ = site.environ | {
        "MODFLEET_BROKER_URL": settings.broker_url,
        "MODFLEET_BROKER_CA": str(settings.broker_ca),
        "MODFLEET_SERVER_URL": settings.server_url,
        "MODFLEET_SERVER_CA": str(settings.server_ca),
        "MODFLEET_SERVER_CERTIFICATE": str(settings.server_certificate),
        "MODFLEET_SERVER_KEY": str(settings.server_key),
    }
    command = site.command(built("greet"))
    with process(site.root / "worker.log", *AGENT, **environ), connected(Trust(settings)) as connection:
        with Celery(broker=secured(settings.broker_url, ca=settings.broker_ca), set_as_current=False) as sender:
            sender.send_task(EXECUTE, kwargs={"command": to_json(command)}, queue=queue_for("n1"), ignore_result=True)
        channel: Any  # the stubs do not know `basic_get`
        with connection.channel() as channel:

            def end():
                while message := channel.basic_get(REPORTS, no_ack=True):
                    report = from_json(Report, message.decode())
                    if report.phase.is_final:
                        return report
                return None

            assert wait_for(end).phase is Phase.SUCCEEDED


def test_an_agent_with_another_authority_says_which_file_is_wrong(site, settings, other):
    log = site.root / "worker.log"
    environ = {"MODFLEET_BROKER_URL": settings.broker_url, "MODFLEET_BROKER_CA": str(other.certificate)}
    with process(log, *AGENT, **(site.environ | environ)):
        wait_for(lambda: "Nothing was sent" in log.read_text())
    (line, *_) = [each for each in log.read_text().splitlines() if "Nothing was sent" in each]
    assert "its certificate is not trusted: " in line
    assert "Set MODFLEET_BROKER_CA to the PEM file of the authority that signed it." in line


def test_an_agent_that_the_broker_refuses_says_so_once(settings, caplog):
    refused = replace(settings, broker_url=settings.broker_url.replace("://", "://nobody:secret@"))
    publisher = Publisher(Trust(refused))
    assert not any(publisher.send(Reports(reports=()), queue=REPORTS, patience=0) for _ in range(2))
    (line,) = [each.getMessage() for each in caplog.records if each.name == "rollout.agent.control_plane.publisher"]
    assert line == (
        "The broker refuses this node: the node waits for `modfleet nodes accept`, or its identity was revoked. Nothing was "
        f"sent to {REPORTS}."
    )


@pytest.mark.parametrize("ca", ["none", "other"])
def test_a_broker_that_is_not_trusted(settings, other, ca):
    settings = replace(settings, broker_ca={"none": None, "other": other.certificate}[ca])
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED") as raised:
        connected(Trust(settings))
    words = in_words(raised.value, "MODFLEET_BROKER_CA")
    assert words.endswith("Set MODFLEET_BROKER_CA to the PEM file of the authority that signed it")


def test_a_broker_with_another_name(settings):
    """Another authority would not help."""
    settings = replace(settings, broker_url=settings.broker_url.replace("localhost", "127.0.0.1"))
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED") as raised:
        connected(Trust(settings))
    words = in_words(raised.value, "MODFLEET_BROKER_CA")
    assert "127.0.0.1" in words
    assert "Set MODFLEET_BROKER_CA" not in words


def test_options_of_the_url_count(settings):
    """They are read as well as the setting, and before it."""
    unverified = replace(settings, broker_url=f"{settings.broker_url}?ssl_cert_reqs=none", broker_ca=None)
    connected(Trust(unverified)).release()
    verified = replace(settings, broker_url=f"{settings.broker_url}?ssl_cert_reqs=required")
    connected(Trust(verified)).release()


def test_a_server_over_tls(settings):
    with Server(settings).session() as session:
        session.ping()


def test_a_server_that_is_not_trusted(settings, other):
    wrong = replace(settings, server_ca=other.certificate)
    with pytest.raises(Failure) as raised, Server(wrong).session():
        pass
    assert str(raised.value).startswith(
        f"The server at {settings.server_url} cannot be reached: its certificate is not"
    )
    assert str(raised.value).endswith("Set MODFLEET_SERVER_CA to the PEM file of the authority that signed it.")


def test_a_server_that_requires_a_certificate(settings):
    without = replace(settings, server_certificate=None, server_key=None)
    with pytest.raises(Failure, match="The server closed"), Server(without).session() as session:
        session.ping()


CONTROL_PLANE = """
import django
django.setup()
from celery import current_app
from config.celery import app
from operations import broker
broker.ping()
broker.depths(["n1"])
with app.connection_for_write() as connection, connection.Producer(serializer="json") as producer:
    producer.publish({}, exchange="", routing_key="from-control")
"""


def test_the_control_plane_over_tls(broker, tmp_path):
    environ = {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "MODFLEET_DATA_DIR": str(tmp_path),
        "MODFLEET_BROKER_URL": f"{broker.url}/0",
        "MODFLEET_BROKER_CA": str(broker.authority.certificate),
    }
    done = subprocess.run([sys.executable, "-c", CONTROL_PLANE], env=os.environ | environ, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    with broker.client() as client:
        assert client.llen("from-control") == 1


HAS_A_COMMAND = "import django; django.setup(); from tests.recorded_fleet import fleet, start; fleet(1); start()"


def test_a_relay_with_another_authority_says_which_file_is_wrong(broker, other, tmp_path):
    environ = prepared(tmp_path, MODFLEET_BROKER_URL=f"{broker.url}/0", MODFLEET_BROKER_CA=str(other.certificate))
    subprocess.run([sys.executable, "-c", HAS_A_COMMAND], env=environ, check=True)
    log = tmp_path / "relay.log"
    with process(log, "manage.py", "relay", **environ):
        wait_for(lambda: "the broker cannot be reached" in log.read_text())
    (line, *_) = [each for each in log.read_text().splitlines() if "the broker cannot be reached" in each]
    assert line.endswith("Set MODFLEET_BROKER_CA to the PEM file of the authority that signed it")


READINESS = """
import time
import django
django.setup()
from operations.health import CHECKS
(check,) = [each for each in CHECKS if each.name == "broker"]
check.start()
print(check.cause(until=time.monotonic() + 60))
"""


@pytest.mark.parametrize("ca", ["none", "other"])
def test_readiness_with_another_authority_says_which_setting_is_wrong(broker, other, tmp_path, ca):
    given = {} if ca == "none" else {"MODFLEET_BROKER_CA": str(other.certificate)}
    environ = prepared(tmp_path, MODFLEET_BROKER_URL=f"{broker.url}/0", **given)
    done = subprocess.run([sys.executable, "-c", READINESS], env=environ, capture_output=True, text=True)
    assert done.stdout == "untrusted\n", done.stderr
    (line,) = [each for each in done.stderr.splitlines() if "broker is not ready" in each]
    assert "The broker cannot be reached: its certificate is not trusted: " in line
    assert line.endswith("Set MODFLEET_BROKER_CA to the PEM file of the authority that signed it.")
