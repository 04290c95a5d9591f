"""Clients that send their request's body a byte at a time, on many connections at once."""

import selectors
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from tests.waiting import PATIENCE

_EACH_SECONDS = 0.5


class SlowClients:
    """`heads` are what the connections begin with, one after the other; each then sends a byte twice a second."""

    def __init__(self, port: int, heads: Sequence[bytes], *, count: int, drop: bytes = b" ") -> None:
        #: What came back on each connection, by its number.
        self.answers: dict[int, bytes] = {}
        self._port = port
        self._heads = heads
        self._count = count
        self._drop = drop
        self._stopping = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._open: dict[int, socket.socket] = {}
        self._thread = threading.Thread(target=self._drip, name="slow-clients", daemon=True)

    @property
    def standing(self) -> int:
        """How many connections the server has not closed."""
        return len(self._open)

    @property
    def statuses(self) -> list[int]:
        """Of all answers so far, sorted."""
        return sorted(int(each[9:12]) for each in list(self.answers.values()) if len(each) >= 12)

    def start(self) -> None:
        for number in range(self._count):
            connection = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE)
            connection.sendall(self._heads[number % len(self._heads)])
            connection.setblocking(False)
            self._open[number] = connection
            self._selector.register(connection, selectors.EVENT_READ, number)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        for each in self._open.values():
            each.close()
        self._selector.close()

    def _drip(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            for key, _ in self._selector.select(timeout=max(0.0, due - time.monotonic())):
                self._read(key.data)
            if time.monotonic() >= due:
                due = time.monotonic() + _EACH_SECONDS
                for number in list(self._open):
                    self._send(number)

    def _read(self, number: int) -> None:
        try:
            data = self._open[number].recv(65536)
        except OSError:
            data = b""
        self.answers[number] = self.answers.get(number, b"") + data
        if not data:
            connection = self._open.pop(number)
            self._selector.unregister(connection)
            connection.close()

    def _send(self, number: int) -> None:
        with suppress(OSError):  # what came back before is read all the same
            self._open[number].send(self._drop)


@contextmanager
def slow_clients(port: int, heads: Sequence[bytes], *, count: int, drop: bytes = b" ") -> Iterator[SlowClients]:
    clients = SlowClients(port, heads, count=count, drop=drop)
    try:
        clients.start()
        yield clients
    finally:
        clients.stop()


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode()
