"""How fast `GET /v2/rollouts/{uid}` is: at 10 nodes, at 1,000, and a bare DRF view, each asked in turn."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from modfleet.cluster import SERVER_OPTIONS
from modfleet.supervisor import Supervisor

CONNECTIONS = 8
TOKEN_SECONDS = 86_400


@dataclass(frozen=True)
class Target:
    """A path of a server on this machine."""

    port: int
    path: str
    token: str

    def requests_per_second(self, seconds: float) -> float:
        """Over `CONNECTIONS` that stay open, each with a thread that asks again as soon as it is answered."""
        end = time.perf_counter() + seconds
        counts: list[int] = []
        threads = [threading.Thread(target=lambda: counts.append(self._ask_until(end))) for _ in range(CONNECTIONS)]
        began = time.perf_counter()
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(counts) == CONNECTIONS, "a connection failed"
        return sum(counts) / (time.perf_counter() - began)

    def _ask_until(self, end: float) -> int:
        request = (
            f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.token}\r\n"
            "Accept: application/json\r\n\r\n"
        ).encode()
        count = 0
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while time.perf_counter() < end:
                client.sendall(request)
                _read_answer(client)
                count += 1
        return count


def _read_answer(client: socket.socket) -> bytes:
    answer = b""
    while (end := answer.find(b"\r\n\r\n")) < 0:
        answer += _some(client)
    head, body = answer[:end].lower(), answer[end + 4 :]
    assert head.startswith(b"http/1.1 200"), answer
    length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    while len(body) < length:
        body += _some(client)
    return body


def _some(client: socket.socket) -> bytes:
    data = client.recv(65536)
    assert data, "the server closed the connection"
    return data


@contextmanager
def targets(folder: Path, *, few: int, many: int, tell: Callable[[str], None]) -> Iterator[dict[str, Target]]:
    """`few`, `many` and `bare`, served by two granians over one database; they have ended when this does."""
    kept = dict(os.environ)
    supervisor = Supervisor(folder / "logs", tell)
    try:
        os.environ.update(
            {
                "DJANGO_SETTINGS_MODULE": "config.settings",
                "MODFLEET_DATA_DIR": str(folder),
                "MODFLEET_REQUESTS_PER_MINUTE": "0",  # one user asks as fast as it is answered
            }
        )
        words = [sys.executable, "-m", "bench.fill", str(few), str(many)]
        filled = subprocess.run(words, capture_output=True, text=True, check=True)
        token, few_uid, many_uid = filled.stdout.split()[-3:]
        ours, bare = _free_port(), _free_port()
        _serve(supervisor, "ours", ours, "config.settings")
        _serve(supervisor, "bare", bare, "bench.bare_settings")
        found = {
            "few": Target(ours, f"/v2/rollouts/{few_uid}", token),
            "many": Target(ours, f"/v2/rollouts/{many_uid}", token),
            "bare": Target(bare, f"/v2/rollouts/{many_uid}", token),
        }
        for each in found.values():
            supervisor.wait_until(partial(_listens, each.port), "waiting for the servers")
        yield found
    finally:
        supervisor.stop()
        os.environ.clear()
        os.environ.update(kept)


def _serve(supervisor: Supervisor, name: str, port: int, settings: str) -> None:
    """As the cluster serves its API."""
    words = [*SERVER_OPTIONS, "--host", "127.0.0.1", "--port", str(port), "config.asgi:application"]
    environ = {**os.environ, "DJANGO_SETTINGS_MODULE": settings}
    supervisor.start(name, [sys.executable, "-m", "granian", *words], environ)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
