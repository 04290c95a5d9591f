"""The proxy between a real server, its clients and its replica."""

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.fleet import remove_folder, short_folder
from tests.proof.proxy import Link, Proxies
from tests.shards import Machine
from tests.waiting import wait_for

REDIS = Path(shutil.which("redis-server") or "redis-server")


@pytest.fixture(scope="module")
def proxies() -> Iterator[Proxies]:
    with Proxies() as made:
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[Machine]:
    folder = short_folder()
    made = Machine("a", folder / "a", REDIS).start()
    yield made
    made.stop()
    remove_folder(folder)


@contextmanager
def client(link: Link, timeout: float = 60.0) -> Iterator[redis.Redis]:
    made = redis.Redis(link.host, link.port, socket_timeout=timeout, retry=Retry(NoBackoff(), 0))
    yield made
    made.close()


@pytest.fixture
def link(proxies, server) -> Link:
    made: Link = proxies.link(("127.0.0.1", server.port))
    return made


def test_all_bytes_arrive(link):
    value = bytes(range(256)) * 100_000
    with client(link) as each:
        each.set("large", value)
        assert each.get("large") == value


def test_a_unix_socket_behind_it(proxies, server):
    with client(proxies.link(str(server.socket))) as each:
        assert each.ping()


def test_a_cut_resets_and_refuses_until_it_is_healed(link):
    with socket.create_connection((link.host, link.port)) as opened, client(link) as new:
        opened.send(b"PING\r\n")
        assert opened.recv(100) == b"+PONG\r\n"
        link.cut()
        with pytest.raises(ConnectionResetError):
            opened.recv(100)
        with pytest.raises(redis.ConnectionError, match="refused"):
            new.ping()
        link.heal()
        assert new.ping()


def test_what_is_sent_while_it_stalls_arrives_later(link, server):
    server.call("SET", "n", 0)
    with client(link, timeout=0.2) as each:
        each.ping()
        link.stall()
        with pytest.raises(redis.TimeoutError):
            each.incr("n")
        assert server.call("GET", "n") == "0"
        link.heal()
        wait_for(lambda: server.call("GET", "n") == "1")


def test_a_slow_link_takes_its_time(link):
    with client(link) as each:
        each.ping()
        link.slow(seconds=0.1, rate=1e6)
        began = time.monotonic()
        each.set("large", b"x" * 500_000)
        assert time.monotonic() - began > 0.5


@pytest.mark.parametrize("hurt", [Link.cut, Link.stall])
def test_only_replicas_notice(link, server, hurt):
    replica = Machine("b", server.folder.parent / "b", REDIS).start()
    try:
        replica.call("REPLICAOF", link.host, link.port)
        wait_for(lambda: replica.is_in_step(server))
        with client(link) as each:
            each.execute_command("COMMAND LIST")  # the answer has the word by which replicas are known
            hurt(link, replicas_only=True)
            each.incr("n")
            assert each.execute_command("WAIT", 1, 100) == 0
            link.heal()
            wait_for(lambda: replica.is_in_step(server))
    finally:
        replica.stop()
        remove_folder(replica.folder)
