"""The body stream: bounded, and drained without holding the request."""

import io
import threading
import time

from api import body
from api.body import BodyStream


class Slow:
    """Sends one byte, then nothing until it is told to."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self._sent = False

    def read(self, size: int, /) -> bytes:
        if not self._sent:
            self._sent = True
            return b"x"
        self.goes_on.wait(10)
        return b""


def test_it_works():
    stream = BodyStream(io.BytesIO(b"hello world"), 5)
    assert (stream.started, stream.read(2), stream.read(), stream.read(), stream.started) == (
        False,
        b"he",
        b"llo",
        b"",
        True,
    )


def test_lines():
    assert list(BodyStream(io.BytesIO(b"a\nb\nc"), 5)) == [b"a\n", b"b\n", b"c"]


def test_a_source_that_ends_before_its_length():
    stream = BodyStream(io.BytesIO(b"hello"), 500)
    assert (stream.read(), stream.read()) == (b"hello", b"")


def test_drained():
    source = io.BytesIO(b"x" * 1_000_000)
    BodyStream(source, 999_999).drain()
    assert source.tell() == 999_999


def test_nothing_to_drain_starts_no_thread(monkeypatch):
    monkeypatch.setattr(body.threading, "Thread", None)
    BodyStream(io.BytesIO(), 0).drain()


def test_a_slow_sender_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(body, "DRAIN_SECONDS", 0.05)
    source, began = Slow(), time.monotonic()
    BodyStream(source, 100).drain()
    assert time.monotonic() - began < 5
    source.goes_on.set()


def test_only_so_many_are_drained_at_once(monkeypatch):
    monkeypatch.setattr(body, "_drainers", threading.BoundedSemaphore(1))
    body._drainers.acquire()
    source = io.BytesIO(b"x" * 10)
    BodyStream(source, 10).drain()
    assert source.tell() == 0


def test_a_client_that_goes_away(monkeypatch):
    class Gone:
        def read(self, size: int, /) -> bytes:
            raise ConnectionResetError

    BodyStream(Gone(), 10).drain()
    assert body._drainers._value == 32


def test_a_surplus_is_drained_and_never_read():
    source = io.BytesIO(b"hello world")
    stream = BodyStream(source, 5, surplus=100)
    assert (stream.read(), stream.read()) == (b"hello", b"")
    stream.drain()
    assert source.tell() == 11
