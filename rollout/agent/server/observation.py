"""Observes the server for a heartbeat: one connection, and few commands.

What the agent's user may not read is unknown. A refused command is not sent again to the same server process: each refusal
would be an entry in its ACL log.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rollout.agent.server.session import LoadedModule, RefusedError, Session
from rollout.messages import MOST_REPLICAS, Replica, ServerModule, ServerProblem, ServerState

#: Sections of INFO that a heartbeat needs. Servers before 7.0 take only one.
SECTIONS = ("server", "replication", "persistence", "memory", "stats", "cluster")
#: The oldest servers that are supported.
OLDEST = {"redis": (7, 0), "valkey": (7, 2)}
#: Atomic slot migrations, which CLUSTER NODES does not show: Valkey 9.0.
ATOMIC_MIGRATIONS = (9, 0)
MOST_MODULES = 64
#: Limit of texts in a heartbeat, characters; shorter than the limits of `messages`, so that a heartbeat stays small.
LONGEST_FACT = 200
#: The states of an atomic slot migration that has ended.
_ENDED = {"success", "failed", "canceled", "cancelled"}


class Observer:
    """Observes one server. `is_ours` tells if a path is in the module store. For one thread at a time."""

    def __init__(self, is_ours: Callable[[str], bool]) -> None:
        self._is_ours = is_ours
        self._run_id = ""
        #: The first two words of the commands that this server process refuses.
        self._refused: set[tuple[str, ...]] = set()

    def observe(self, session: Session) -> tuple[Mapping[str, str], ServerState, tuple[LoadedModule, ...]]:
        """Return INFO, the state, and the loaded modules.

        Raises: `RefusedError` if the user may not call INFO or MODULE LIST, `Failure` if the server does not answer.
        """
        info = _info(session)
        if info.get("run_id", "") != self._run_id:
            self._run_id = info.get("run_id", "")
            self._refused.clear()
        if problem := _too_old(info):
            return info, _state(info, problem=ServerProblem.SERVER_TOO_OLD, message=problem), ()
        if info.get("loading") == "1":  # then it answers few commands
            words = "The server is loading its data."
            return info, _state(info, problem=ServerProblem.SERVER_LOADING, message=words), ()
        modules = session.modules()
        config = _pairs(self._call(session, "CONFIG", "GET", "enable-module-command", "save"))
        shown = tuple(_module(each, self._is_ours) for each in modules[:MOST_MODULES])
        is_cluster = info.get("cluster_enabled") == "1"
        state = _state(
            info,
            modules=shown,
            module_count=len(modules),
            save_points=_fact(config["save"]) if "save" in config else None,
            enable_module_command=_word(config.get("enable-module-command", "")),
            cluster_state=self._cluster_state(session) if is_cluster else "",
            migrating_slots=self._migrating_slots(session, info) if is_cluster else None,
        )
        return info, state, modules

    def is_refused(self, *words: str) -> bool:
        """Return True if the server process refuses the command with these two first words."""
        return words in self._refused

    def _cluster_state(self, session: Session) -> str:
        answer = self._call(session, "CLUSTER", "INFO")
        return "" if answer is None else _word(_fields(answer).get("cluster_state", ""))

    def _migrating_slots(self, session: Session, info: Mapping[str, str]) -> int | None:
        nodes = self._call(session, "CLUSTER", "NODES")
        if nodes is None:
            return None
        own = next((line for line in str(nodes).splitlines() if "myself" in line), "")
        slots = len(re.findall(r"\[\d+-[<>]-", own))
        if _version(info) < ("valkey", ATOMIC_MIGRATIONS):
            return slots
        jobs = self._call(session, "CLUSTER", "GETSLOTMIGRATIONS")
        return None if jobs is None else slots + sum(_slots_of(_pairs(job)) for job in jobs)

    def _call(self, session: Session, *words: str) -> Any:
        """Return the answer, None if the server refuses the command."""
        if words[:2] in self._refused:
            return None
        try:
            return session.call(*words)
        except RefusedError:
            self._refused.add(words[:2])
            return None


def product(info: Mapping[str, str]) -> tuple[str, str]:
    """Return the server's name and version, both empty if INFO names none."""
    for name in ("valkey", "redis"):
        if version := info.get(f"{name}_version"):
            return name, version
    return "", ""


def _info(session: Session) -> dict[str, str]:
    try:
        return session.info(*SECTIONS)
    except RefusedError as error:
        if "syntax" not in str(error):
            raise
        return session.info("server")


def _version(info: Mapping[str, str]) -> tuple[str, tuple[int, int]]:
    name, version = product(info)
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return name, (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def _too_old(info: Mapping[str, str]) -> str:
    name, version = product(info)
    if name and _version(info)[1] >= OLDEST[name]:
        return ""
    return f"{name.capitalize() or 'The server'} {version or 'without a version'} is not supported: use Redis 7.0+ or Valkey 7.2+."


def _state(info: Mapping[str, str], **more: Any) -> ServerState:
    replicas = tuple(_replicas(info))
    is_replica = info.get("role") == "slave"
    return ServerState(
        run_id=storable(info.get("run_id", ""))[:64],
        uptime_seconds=_number(info.get("uptime_in_seconds")),
        role={"master": "master", "slave": "replica"}.get(info.get("role", ""), ""),
        master=_address(info.get("master_host", ""), info.get("master_port", "")) if is_replica else "",
        link_status=_word(info.get("master_link_status", "")),
        link_down_seconds=_number(info.get("master_link_down_since_seconds")),
        replicas=replicas[:MOST_REPLICAS],
        replica_count=_number(info.get("connected_slaves")),
        loading=_truth(info.get("loading")),
        async_loading=_truth(info.get("async_loading")),
        aof_enabled=_truth(info.get("aof_enabled")),
        aof_last_write_status=_word(info.get("aof_last_write_status", "")),
        rdb_last_bgsave_status=_word(info.get("rdb_last_bgsave_status", "")),
        cluster_enabled=_truth(info.get("cluster_enabled")),
        unexpected_error_replies=_number(info.get("unexpected_error_replies")),
        used_memory=_number(info.get("used_memory")),
        max_memory=_number(info.get("maxmemory")),
        **more,
    )


def _replicas(info: Mapping[str, str]) -> Iterator[Replica]:
    """Yield the replicas, without clients that only copy the data, such as `redis-cli --rdb`: they have no port."""
    offset = _number(info.get("master_repl_offset"))
    for key, line in info.items():
        if not re.fullmatch(r"slave\d+", key):
            continue
        fields = dict(pair.partition("=")[::2] for pair in line.split(","))
        if fields.get("port") == "0":
            continue
        at = _number(fields.get("offset"))
        yield Replica(
            address=_address(fields.get("ip", ""), fields.get("port", "")),
            state=_word(fields.get("state", "")),
            lag_bytes=None if offset is None or at is None else max(0, offset - at),
        )


def _module(module: LoadedModule, is_ours: Callable[[str], bool]) -> ServerModule:
    return ServerModule(
        name=_fact(module.name)[:64],
        version=module.version,
        path=_fact(module.path),
        args=_fact(" ".join(module.args))[:64],
        ours=is_ours(module.path),
    )


def _slots_of(job: Mapping[str, Any]) -> int:
    """Return how many slots an atomic migration moves, 0 if it has ended."""
    if str(job.get("state", "")).lower() in _ENDED:
        return 0
    ranges = [each.partition("-") for each in str(job.get("slot_ranges", "")).split()]
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)


def _fields(text: object) -> dict[str, str]:
    return {key: value for key, colon, value in (line.partition(":") for line in str(text).splitlines()) if colon}


def _pairs(answer: Sequence[Any] | Mapping[str, Any] | None) -> dict[str, Any]:
    if answer is None or isinstance(answer, Mapping):
        return dict(answer or {})
    return dict(zip(answer[::2], answer[1::2], strict=False))


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 19 else None


def _truth(text: str | None) -> bool | None:
    return {"0": False, "1": True}.get(text or "")


def _address(host: str, port: str) -> str:
    return storable(f"{host}:{port}")[:264]


def _word(text: str) -> str:
    return storable(text)[:32]


def _fact(text: str) -> str:
    return storable(text)[:LONGEST_FACT]


def storable(text: str) -> str:
    """Return text that a database can store."""
    return str(text).encode("utf-8", "replace").decode().replace("\0", "")
