"""A TCP proxy in a process of its own: its links are cut, stalled, slowed and healed while connections are open.

It finds out which connections are of replicas: a link can be hurt for them alone, and then clients must not notice.
"""

import asyncio
import json
import socket
import struct
import subprocess
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self, cast

#: A host and a port, or the path of a Unix socket.
Target = tuple[str, int] | str
#: The most bytes that wait in a slow or stalled direction before nothing more is read.
MOST_WAITING = 1 << 18
#: What a replica sends first, and no other client of the tests. Servers send it too, in the answer to COMMAND.
REPLICA = b"REPLCONF"
#: After so many chunks, a connection that has not said that it is a replica is none.
GREETING_CHUNKS = 8


class Proxies:
    """The process, and its links. The end of the block ends it with all connections."""

    def __enter__(self) -> Self:
        self._links = 0
        words = [sys.executable, "-m", "tests.proof.proxy"]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def link(self, target: Target, *, host: str = "127.0.0.1", port: int = 0) -> "Link":
        """Listen at `host` and `port` (0: any), and forward each connection to the target."""
        self._links += 1
        made = Link(self, self._links, host, 0)
        made.port = self.do(self._links, "open", target=target, host=host, port=port)
        return made

    def do(self, number: int, verb: str, **options: Any) -> int:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"link": number, "do": verb, **options}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert isinstance(answer, int), answer
        return answer


@dataclass
class Link:
    """One link. Each hurt replaces the one before, and holds until `heal`."""

    proxies: Proxies
    number: int
    host: str
    port: int

    def cut(self, *, replicas_only: bool = False) -> None:
        """Reset all connections and refuse new ones. `replicas_only`: reset those of replicas as soon as they say so."""
        self.proxies.do(self.number, "cut", replicas_only=replicas_only)

    def stall(self, *, replicas_only: bool = False) -> None:
        """Accept, and forward nothing."""
        self.proxies.do(self.number, "stall", replicas_only=replicas_only)

    def slow(self, seconds: float, rate: float, *, replicas_only: bool = False) -> None:
        """Forward each chunk `seconds` later, and at most `rate` bytes per second in each direction of a connection."""
        self.proxies.do(self.number, "slow", seconds=seconds, rate=rate, replicas_only=replicas_only)

    def heal(self) -> None:
        """Forward what waits, and all that comes, at once."""
        self.proxies.do(self.number, "heal")


# --- In the process of the proxy --------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Route:
    target: Target
    host: str
    port: int
    verb: str = "heal"
    replicas_only: bool = False
    seconds: float = 0.0
    rate: float = 0.0
    sides: "set[_Side]" = field(default_factory=set)
    server: asyncio.Server | None = None

    async def listen(self) -> None:
        if self.server is None:
            loop = asyncio.get_running_loop()
            self.server = await loop.create_server(lambda: _Side(self), self.host, self.port, backlog=1024)
            self.port = self.server.sockets[0].getsockname()[1]

    async def hurt(self, verb: str, *, replicas_only: bool = False, seconds: float = 0.0, rate: float = 0.0) -> None:
        self.verb, self.replicas_only, self.seconds, self.rate = verb, replicas_only, seconds, rate
        if verb == "cut" and not replicas_only and self.server:
            self.server.close()
            self.server = None
        else:
            await self.listen()
        for side in list(self.sides):
            side.reset() if verb == "cut" and side.is_hurt else side.pump()


class _Side(asyncio.Protocol):
    """One of the two connections of a forwarded one: that of the client, which makes the other one."""

    def __init__(self, route: _Route, other: "_Side | None" = None) -> None:
        self.route, self.other = route, other
        self._is_client = other is None
        self.is_replica, self._chunks = False, 0
        #: What is due at the other side, and when; None is the end.
        self._waiting: deque[tuple[float, bytes | None]] = deque()
        self._waiting_bytes, self._due = 0, 0.0
        self._is_other_full = False
        self._loop = asyncio.get_running_loop()

    @property
    def is_hurt(self) -> bool:
        return not self.route.replicas_only or self.is_replica

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.route.sides.add(self)
        if self.other is None:
            self.transport.pause_reading()
            self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        self.other = other = _Side(self.route, self)
        try:
            if isinstance(self.route.target, str):
                await self._loop.create_unix_connection(lambda: other, self.route.target)
            else:
                await self._loop.create_connection(lambda: other, *self.route.target)
        except OSError:
            self.reset()
            return
        if self.transport.is_closing():
            other.transport.close()
        else:
            self._read_on()

    def data_received(self, data: bytes) -> None:
        if self._is_client and not self.is_replica and self._chunks < GREETING_CHUNKS:
            self._chunks += 1
            if REPLICA in data.upper():
                self._name_replica()
        if self.transport.is_closing():
            return
        self._wait(data)

    def _name_replica(self) -> None:
        self.is_replica = True
        if self.other:
            self.other.is_replica = True
        if self.route.verb == "cut":
            self.reset()

    def connection_lost(self, error: Exception | None) -> None:
        self._wait(None)

    def _wait(self, data: bytes | None) -> None:
        now = self._loop.time()
        size = len(data or b"")
        if self.route.verb == "slow" and self.is_hurt:
            self._due = max(now + self.route.seconds, self._due + size / self.route.rate)
        self._waiting.append((self._due, data))
        self._waiting_bytes += size
        self.pump()

    def pump(self) -> None:
        """Forward what is due."""
        if self.route.verb == "stall" and self.is_hurt:
            return self._read_on()
        is_slow = self.route.verb == "slow" and self.is_hurt
        now = self._loop.time()
        while self._waiting and (not is_slow or self._waiting[0][0] <= now):
            _, data = self._waiting.popleft()
            if data is None:
                self.route.sides.discard(self)
                if self.other and hasattr(self.other, "transport"):
                    self.other.transport.close()
                continue
            self._waiting_bytes -= len(data)
            assert self.other
            if not self.other.transport.is_closing():
                self.other.transport.write(data)
        if self._waiting:
            self._loop.call_at(self._waiting[0][0], self.pump)
        return self._read_on()

    def _read_on(self) -> None:
        """Read while there is room for it."""
        if self.transport.is_closing():
            return
        if self._is_other_full or self._waiting_bytes > MOST_WAITING:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        if self.other:
            self.other._is_other_full = True
            self.other._read_on()

    def resume_writing(self) -> None:
        if self.other:
            self.other._is_other_full = False
            self.other._read_on()

    def reset(self) -> None:
        """End both connections with RST."""
        for side in (self, self.other):
            if side and hasattr(side, "transport"):
                side._waiting.clear()
                side.route.sides.discard(side)
                with suppress(OSError):
                    linger = struct.pack("ii", 1, 0)
                    side.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                side.transport.abort()


async def _serve() -> None:
    """Carry out the orders, a JSON object in each line of standard input, until it ends."""
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    routes: dict[int, _Route] = {}
    while line := await orders.readline():
        order = json.loads(line)
        number, verb = order.pop("link"), order.pop("do")
        if verb == "open":
            target = order["target"]
            where = target if isinstance(target, str) else (target[0], target[1])
            routes[number] = _Route(where, order["host"], order["port"])
            await routes[number].listen()
        else:
            await routes[number].hurt(verb, **order)
        sys.stdout.write(f"{routes[number].port}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve())
