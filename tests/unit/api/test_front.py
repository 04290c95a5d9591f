"""The front as an ASGI server meets it: what it sends, and what becomes of clients that take or send nothing."""

import asyncio
import threading
from typing import Any

import pytest

from api import front
from api.front import ClientGoneError, Front, environ_of

SCOPE = {
    "type": "http",
    "method": "GET",
    "raw_path": b"/a%20b/%ff",
    "query_string": b"x=%31",
    "server": ("127.0.0.1", 8000),
    "client": ("10.0.0.7", 1234),
    "http_version": "1.1",
    "scheme": "http",
    "headers": [(b"host", b"x")],
}
WITH_BODY = SCOPE | {"method": "POST", "headers": [(b"content-length", b"10")]}


class Parts:
    """An answer without end; knows whether it was closed."""

    def __init__(self, most=10**9):
        self.closed = threading.Event()
        self._left = most

    def __iter__(self):
        return self

    def __next__(self):
        if not self._left:
            raise StopIteration
        self._left -= 1
        return b"x" * 1000

    def close(self):
        self.closed.set()


def app_of(answer, headers=(), read=None):
    def application(environ, start_response):
        if read is not None:
            read(environ["wsgi.input"])
        start_response("200 OK", list(headers))
        return answer

    return application


def exchange(application, *, scope=SCOPE, messages=({"type": "http.request"},), takes=10**9, send_seconds=30.0):
    """What is sent to a client that takes so many messages and then nothing more."""
    sent: list[Any] = []
    left = list(messages)

    async def receive():
        return left.pop(0) if left else await asyncio.Event().wait()

    async def send(message):
        if len(sent) >= takes:
            await asyncio.Event().wait()
        sent.append(message)

    async def run():
        async with asyncio.timeout(20):
            await Front(application, threads=2, send_seconds=send_seconds)(scope, receive, send)

    asyncio.run(run())
    return sent


def test_it_works():
    start, body = exchange(app_of([b"he", b"llo"], [("Content-Length", "5"), ("X-Y", "é")]))
    assert start["headers"] == [(b"content-length", b"5"), (b"x-y", b"\xe9")]
    assert (start["status"], body) == (200, {"type": "http.response.body", "body": b"hello"})


def test_an_answer_of_unknown_length_is_sent_part_by_part():
    parts = Parts(3)
    sent = exchange(app_of(parts))
    assert [len(each.get("body", b"")) for each in sent] == [0, 1000, 1000, 1000, 0]
    assert "more_body" not in sent[-1]
    assert parts.closed.is_set()


def test_a_client_that_takes_nothing_holds_no_thread():
    parts = Parts()
    sent = exchange(app_of(parts), takes=5, send_seconds=0.1)
    assert (len(sent), parts.closed.is_set()) == (5, True)


def test_a_client_that_goes_away_ends_a_stream():
    parts = Parts()
    exchange(app_of(parts), messages=[{"type": "http.request"}, {"type": "http.disconnect"}])
    assert parts.closed.is_set()


def test_an_application_that_fails():
    def application(environ, start_response):
        raise ValueError

    start, body = exchange(application)
    assert (start["status"], body["body"]) == (500, b"")


def test_an_answer_that_fails_halfway_just_ends():
    def parts():
        yield b"x"
        raise ValueError

    assert [each["type"] for each in exchange(app_of(parts()))] == ["http.response.start", "http.response.body"]


def test_a_body_is_read_and_the_rest_is_dropped():
    read = []
    messages = [{"type": "http.request", "body": each, "more_body": True} for each in (b"hel", b"lo", b"wor")]
    exchange(
        app_of([b""], [("Content-Length", "0")], read=lambda body: read.append(body.read(4) + body.read(4))),
        scope=WITH_BODY,
        messages=[*messages, {"type": "http.request", "body": b"ld"}],
    )
    assert read == [b"hellowor"]


@pytest.mark.parametrize("after", [0, 1])
def test_a_client_that_goes_away_within_its_body(after):
    seen = []

    def read(body):
        while True:
            try:
                seen.append(body.read(100))
            except ClientGoneError:
                seen.append("gone")
                return

    messages = [{"type": "http.request", "body": b"he", "more_body": True}] * after + [{"type": "http.disconnect"}]
    exchange(app_of([b""], [("Content-Length", "0")], read=read), scope=WITH_BODY, messages=messages)
    assert seen == [b"he"] * after + ["gone"]


@pytest.mark.parametrize("first", [[], [{"type": "http.request", "body": b"x" * 70_000, "more_body": True}]])
def test_a_body_that_stops_is_not_drained_for_long(monkeypatch, first):
    monkeypatch.setattr(front, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(front, "DRAIN_SECONDS", 0.05)
    start, _ = exchange(app_of([b""], [("Content-Length", "0")]), scope=WITH_BODY, messages=first)
    assert start["status"] == 200


def test_a_body_that_is_awaited_with_100_continue_is_not_asked_for():
    asked = []

    async def receive():
        asked.append(1)
        return {"type": "http.request", "body": b"x" * 10}

    async def send(message):
        pass

    scope = SCOPE | {"method": "POST", "headers": [(b"content-length", b"10"), (b"expect", b"100-continue")]}
    application = app_of([b""], [("Content-Length", "0")])
    asyncio.run(Front(application, threads=1, send_seconds=1.0)(scope, receive, send))
    assert asked == []


def test_a_file_is_left_to_the_server(tmp_path):
    file = tmp_path / "package.zip"
    file.write_bytes(b"x" * 100)

    def application(environ, start_response):
        start_response("200 OK", [("Content-Length", length)])
        opened = file.open("rb")
        opened.seek(offset)
        return environ["wsgi.file_wrapper"](opened, 4096)

    length, offset = "100", 0
    assert exchange(application)[1] == {"type": "http.response.pathsend", "path": str(file)}
    length, offset = "60", 40
    assert exchange(application)[1]["body"] == b"x" * 60


def test_the_environment():
    headers = [
        *[(b"content-type", b"a/b"), (b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"accept", b"a"), (b"accept", b"b")],
        *[(b"x_forwarded_for", b"1.2.3.4"), (b"x-name", b"\xff"), (b"range", b"bytes=1-2")],
    ]
    environ = environ_of(SCOPE | {"headers": headers})
    assert (environ["PATH_INFO"], environ["QUERY_STRING"], environ["REMOTE_ADDR"]) == ("/a b/\xff", "x=%31", "10.0.0.7")
    assert (environ["CONTENT_TYPE"], environ["HTTP_COOKIE"], environ["HTTP_ACCEPT"]) == ("a/b", "a=1; b=2", "a,b")
    assert environ["HTTP_X_NAME"] == "\xff"
    assert {"HTTP_X_FORWARDED_FOR", "HTTP_RANGE"}.isdisjoint(environ)
