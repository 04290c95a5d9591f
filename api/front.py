"""Runs a WSGI application in threads behind an ASGI server, so that a slow client costs a connection and not a thread.

The server's event loop reads the beginning of each body before a thread starts, and every later read and write has a
deadline. A WSGI server cannot do that: a thread that reads a body is blocked as long as the client is slow.
"""

import asyncio
import io
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from api.threads import Threads

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[str, str]]
StartResponse = Callable[..., Any]
WsgiApplication = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

logger = logging.getLogger(__name__)

#: How much of a body is read before a thread starts, bytes, and how long that may take, seconds. Nearly all bodies are
#: smaller, except for packages.
FIRST_BYTES = 64 * 1024
FIRST_SECONDS = 2.0
#: How long the rest of a body is read and dropped before the answer and after it, seconds, and for how many bodies at
#: once. Otherwise a client that reads the answer only after it has sent its body gets a broken pipe, and a proxy (Caddy)
#: ends the request. A client that was already slow gets its answer without this wait.
DRAIN_SECONDS = 2.0
DRAINS = 32
#: An answer of at most so many bytes is passed on whole: its thread is free at once.
WHOLE_BYTES = 2_000_000


class ClientClosedError(ConnectionResetError):
    """The client has closed the connection, or reads nothing."""


class Body(io.IOBase):
    """The request's body: a thread reads it as `wsgi.input`, the event loop fills it."""

    def __init__(self, receive: Receive, loop: asyncio.AbstractEventLoop) -> None:
        self._receive = receive
        self._loop = loop
        self._message: asyncio.Future[Message] | None = None
        self._chunks = bytearray()
        self._ended = False
        #: True if it was read before: the first read makes the server send `100 Continue`.
        self.started = False
        #: True if the beginning took too long.
        self.is_slow = False
        #: True if the client is known to have closed the connection.
        self.is_gone = False

    # --- In a thread --------------------------------------------------------------------------------------------------

    @property
    def is_at_hand(self) -> bool:
        """Return True if the next read does not wait."""
        return bool(self._chunks) or self._ended

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, as soon as there are any. Empty at the end."""
        return self.read_within(size, None)

    def read_within(self, size: int, seconds: float | None, /) -> bytes:
        """Read, but wait at most so many seconds. Raises: `TimeoutError`, `ClientClosedError`."""
        if not self.is_at_hand:
            asyncio.run_coroutine_threadsafe(self.fetch(seconds), self._loop).result()
        if not self._chunks and self.is_gone:
            raise ClientClosedError
        data = bytes(self._chunks[:size])
        del self._chunks[:size]
        return data

    # --- On the event loop --------------------------------------------------------------------------------------------

    async def fetch(self, seconds: float | None) -> None:
        """Wait for the next part. Raises: `TimeoutError`."""
        self.started = True
        if self._message is None:
            self._message = asyncio.ensure_future(self._receive())
        done, _ = await asyncio.wait([self._message], timeout=seconds)
        if not done:
            raise TimeoutError
        message, self._message = self._message.result(), None
        self._chunks += message.get("body", b"")
        self.is_gone = message["type"] == "http.disconnect"
        self._ended = self.is_gone or not message.get("more_body", False)

    async def begin(self) -> None:
        """Read what arrives at once: a small body is then complete, and its thread never waits."""
        try:
            async with asyncio.timeout(FIRST_SECONDS):
                while not self._ended and len(self._chunks) < FIRST_BYTES:
                    await self.fetch(None)
        except TimeoutError:
            self.is_slow = True

    async def drain(self) -> None:
        """Read and drop the rest, for a short time."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._ended:
                    self._chunks.clear()
                    await self.fetch(None)
        except TimeoutError:
            pass

    async def watch(self) -> None:
        """Wait until the client has closed the connection. The rest of the body is dropped."""
        while not self.is_gone:
            self._chunks.clear()
            await self.fetch(None)

    def release(self) -> None:
        """Stop reading. The server closes a connection when nothing refers to its unread body, and the traceback of an
        exception may refer to this object for a while."""
        if self._message is not None:
            self._message.cancel()
        self._receive = _nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: Headers
    #: What is left to send: bytes, a file's path, or nothing if all was sent in parts.
    body: bytes | str | None


class FileAnswer:
    """An answer that is a file: `wsgi.file_wrapper`."""

    def __init__(self, file: Any, block_bytes: int) -> None:
        self.file = file
        self._block_bytes = block_bytes
        self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        while block := self.file.read(self._block_bytes):
            yield block

    def path(self, length: int) -> str | None:
        """Return the path of the same `length` bytes. None if the file has no path, or only a part is sent."""
        name = getattr(self.file, "name", None)
        if not isinstance(name, str) or not Path(name).is_absolute():
            return None
        try:
            found, opened = Path(name).stat(), os.fstat(self.file.fileno())
        except (OSError, AttributeError):
            return None
        is_whole = os.path.samestat(found, opened) and opened.st_size == length and self.file.tell() == 0
        return name if is_whole else None


class Front:
    """An ASGI application that calls `application` in one of at most `threads` threads.

    A client that reads nothing of an answer for `send_seconds` no longer blocks a thread.
    """

    def __init__(
        self, application: WsgiApplication, *, threads: int, send_seconds: float, name: str = "request"
    ) -> None:
        self._application = application
        self._send_seconds = send_seconds
        self._threads = Threads(threads, name)
        self._drains = asyncio.Semaphore(DRAINS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        environ = environ_of(scope)
        body = Body(receive, loop)
        exchange = _Exchange(self._application, environ, body, send, loop, self._send_seconds)
        try:
            waits_for_continue = environ.get("HTTP_EXPECT", "").lower() == "100-continue"
            if has_body(environ) and not waits_for_continue:
                await body.begin()
            answered: asyncio.Future[Answer] = loop.create_future()
            self._threads.submit(lambda: exchange.run(answered))
            answer = await answered
            if answer.body is None:
                return
            # A read would send `100 Continue`, and so ask for the body that was refused.
            drains = has_body(environ) and (body.started or not waits_for_continue)
            if drains and not body.is_slow:
                await self._drain(body)
            await send(_start(answer.status, answer.headers))
            if isinstance(answer.body, str):
                await send({"type": "http.response.pathsend", "path": answer.body})
                return
            await send({"type": "http.response.body", "body": answer.body})
            if drains:
                await self._drain(body)
        finally:
            body.release()
            exchange.release()

    async def _drain(self, body: Body) -> None:
        if not self._drains.locked():
            async with self._drains:
                await body.drain()


class _Exchange:
    """One request and its answer, in a thread."""

    def __init__(
        self,
        application: WsgiApplication,
        environ: dict[str, Any],
        body: Body,
        send: Send,
        loop: asyncio.AbstractEventLoop,
        send_seconds: float,
    ) -> None:
        self._application = application
        self._send_seconds = send_seconds
        self._environ = environ | {"wsgi.input": body}
        self._body = body
        self._send = send
        self._loop = loop
        self._status = 500
        self._headers: Headers = []
        self._has_begun = False

    def run(self, answered: "asyncio.Future[Answer]") -> None:
        try:
            answer = self._answer()
        except ClientClosedError:
            answer = self._to_send(None)
        except Exception:  # the outermost loop: Django has answered all errors that it knows
            logger.exception("a request failed")
            self._status, self._headers = 500, [("Content-Length", "0")]
            answer = self._to_send(None if self._has_begun else b"")
        self._loop.call_soon_threadsafe(_settle, answered, answer)

    def release(self) -> None:
        """Stop sending."""
        self._send = _drop

    def _answer(self) -> Answer:
        chunks = self._application(self._environ, self._start_response)
        try:
            length = next((int(value) for name, value in self._headers if name.lower() == "content-length"), None)
            if length is not None and isinstance(chunks, FileAnswer) and (path := chunks.path(length)) is not None:
                return self._to_send(path)
            if length is not None and length <= WHOLE_BYTES:
                return self._to_send(b"".join(chunks))
            self._stream(chunks)
            return self._to_send(None)
        finally:
            if (close := getattr(chunks, "close", None)) is not None:
                close()

    def _to_send(self, body: bytes | str | None) -> Answer:
        return Answer(status=self._status, headers=self._headers, body=body)

    def _start_response(self, status: str, headers: Headers, _exc_info: object = None) -> None:
        self._status = int(status.partition(" ")[0])
        self._headers = headers

    def _stream(self, chunks: Iterable[bytes]) -> None:
        """Raises: `ClientClosedError`."""
        self._wait_for(self._begin())
        for chunk in chunks:
            self._wait_for(self._send_within({"type": "http.response.body", "body": chunk, "more_body": True}))
        self._wait_for(self._send_within({"type": "http.response.body", "body": b""}))

    def _wait_for(self, sending: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(sending, self._loop).result()

    async def _begin(self) -> None:
        self._has_begun = True
        await self._send_within(_start(self._status, self._headers))
        self._watcher = asyncio.ensure_future(self._body.watch())

    async def _send_within(self, message: Message) -> None:
        if self._body.is_gone:
            raise ClientClosedError
        try:
            async with asyncio.timeout(self._send_seconds):
                await self._send(message)
        except TimeoutError as error:
            raise ClientClosedError from error


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


async def _drop(_message: Message) -> None:
    raise ClientClosedError


def _settle(answered: "asyncio.Future[Answer]", answer: Answer) -> None:
    if not answered.done():
        answered.set_result(answer)


def _start(status: int, headers: Headers) -> Message:
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
    }


def has_body(environ: dict[str, Any]) -> bool:
    return "HTTP_TRANSFER_ENCODING" in environ or environ.get("CONTENT_LENGTH", "0") != "0"


def environ_of(scope: Scope) -> dict[str, Any]:
    """Return the WSGI environment of PEP 3333, without the body."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": scope["server"][0],
        "SERVER_PORT": str(scope["server"][1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": scope["client"][0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileAnswer,
    }
    for name, value in scope["headers"]:
        # With an underscore, it could pass for another header (X_Forwarded_For). Parts of files are not served: each would
        # be in memory as long as a slow client reads it.
        if b"_" in name or name == b"range":
            continue
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            key = f"HTTP_{key}"
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}" if key in environ else text
    return environ
