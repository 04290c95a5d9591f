"""How a client of a proof reaches the servers: by a plain connection, through Sentinel, or as a client of a cluster.

No path repeats a command by itself: each error is seen by the client, and is written down. Redirections that a client of a cluster
follows by itself are no errors.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel

#: The longest time to wait for an answer, seconds. It is longer than a server may take for any command of a proof.
PATIENCE = 5.0
#: The first words of errors that redis-py cuts off.
_CODES: Sequence[tuple[type[Exception], str]] = (
    (exceptions.AskError, "ASK"),
    (exceptions.MovedError, "MOVED"),
    (exceptions.TryAgainError, "TRYAGAIN"),
    (exceptions.ClusterDownError, "CLUSTERDOWN"),
    (exceptions.MasterDownError, "MASTERDOWN"),
    (exceptions.ReadOnlyError, "READONLY"),
    (exceptions.BusyLoadingError, "LOADING"),
    (exceptions.AuthenticationError, "NOAUTH"),
    (exceptions.NoPermissionError, "NOPERM"),
    (exceptions.OutOfMemoryError, "OOM"),
)


class Path(Protocol):
    """The way of one client. Each call may use another server."""

    def call(self, words: Sequence[str], key: str) -> tuple[Any, str]:
        """Return the reply, and the address of the server that gave it, empty if not known. Raises: `redis.RedisError`."""

    def close(self) -> None:
        """End all connections."""


class PlainPath(msgspec.Struct, frozen=True, kw_only=True, tag="plain"):
    """`urls` of one shard. The next one is asked when one gives an error."""

    urls: tuple[str, ...]
    username: str | None = None
    password: str | None = None

    def open(self) -> Path:
        return _Plain(self)


class SentinelPath(msgspec.Struct, frozen=True, kw_only=True, tag="sentinel"):
    """`hosts` of the Sentinels that watch the shard `name`."""

    hosts: tuple[tuple[str, int], ...]
    name: str
    username: str | None = None
    password: str | None = None

    def open(self) -> Path:
        return _ThroughSentinel(self)


class ClusterPath(msgspec.Struct, frozen=True, kw_only=True, tag="cluster"):
    """`hosts` of some servers of the cluster."""

    hosts: tuple[tuple[str, int], ...]
    username: str | None = None
    password: str | None = None

    def open(self) -> Path:
        return _InCluster(self)


AnyPath = PlainPath | SentinelPath | ClusterPath


def words_of(error: redis.RedisError) -> str:
    """Return the error as `Call.error` has it."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return f"{code} {str(error).removeprefix(code).lstrip()}"
    if isinstance(error, exceptions.TimeoutError):
        return f"timeout: {error}"
    if isinstance(error, exceptions.ConnectionError):
        return f"closed: {error}"
    if isinstance(error, exceptions.ResponseError):
        return str(error)
    return f"closed: {type(error).__name__}: {error}"  # redis-py knows no server for the key


def _options(path: AnyPath) -> dict[str, Any]:
    return {
        "username": path.username,
        "password": path.password,
        "decode_responses": True,
        "protocol": 2,
        "socket_timeout": PATIENCE,
        "socket_connect_timeout": PATIENCE,
        "retry": Retry(NoBackoff(), 0),
    }


class _Plain:
    def __init__(self, path: PlainPath) -> None:
        options = {key: value for key, value in _options(path).items() if value is not None}
        self._clients = [(url, redis.Redis.from_url(url, **options)) for url in path.urls]

    def call(self, words: Sequence[str], key: str) -> tuple[Any, str]:
        url, client = self._clients[0]
        try:
            return client.execute_command(*words), url
        except redis.RedisError:
            self._clients.append(self._clients.pop(0))
            raise

    def close(self) -> None:
        for _, client in self._clients:
            client.close()


class _ThroughSentinel:
    def __init__(self, path: SentinelPath) -> None:
        self._sentinel = Sentinel(path.hosts, sentinel_kwargs={"socket_timeout": PATIENCE}, **_options(path))
        self._client = self._sentinel.master_for(path.name)

    def call(self, words: Sequence[str], key: str) -> tuple[Any, str]:
        reply = self._client.execute_command(*words)
        host, port = self._client.connection_pool.master_address
        return reply, f"{host}:{port}"

    def close(self) -> None:
        self._client.close()
        for each in self._sentinel.sentinels:
            each.close()


class _InCluster:
    def __init__(self, path: ClusterPath) -> None:
        nodes = [ClusterNode(host, port) for host, port in path.hosts]
        self._client = RedisCluster(startup_nodes=nodes, **_options(path))

    def call(self, words: Sequence[str], key: str) -> tuple[Any, str]:
        reply = self._client.execute_command(*words)
        node = self._client.get_node_from_key(key)
        return reply, node.name if node else ""

    def close(self) -> None:
        self._client.close()
