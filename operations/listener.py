"""A listener for the probes: it still answers when the API's listener has no connection or thread left."""

import asyncio
import logging
import resource
import signal
from contextlib import suppress
from typing import Any

from api.front import Front, Message, Receive, Scope, Send
from eventstore import end_waits
from operations import health

logger = logging.getLogger(__name__)

#: How long a client may take to send its request and receive the answer, seconds.
CLIENT_SECONDS = 5.0
#: How many clients may be connected at once.
CLIENTS = 100


class Service:
    """The ASGI application of a process: `api`, and the probes at `address`, if any, from its start to its end."""

    def __init__(self, api: Front, probes: Front, address: str) -> None:
        self._api = api
        self._probes = ProbeListener(probes)
        self._address = address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._api(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        _allow_many_connections()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _end)
        server = None
        try:
            if self._address:
                server = await self._probes.listen(self._address)
        except (OSError, ValueError) as error:
            message = f"MODFLEET_PROBE_ADDRESS={self._address}: {error}"
            await send({"type": "lifespan.startup.failed", "message": message})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if server is not None:
            server.close()
        await send({"type": "lifespan.shutdown.complete"})


class ProbeListener:
    """Serves only the probes, with a minimum of HTTP/1: one request and one answer per connection."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._clients = 0

    async def listen(self, address: str) -> asyncio.Server:
        """Start to listen. Raises: `OSError`; `ValueError` if `address` is not `host:port`."""
        host, colon, port = address.rpartition(":")
        if not colon:
            raise ValueError("must be host:port")
        return await asyncio.start_server(self._serve, host.strip("[]"), int(port), limit=16_384)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients <= CLIENTS:
                async with asyncio.timeout(CLIENT_SECONDS):
                    writer.write(await self._answer(await reader.readuntil(b"\r\n\r\n"), writer))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client has closed the connection, or is too slow
        finally:
            self._clients -= 1
            writer.close()

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> bytes:
        method, path = _request_line(head)
        if path not in health.PATHS:
            return _response(404, [], b'{"error_code": "not_found", "description": "Only probes are answered here."}')
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request"}

        async def send(message: Message) -> None:
            sent.append(message)

        scope: dict[str, Any] = {
            "method": method,
            "raw_path": path.encode(),
            "query_string": b"",
            "server": writer.get_extra_info("sockname"),
            "client": writer.get_extra_info("peername"),
            "http_version": "1.1",
            "scheme": "http",
            "headers": [],
        }
        await self._front(scope, receive, send)
        start, body = sent
        return _response(start["status"], start["headers"], b"" if method == "HEAD" else body["body"])


def _request_line(head: bytes) -> tuple[str, str]:
    words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    return words[0], words[1].partition("?")[0] if len(words) == 3 else ""


def _response(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    given = headers or [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    lines = [f"HTTP/1.1 {status} ".encode(), *(b": ".join(each) for each in given), b"connection: close"]
    return b"\r\n".join([*lines, b"", body])


def _end() -> None:
    """End the requests that wait, then the server.

    On SIGTERM the server accepts no more connections, finishes its requests, and is killed after 30 s; a request waits for
    up to 60 s. Its own handler of SIGTERM does the same as that of SIGINT.
    """
    end_waits()
    signal.raise_signal(signal.SIGINT)


def _allow_many_connections() -> None:
    """Raise the limit of open files: each connection is one, and a shell's limit of 1,024 is for programs with `select`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65_536)), hard))
