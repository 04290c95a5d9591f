"""The servers of a user's fleet: masters and replicas, found by asking them, and what each has at the end."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import msgspec
import redis
from redis.crc import key_slot

from modfleet.proof.own_commands import Commands, filled
from modfleet.proof.paths import AnyPath, ClusterPath, PlainPath, SentinelPath, options_of, words_of

#: How long replicas may take to get what their master has, seconds.
IN_STEP_SECONDS = 60.0
#: The time between two looks at a replica, seconds.
LOOK_SECONDS = 0.05
#: Flags of servers in `CLUSTER NODES` that cannot be reached.
_ABSENT = {"fail", "noaddr", "handshake"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that answers. Addresses are `HOST:PORT`, as they were given or named."""

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

    A server with several addresses is there once, with the first one that answered.

    Raises: `redis.RedisError` if no server or Sentinel answers.
    """
    members: Mapping[str, _Member] = {}
    match path:
        case PlainPath():
            waiting = [address_of(urlsplit(each).hostname or "", urlsplit(each).port or 6379) for each in path.urls]
        case SentinelPath():
            waiting = [_master_of_sentinels(path)]
        case ClusterPath():
            members = _members_of_cluster(path)
            waiting = list(members)
    waiting = [*former, *waiting]  # a server keeps the address that it had
    found: dict[str, Server] = {}
    unreached: dict[str, str] = {}
    names: dict[str, str] = {}
    addresses: dict[str, str] = {}
    while waiting:
        address = waiting.pop(0)
        if address in addresses or address in unreached:
            continue
        try:
            with connected(path, address) as client:
                info = {**client.info("server"), **client.info("replication")}
        except redis.RedisError as error:
            unreached[address] = words_of(error)
            continue
        addresses[address] = names.setdefault(str(info["run_id"]), address)
        if addresses[address] == address:
            found[address] = _server(address, info)
            if not members:
                waiting += _named_in(info)
    if not found:
        raise redis.ConnectionError("; ".join(f"{address}: {reason}" for address, reason in unreached.items()))
    for address, member in members.items():  # INFO may name servers of a cluster in another way
        if name := addresses.get(address):
            found[name] = replace(found[name], master=member.master, slots=member.slots)
    servers = [replace(each, master=addresses.get(each.master, each.master)) for each in found.values()]
    ordered = sorted(servers, key=lambda each: (bool(each.master), each.address))
    return Topology(servers={each.address: each for each in ordered}, unreached=unreached)


def address_of(host: str, port: int) -> str:
    """Return `HOST:PORT`. A name stays a name: a certificate may be for it, and its IP address may change."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def path_to_server(path: AnyPath, address: str) -> PlainPath:
    """Return the path to this server alone."""
    scheme = "rediss" if path.tls else "redis"
    return PlainPath(urls=(f"{scheme}://{address}",), username=path.username, password=path.password, tls=path.tls)


def path_in(path: AnyPath, topology: Topology) -> AnyPath:
    """Return the path by which clients also find a new master after a failover. Sentinel and a cluster name it themselves."""
    if not isinstance(path, PlainPath):
        return path
    given = {address_of(urlsplit(each).hostname or "", urlsplit(each).port or 6379) for each in path.urls}
    others = [path_to_server(path, each).urls[0] for each in topology.servers if each not in given]
    return msgspec.structs.replace(path, urls=(*path.urls, *others))


@contextmanager
def connected(path: AnyPath, address: str) -> Iterator[Any]:
    """Connect to one server. A replica of a cluster answers reads."""
    server = path_to_server(path, address)
    with redis.Redis.from_url(server.urls[0], **options_of(server), single_connection_client=True) as client:
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
            if info.get("master_link_status") != "up":
                problem = "has no link to its master"
            elif reached >= offset:
                return ""
            else:
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
    sentinel: Any = path.sentinels()
    problems = []
    for (host, port), client in zip(path.hosts, sentinel.sentinels, strict=True):
        try:
            if found := client.sentinel_get_master_addr_by_name(path.name):
                return address_of(*found)
            problems.append(f"{host}:{port}: this Sentinel knows no master {path.name}")
        except redis.RedisError as error:
            problems.append(f"{host}:{port}: {words_of(error)}")
        finally:
            client.close()
    raise redis.ConnectionError("; ".join(problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """A server of a cluster. `master`: the address of the one that it copies, empty for a master."""

    master: str
    slots: tuple[tuple[int, int], ...]


def _members_of_cluster(path: ClusterPath) -> Mapping[str, _Member]:
    """Return the servers of the cluster by address."""
    problems = []
    for host, port in path.hosts:
        try:
            with connected(path, address_of(host, port)) as client:
                return _members(str(client.execute_command("CLUSTER", "NODES")), host, by_name=path.tls is not None)
        except redis.RedisError as error:
            problems.append(f"{host}:{port}: {words_of(error)}")
    raise redis.ConnectionError("; ".join(problems))


def _members(text: str, asked: str, *, by_name: bool) -> Mapping[str, _Member]:
    """Return what CLUSTER NODES of the server `asked` says. `by_name`: with the names that servers announce, because certificates are
    for these."""
    addresses, lines = {}, []
    for line in text.splitlines():
        uid, place, flags, *rest = line.split()
        if _ABSENT & set(flags.split(",")):
            continue
        place, _, name = place.partition(",")
        host, _, port = place.partition("@")[0].rpartition(":")
        host = (name.partition(",")[0] if by_name else "") or host
        addresses[uid] = address_of(host.strip("[]") or asked, int(port))
        lines.append((uid, rest[0], rest[5:]))
    return {
        addresses[uid]: _Member(master=addresses.get(master, ""), slots=tuple(_slots(ranges)))
        for uid, master, ranges in lines
    }


def _slots(ranges: Iterable[str]) -> Iterator[tuple[int, int]]:
    for first, _, last in (each.partition("-") for each in ranges if not each.startswith("[")):
        yield int(first), int(last or first)


def _server(address: str, info: Mapping[str, Any]) -> Server:
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
    )


def _named_in(info: Mapping[str, Any]) -> Iterator[str]:
    """Yield the addresses of the server's replicas and of its master."""
    if info["role"] == "slave":
        yield address_of(str(info["master_host"]), int(info["master_port"]))
    for name, value in info.items():
        if name.startswith("slave") and isinstance(value, dict):
            yield address_of(str(value["ip"]), int(value["port"]))
