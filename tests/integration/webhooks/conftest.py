"""Receivers on real sockets, and deliverers that run beside the test."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from eventstore import Append, append, load
from rollout.domain.node.events import NodeJoined, node_stream
from rollout.messages import NodeProfile
from tests.waiting import wait_for
from webhooks import deliver, services
from webhooks.worker import Deliverer

PROFILE = NodeProfile(platform="linux/x86_64")


@pytest.fixture
def waits() -> Callable[..., Any]:
    return wait_for


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """Keeps what it gets; `answer` is called with each request and returns a status, or a status, headers and a body."""

    def __init__(self, answer: Callable[[Request], Any], tls: tuple[Path, Path] | None) -> None:
        self.received: list[Request] = []
        self.answer = answer
        self.ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._scheme = "https" if tls else "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}/hook"

    @property
    def nodes(self) -> list[str]:
        """The streams of the events received, in order, without `node:`."""
        return [each.event["stream"].removeprefix("node:") for each in self.received]

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(receiver) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                receiver.received.append(request)
                answer = receiver.answer(request)
                status, headers, content = answer if isinstance(answer, tuple) else (answer, {}, b"")
                self.send_response(status)
                for name, value in {"Content-Length": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(ConnectionError):
                    self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

        return Handler


@pytest.fixture
def receiver() -> Iterator[Callable[..., Receiver]]:
    """Makes receivers; they acknowledge unless told otherwise. `tls`: the files of a certificate and its key."""
    made: list[Receiver] = []

    def make(answer: Callable[[Request], Any] = lambda _: 204, tls: tuple[Path, Path] | None = None) -> Receiver:
        made.append(Receiver(answer, tls))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def delivering() -> Iterator[Callable[..., Deliverer]]:
    """Starts deliverers, one unless told otherwise; all of them are stopped in the end."""
    threads: list[Deliverer] = []

    def start(count: int = 1) -> Deliverer:
        for _ in range(count):
            threads.append(Deliverer())
            threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        if thread.is_alive():
            thread.stop()
        assert not thread.is_alive()


@pytest.fixture(autouse=True)
def no_lease_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker gives back or notes at once would otherwise come with the end of its lease."""
    monkeypatch.setattr(deliver, "LEASE_SECONDS", 3600)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again at once."""
    monkeypatch.setattr(deliver, "FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(deliver, "LONGEST_RETRY_SECONDS", 0.04)


def register(url: str, *types: str) -> str:
    """The webhook's uid."""
    return services.register_webhook(url=url, types=types, enabled=True, secret=None).uid


def join(*names: str) -> None:
    """An event for each, in a transaction of its own."""
    for name in names:
        append(Append(node_stream(name), len(load(node_stream(name))), [NodeJoined(node=name, profile=PROFILE)]))
