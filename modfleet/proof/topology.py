"""The servers of a user's fleet: masters and replicas, found by asking them, and what each has at the end."""

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry
from redis.sentinel import Sentinel

from modfleet.proof.own_commands import Commands, filled
from modfleet.proof.paths import PATIENCE, AnyPath, ClusterPath, PlainPath, SentinelPath, words_of

#: How long replicas may take to get what their master has, seconds.
IN_STEP_SECONDS = 60.0
#: The time between two looks at a replica, seconds.
LOOK_SECONDS = 0.05
#: Flags of servers in `CLUSTER NODES` that cannot be reached.
_ABSENT = {"fail", "noaddr", "handshake"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that answers. Addresses are `IP:PORT`, so that one server has one name however it is announced."""

    address: str
    #: The server that it copies; empty for a master.
    master: str
    run_id: str
    #: Such as `Redis 7.2.4`.
    release: str
    offset: int
    #: First and last slot, for the masters of a cluster.
    slots: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    #: By address, masters first.
    servers: Mapping[str, Server]
    #: Why a server does not answer, by address.
    unreached: Mapping[str, str] = field(default_factory=dict)

    @property
    def masters(self) -> list[Server]:
        return [each for each in self.servers.values() if not each.master]

    def top_of(self, server: Server) -> Server:
        """Return the master at the top of the server's chain; itself if that master was not reached."""
        seen = {server.address}
        while server.master in self.servers and server.master not in seen:
            seen.add(server.master)
            server = self.servers[server.master]
        return server


def find_servers(path: AnyPath, former: Iterable[str] = ()) -> Topology:
    """Return all servers that the given ones name, directly or indirectly. `former`: addresses that were found earlier.

    Raises: `redis.RedisError` if no server or Sentinel answers.
    """
    slots: dict[str, tuple[tuple[int, int], ...]] = {}
    match path:
        case PlainPath():
            waiting = [address_of(urlsplit(each).hostname or "", urlsplit(each).port or 6379) for each in path.urls]
        case SentinelPath():
            waiting = [_master_of_sentinels(path)]
        case ClusterPath():
            slots = _cluster_slots(path)
            waiting = list(slots)
    waiting += former
    found: dict[str, Server] = {}
    unreached: dict[str, str] = {}
    while waiting:
        address = waiting.pop(0)
        if address in found or address in unreached:
            continue
        try:
            with connected(path, address) as client:
                info = {**client.info("server"), **client.info("replication")}
        except redis.RedisError as error:
            unreached[address] = words_of(error)
            continue
        found[address] = _server(address, info, slots.get(address, ()))
        waiting += _named_in(info)
    if not found:
        raise redis.ConnectionError("; ".join(f"{address}: {reason}" for address, reason in unreached.items()))
    ordered = sorted(found.values(), key=lambda each: (bool(each.master), each.address))
    return Topology(servers={each.address: each for each in ordered}, unreached=unreached)


def address_of(host: str, port: int) -> str:
    """Return `IP:PORT`; the host as it is if it has no IP address here."""
    with suppress(OSError):
        host = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def path_to_server(path: AnyPath, address: str) -> PlainPath:
    """Return the path to this server alone."""
    is_tls = isinstance(path, PlainPath) and path.urls[0].startswith("rediss:")
    scheme = "rediss" if is_tls else "redis"
    return PlainPath(urls=(f"{scheme}://{address}",), username=path.username, password=path.password)


@contextmanager
def connected(path: AnyPath, address: str) -> Iterator[Any]:
    """Connect to one server. A replica of a cluster answers reads."""
    options: dict[str, Any] = {"username": path.username, "password": path.password}
    with redis.Redis.from_url(
        path_to_server(path, address).urls[0],
        **{name: value for name, value in options.items() if value is not None},
        decode_responses=True,
        protocol=2,
        socket_timeout=PATIENCE,
        socket_connect_timeout=PATIENCE,
        retry=Retry(NoBackoff(), 0),
        single_connection_client=True,
    ) as client:
        if isinstance(path, ClusterPath):
            client.execute_command("READONLY")
        yield client


def wait_until_in_step(path: AnyPath, topology: Topology, *, seconds: float = IN_STEP_SECONDS) -> list[str]:
    """Wait until each replica has all that its master has now. Return the replicas that do not get there, with the reason."""
    late: list[str] = []
    due = time.monotonic() + seconds
    for server in topology.servers.values():
        top = topology.top_of(server)
        if server.master and (problem := _lags(path, server.address, top.offset, due)):
            late.append(f"{server.address} {problem}")
    return late


def _lags(path: AnyPath, address: str, offset: int, due: float) -> str:
    problem = ""
    while not problem or time.monotonic() < due:
        try:
            with connected(path, address) as client:
                info = client.info("replication")
            reached = int(info.get("slave_repl_offset", info["master_repl_offset"]))
            if reached >= offset:
                return ""
            problem = f"has replicated up to {reached}, and its master had {offset}"
        except redis.RedisError as error:
            problem = words_of(error)
        time.sleep(LOOK_SECONDS)
    return problem


def read_keys(
    path: AnyPath,
    topology: Topology,
    server: Server,
    commands: Commands,
    keys: Iterable[str],
    pause: Callable[[], None],
) -> dict[str, tuple[int, ...]]:
    """Return the entries of those keys that the server has. `pause` is called before each read.

    Raises: `redis.RedisError`, `ValueError` for an answer that is not understood.
    """
    slots = topology.top_of(server).slots
    found = {}
    with connected(path, server.address) as client:
        for key in keys:
            if isinstance(path, ClusterPath) and not any(
                first <= key_slot(key.encode()) <= last for first, last in slots
            ):
                continue
            pause()
            if entries := commands.entries(client.execute_command(*filled(commands.get, key))):
                found[key] = entries
    return found


def _master_of_sentinels(path: SentinelPath) -> str:
    untyped: Any = Sentinel
    sentinel = untyped(path.hosts, sentinel_kwargs={"socket_timeout": PATIENCE})
    try:
        host, port = sentinel.discover_master(path.name)
    finally:
        for each in sentinel.sentinels:
            each.close()
    return address_of(host, port)


def _cluster_slots(path: ClusterPath) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return the servers of the cluster with their slots. Replicas have none."""
    problems = []
    for host, port in path.hosts:
        try:
            with connected(path, address_of(host, port)) as client:
                return dict(_cluster_lines(str(client.execute_command("CLUSTER", "NODES")), host))
        except redis.RedisError as error:
            problems.append(f"{host}:{port}: {words_of(error)}")
    raise redis.ConnectionError("; ".join(problems))


def _cluster_lines(text: str, asked: str) -> Iterator[tuple[str, tuple[tuple[int, int], ...]]]:
    for line in text.splitlines():
        _, place, flags, _, _, _, _, _, *ranges = line.split()
        if _ABSENT & set(flags.split(",")):
            continue
        host, _, port = place.partition(",")[0].partition("@")[0].rpartition(":")
        slots = tuple(
            (int(first), int(last or first))
            for first, _, last in (each.partition("-") for each in ranges if not each.startswith("["))
        )
        yield address_of(host.strip("[]") or asked, int(port)), slots


def _server(address: str, info: Mapping[str, Any], slots: tuple[tuple[int, int], ...]) -> Server:
    is_replica = info["role"] == "slave"
    name, version = ("Valkey", info["valkey_version"]) if "valkey_version" in info else ("Redis", info["redis_version"])
    return Server(
        address=address,
        master=address_of(str(info["master_host"]), int(info["master_port"])) if is_replica else "",
        run_id=str(info["run_id"]),
        release=f"{name} {version}",
        offset=int(
            info.get("slave_repl_offset", info["master_repl_offset"]) if is_replica else info["master_repl_offset"]
        ),
        slots=slots,
    )


def _named_in(info: Mapping[str, Any]) -> Iterator[str]:
    """Yield the addresses of the server's replicas and of its master."""
    if info["role"] == "slave":
        yield address_of(str(info["master_host"]), int(info["master_port"]))
    for name, value in info.items():
        if name.startswith("slave") and isinstance(value, dict):
            yield address_of(str(value["ip"]), int(value["port"]))
