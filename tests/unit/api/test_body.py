"""The body stream: bounded, and ended when it comes too slowly."""

import io

import pytest

from api import body
from api.body import BodyStream, RefusedBodyError
from api.slots import Slots
from api.statuses import status_of
from eventstore import ANONYMOUS, acting_as


class Slow:
    """`data` for each read, after `seconds` on the clock that the stream reads."""

    is_at_hand = False

    def __init__(self, monkeypatch, seconds, data=b"x"):
        self.now = 0.0
        self._data = data
        self._seconds = seconds
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr(body, "_slots", Slots())

    def read(self, size, /):
        raise AssertionError("it would wait for ever")

    def read_within(self, size, seconds, /):
        self.now += min(seconds, self._seconds)
        if seconds < self._seconds:
            raise TimeoutError
        return self._data


def read_all(stream):
    while stream.read(65536):
        pass


def test_it_works():
    stream = BodyStream(io.BytesIO(b"hello world"), 5)
    assert (stream.read(2), stream.read(), stream.read(), stream.refusal) == (b"he", b"llo", b"", None)


def test_lines():
    assert list(BodyStream(io.BytesIO(b"a\nb\nc"), 5)) == [b"a\n", b"b\n", b"c"]


def test_a_source_that_ends_before_its_length():
    stream = BodyStream(io.BytesIO(b"hello"), 500)
    assert (stream.read(), stream.read()) == (b"hello", b"")


@pytest.mark.parametrize("seconds", [0.5, 3.0, 60.0])
def test_without_credentials_the_whole_body_has_a_deadline(monkeypatch, seconds):
    source = Slow(monkeypatch, seconds)
    stream = BodyStream(source, 100_000)
    with pytest.raises(RefusedBodyError):
        read_all(stream)
    assert source.now == pytest.approx(10)
    assert stream.refusal
    assert (status_of(stream.refusal), stream.refusal.code) == (408, "body_too_slow")


@pytest.mark.parametrize("seconds", [0.5, 45.0])
def test_with_credentials_it_has_a_least_rate(monkeypatch, seconds):
    source = Slow(monkeypatch, seconds)
    stream = BodyStream(source, 10**9)
    with acting_as("user:alice"), pytest.raises(RefusedBodyError):
        read_all(stream)
    assert source.now == pytest.approx(30)
    assert stream.refusal
    assert stream.refusal.code == "body_too_slow"


def test_a_body_that_keeps_the_rate_may_take_as_long_as_it_likes(monkeypatch):
    source = Slow(monkeypatch, 0.9, b"x" * 1000)
    with acting_as("user:alice"):
        read_all(BodyStream(source, 100_000))
    assert source.now == pytest.approx(90, abs=1)


@pytest.mark.parametrize(
    ("actor", "limit", "code"), [(ANONYMOUS, 32, "too_many_bodies"), ("user:al", 64, "too_many_requests")]
)
def test_only_so_many_are_waited_for_at_once(monkeypatch, actor, limit, code):
    source = Slow(monkeypatch, 0.001)
    with acting_as(actor):
        streams = [BodyStream(source, 100) for _ in range(limit)]
        assert [each.read(1) for each in streams] == [b"x"] * limit
        late = BodyStream(source, 100)
        with pytest.raises(RefusedBodyError):
            late.read(1)
        assert late.refusal
        assert (status_of(late.refusal), late.refusal.code) == (429, code)
        assert late.refusal.retry_after_seconds
        assert late.refusal.retry_after_seconds > 0
        streams[0].release()
        assert BodyStream(source, 100).read(1) == b"x"


def test_a_body_that_is_there_takes_no_place(monkeypatch):
    source = Slow(monkeypatch, 0.001)
    held = [BodyStream(source, 100) for _ in range(32)]
    for each in held:
        each.read(1)

    class AtHand(Slow):
        is_at_hand = True

        def read(self, size, /):
            return b"x"

    assert BodyStream(AtHand(monkeypatch, 1.0), 100).read(1) == b"x"
