"""Observes the server for a heartbeat: one connection, and few commands.

What the agent's user may not read is unknown. A refused command is sent again to the same server process after a minute at
the earliest: each refusal would be an entry in its ACL log.
"""

import re
import socket
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from rollout.agent.inspection.sockets import host_addresses, is_local, network_id
from rollout.agent.server import place
from rollout.agent.server.call_history import CallHistory, RecentCalls
from rollout.agent.server.call_outcomes import CallOutcomes, outcomes_in
from rollout.agent.server.sentinels import COUNT, count_in
from rollout.agent.server.session import LoadedModule, RefusedError, Session, calls_in
from rollout.agent.server.texts import address, fact, number, storable, truth, word
from rollout.messages import MOST_ADDRESSES, MOST_REPLICAS, ServerModule, ServerProblem, ServerState

#: Sections of INFO that a heartbeat needs. Servers before 7.0 take only one.
SECTIONS = ("server", "clients", "replication", "persistence", "memory", "stats", "cluster", "commandstats")
#: The parameters that a heartbeat needs, if the agent's user may read them.
PARAMETERS = (
    "enable-module-command",
    "save",
    "replica-announce-ip",
    "replica-announce-port",
    "cluster-announce-ip",
    "cluster-announce-hostname",
    "cluster-announce-port",
    "cluster-announce-tls-port",
    "port",
    "tls-port",
    "min-replicas-to-write",
    "cluster-require-full-coverage",
    "dir",
    "dbfilename",
)
#: The oldest servers that are supported.
OLDEST = {"redis": (7, 0), "valkey": (7, 2)}
#: Atomic slot migrations, which CLUSTER NODES does not show: Valkey 9.0.
ATOMIC_MIGRATIONS = (9, 0)
MOST_MODULES = 64
#: Where packages and images of Redis and Valkey have their modules.
BUNDLES = (
    *(
        PurePosixPath(f"{libraries}/{product}")
        for libraries in ("/usr/lib", "/usr/lib64", "/usr/local/lib")
        for product in ("redis", "valkey")
    ),
    PurePosixPath("/opt/redis-stack"),
)
#: CLIENT LIST is called at most once in so many seconds, and not at a server with more clients.
CLIENTS_SECONDS = 60.0
MOST_CONNECTED = 500
#: Clients that are named for a module.
MOST_CLIENTS = 5
#: A refused command may be allowed by a person: it is sent again after so many seconds.
REFUSED_SECONDS = 60.0


class Observer:
    """Observes one server, at `url`. `is_ours` tells if a path is in the module store. Each observation adds to `history`
    what was called, and to `outcomes` how often it failed.

    Threads may share it: each change of its state is one atomic step.
    """

    def __init__(
        self, is_ours: Callable[[str], bool], history: CallHistory, outcomes: CallOutcomes, *, url: str = ""
    ) -> None:
        self._is_ours = is_ours
        self._history = history
        self._outcomes = outcomes
        self._url = urlsplit(url)
        #: The commands of our modules, None if they are not known.
        self._commands: dict[LoadedModule, frozenset[str] | None] = {}
        self._clients: tuple[Client, ...] = ()
        self._clients_at = -CLIENTS_SECONDS
        self._run_id = ""
        #: The directory and the name of the file that the server saves, each empty if it is not known.
        self.data_file = ("", "")
        #: The first two words of the commands that this server process refuses, and when it last did.
        self._refused: dict[tuple[str, ...], float] = {}

    def observe(self, session: Session) -> tuple[Mapping[str, str], ServerState, tuple[LoadedModule, ...]]:
        """Return INFO, the state, and the loaded modules.

        Raises: `RefusedError` if the user may not call INFO or MODULE LIST, `Failure` if the server does not answer.
        """
        info = self._info(session)
        if problem := _too_old(info):
            return info, _state(info, problem=ServerProblem.SERVER_TOO_OLD, message=problem), ()
        if info.get("loading") == "1":  # then it answers few commands
            return info, _loading(info), ()
        modules = session.modules()
        config = _pairs(self._call(session, "CONFIG", "GET", *PARAMETERS))
        self.data_file = config.get("dir", ""), config.get("dbfilename", "")
        now = time.monotonic()
        self._history.add(now, run_id=self._run_id, uptime=uptime_in(info), counts=calls_in(info))
        shown = tuple(self._module(session, info, each, now) for each in modules[:MOST_MODULES])
        ours = frozenset().union(*(each for each in self._commands.values() if each))
        self._outcomes.add(now, self._run_id, outcomes_in(info, ours))
        cluster, own_names = self._cluster(session, info)
        state = _state(
            info,
            modules=shown,
            module_count=len(modules),
            save_points=fact(config["save"]) if "save" in config else None,
            enable_module_command=word(config.get("enable-module-command", "")),
            addresses=tuple(dict.fromkeys([*_announced(config), *own_names, *self._names(info, config)]))[
                :MOST_ADDRESSES
            ],
            network=network_id(),
            sentinels=count_in(self._call(session, *COUNT)),
            min_replicas_to_write=number(config.get("min-replicas-to-write")),
            full_coverage={"yes": True, "no": False}.get(config.get("cluster-require-full-coverage", "")),
            **cluster,
        )
        return info, state, modules

    def is_refused(self, *words: str) -> bool:
        """Return True if the server process refuses the command with these two first words."""
        return words in self._refused

    def _module(self, session: Session, info: Mapping[str, str], module: LoadedModule, now: float) -> ServerModule:
        is_ours = self._is_ours(module.path)
        commands = self._commands_of(session, module) if is_ours else None
        recent = None if commands is None else self._history.recent(now, commands)
        return ServerModule(
            name=fact(module.name)[:64],
            version=module.version,
            path=fact(module.path),
            args=fact(" ".join(module.args))[:64],
            ours=is_ours,
            bundled=not is_ours and is_bundled(module.path),
            recent_calls=recent.total if recent else None,
            most_called=fact(recent.most_called)[:64] if recent else "",
            clients=self._clients_of(session, info, recent, now) if recent and recent.calls else (),
        )

    def _commands_of(self, session: Session, module: LoadedModule) -> frozenset[str] | None:
        if module not in self._commands:
            names = self._call(session, "COMMAND", "LIST", "FILTERBY", "MODULE", module.name)
            self._commands[module] = None if names is None else frozenset(str(each).lower() for each in names)
        return self._commands[module]

    def _clients_of(
        self, session: Session, info: Mapping[str, str], recent: RecentCalls, now: float
    ) -> tuple[str, ...]:
        if now - self._clients_at >= CLIENTS_SECONDS:
            few = (number(info.get("connected_clients")) or 0) <= MOST_CONNECTED
            self._clients_at = now
            self._clients = clients_in(self._call(session, "CLIENT", "LIST") or "") if few else ()
        return tuple(fact(name)[:64] for name in newest_callers(self._clients, recent.calls))

    def readiness(self, session: Session) -> ServerState:
        """Return the facts that decide if the server may be changed: its place in its shard, and if it is ready.

        One command, and three more in a cluster. Raises: as `observe`.
        """
        info = self._info(session)
        if info.get("loading") == "1":
            return _loading(info)
        return _state(info, **self._cluster(session, info)[0])

    def _info(self, session: Session) -> dict[str, str]:
        try:
            info = session.info(*SECTIONS)
        except RefusedError as error:
            if "syntax" not in str(error):
                raise
            info = session.info("server")
        if info.get("run_id", "") != self._run_id:
            self._run_id = info.get("run_id", "")
            self._refused.clear()
            self._commands.clear()
        return info

    def _cluster(self, session: Session, info: Mapping[str, str]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return the facts of the cluster, and the server's names in it; nothing if the server is in none."""
        if info.get("cluster_enabled") != "1":
            return {}, ()
        answer = self._call(session, "CLUSTER", "INFO")
        facts = {"cluster_state": "" if answer is None else word(_fields(answer).get("cluster_state", ""))}
        answer = self._call(session, "CLUSTER", "NODES")
        if answer is None:
            return facts, ()
        nodes = place.cluster_nodes(answer)
        myself = next((each for each in nodes if each.is_myself), None)
        if myself is None:
            return facts, ()
        own = {
            "node_id": myself.id,
            "master_node_id": myself.master,
            "replica_node_ids": tuple(sorted(each.id for each in nodes if each.master == myself.id)[:MOST_REPLICAS]),
        }
        return facts | own | self._moving(session, info, nodes), myself.names

    def _moving(self, session: Session, info: Mapping[str, str], nodes: Sequence[place.ClusterNode]) -> dict[str, Any]:
        jobs = self._call(session, "CLUSTER", "GETSLOTMIGRATIONS") if has_atomic_migrations(info) else []
        if jobs is None:
            return {}
        moving = place.moving_slots(nodes, [_pairs(job) for job in jobs])
        return {
            "migrating_slots": len(set().union(*moving.values())),
            "migrations": place.migrations(moving),
        }

    def _names(self, info: Mapping[str, str], config: Mapping[str, str]) -> Iterator[str]:
        """Yield the names by which others reach the server: that of the URL, and if it runs on this host, the host's."""
        host = self._url.hostname
        if host:
            yield address(host, str(self._url.port or 6379))
        if host and not is_local(host):
            return
        ports = _given(
            {**info, **config}, "tcp_port", "port", "tls-port", "replica-announce-port", "cluster-announce-port"
        )
        for each in (*host_addresses(), socket.gethostname(), "127.0.0.1", "::1", "localhost"):
            yield from (address(each, port) for port in ports)

    def _call(self, session: Session, *words: str) -> Any:
        """Return the answer, None if the server refuses the command."""
        if time.monotonic() < self._refused.get(words[:2], float("-inf")) + REFUSED_SECONDS:
            return None
        try:
            return session.call(*words)
        except RefusedError:
            self._refused[words[:2]] = time.monotonic()
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One line of CLIENT LIST. `name`: as the client calls itself, else its library, else its address.

    `idle`: seconds since its last command, `command`.
    """

    name: str
    idle: int
    command: str


def is_bundled(path: str) -> bool:
    """Return True if a module that the server has loaded from this path came with the server.

    The path of a module that is built in is empty, or, as that of Valkey's Lua engine, only a name.
    """
    return "/" not in path or any(PurePosixPath(path).is_relative_to(each) for each in BUNDLES)


def clients_in(answer: object) -> tuple[Client, ...]:
    """Return the clients in an answer of CLIENT LIST."""
    lines = [dict(word.partition("=")[::2] for word in line.split(" ")) for line in str(answer).splitlines()]
    return tuple(
        Client(
            name=each.get("name") or each.get("lib-name") or each.get("addr", ""),
            idle=number(each.get("idle")) or 0,
            command=each.get("cmd", "").partition("|")[0].lower(),
        )
        for each in lines
    )


def newest_callers(clients: Iterable[Client], commands: Container[str]) -> tuple[str, ...]:
    """Return the names of clients whose last command was one of these, the newest first."""
    found = sorted((each for each in clients if each.command in commands), key=lambda each: each.idle)
    return tuple(dict.fromkeys(each.name for each in found))[:MOST_CLIENTS]


def uptime_in(info: Mapping[str, str]) -> float:
    """Return the seconds since the server has started."""
    return float(number(info.get("uptime_in_seconds")) or 0)


def product(info: Mapping[str, str]) -> tuple[str, str]:
    """Return the server's name and version, both empty if INFO names none."""
    for name in ("valkey", "redis"):
        if version := info.get(f"{name}_version"):
            return name, version
    return "", ""


def has_atomic_migrations(info: Mapping[str, str]) -> bool:
    """Return True if slots may migrate in a way that CLUSTER NODES does not show."""
    name, version = _version(info)
    return name == "valkey" and version >= ATOMIC_MIGRATIONS


def _version(info: Mapping[str, str]) -> tuple[str, tuple[int, int]]:
    name, version = product(info)
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return name, (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def _too_old(info: Mapping[str, str]) -> str:
    name, version = product(info)
    if name and _version(info)[1] >= OLDEST[name]:
        return ""
    return f"{name.capitalize() or 'The server'} {version or 'without a version'} is not supported: use Redis 7.0+ or Valkey 7.2+."


def _loading(info: Mapping[str, str]) -> ServerState:
    return _state(info, problem=ServerProblem.SERVER_LOADING, message="The server is loading its data.")


def _state(info: Mapping[str, str], **more: Any) -> ServerState:
    return ServerState(
        run_id=storable(info.get("run_id", ""))[:64],
        uptime_seconds=number(info.get("uptime_in_seconds")),
        role=place.role(info),
        master=place.master(info),
        link_status=word(info.get("master_link_status", "")),
        link_down_seconds=number(info.get("master_link_down_since_seconds")),
        replicas=tuple(place.replicas(info))[:MOST_REPLICAS],
        replica_count=number(info.get("connected_slaves")),
        loading=truth(info.get("loading")),
        async_loading=truth(info.get("async_loading")),
        aof_enabled=truth(info.get("aof_enabled")),
        aof_last_write_status=word(info.get("aof_last_write_status", "")),
        rdb_last_bgsave_status=word(info.get("rdb_last_bgsave_status", "")),
        cluster_enabled=truth(info.get("cluster_enabled")),
        unexpected_error_replies=number(info.get("unexpected_error_replies")),
        used_memory=number(info.get("used_memory")),
        max_memory=number(info.get("maxmemory")),
        backups=place.backups(info),
        master_sync_in_progress=truth(info.get("master_sync_in_progress")),
        replication_id=storable(info.get("master_replid", ""))[:64],
        replication=place.replication(info) if place.role(info) else None,
        **more,
    )


def _announced(config: Mapping[str, str]) -> Iterator[str]:
    """Yield the names that the server's configuration announces to other servers."""
    for hosts, ports in (
        (("replica-announce-ip",), ("replica-announce-port",)),
        (("cluster-announce-ip", "cluster-announce-hostname"), ("cluster-announce-port", "cluster-announce-tls-port")),
    ):
        for host in _given(config, *hosts):
            yield from (address(host, port) for port in _given(config, *ports) or _given(config, "port", "tls-port"))


def _given(config: Mapping[str, str], *names: str) -> list[str]:
    """Return the values of these parameters that are set, each once. The port 0 means that it is not."""
    return list(dict.fromkeys(config[name] for name in names if config.get(name, "0") not in {"", "0"}))


def _fields(text: object) -> dict[str, str]:
    return {key: value for key, colon, value in (line.partition(":") for line in str(text).splitlines()) if colon}


def _pairs(answer: Sequence[Any] | Mapping[str, Any] | None) -> dict[str, Any]:
    if answer is None or isinstance(answer, Mapping):
        return dict(answer or {})
    return dict(zip(answer[::2], answer[1::2], strict=False))
