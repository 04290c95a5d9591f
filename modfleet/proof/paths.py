"""How a client of a proof reaches the servers: by a plain connection, through Sentinel, or as a client of a cluster.

No path repeats a command by itself: each error is seen by the client, and is written down. Redirections that a client of a cluster
follows by itself are no errors.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec
import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

#: The longest time to wait for an answer, seconds. It is longer than a server may take for any command of a proof.
PATIENCE = 5.0
#: How long a Sentinel may take, seconds: the next one is asked after it.
SENTINEL_PATIENCE = 0.5
#: What redis-py's client for Sentinel makes of READONLY.
DEMOTED = "The previous master is now a slave"
#: The first words of errors that redis-py cuts off.
_CODES: Sequence[tuple[type[Exception], str]] = (
    (exceptions.MovedError, "MOVED"),  # a kind of `AskError`
    (exceptions.AskError, "ASK"),
    (exceptions.TryAgainError, "TRYAGAIN"),
    (exceptions.MasterDownError, "MASTERDOWN"),  # a kind of `ClusterDownError`
    (exceptions.ClusterDownError, "CLUSTERDOWN"),
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


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Paths of files in PEM format. Without `ca_file`, the system's authorities are trusted."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    check_hostname: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """As redis-py names them."""
        return {
            "ssl_ca_certs": self.ca_file,
            "ssl_certfile": self.cert_file,
            "ssl_keyfile": self.key_file,
            "ssl_check_hostname": self.check_hostname,
        }


class PlainPath(msgspec.Struct, frozen=True, kw_only=True, tag="plain"):
    """`urls` of the servers of one shard. With more than one, the clients use the one that says it is a master, and look again after
    each error.
    """

    urls: tuple[str, ...]
    username: str | None = None
    password: str | None = None
    #: For URLs that begin with `rediss://`.
    tls: Tls | None = None

    def open(self) -> Path:
        return _Plain(self)


class SentinelPath(msgspec.Struct, frozen=True, kw_only=True, tag="sentinel"):
    """`hosts` of the Sentinels that watch the shard `name`. They have users of their own."""

    hosts: tuple[tuple[str, int], ...]
    name: str
    username: str | None = None
    password: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    #: For the Sentinels and for the servers.
    tls: Tls | None = None

    def open(self) -> Path:
        return _ThroughSentinel(self)

    def sentinels(self) -> Sentinel:
        """Return the Sentinels, and what connects to the servers that they name."""
        own = {
            "username": self.sentinel_username,
            "password": self.sentinel_password,
            "decode_responses": True,
            "socket_timeout": SENTINEL_PATIENCE,
            "socket_connect_timeout": SENTINEL_PATIENCE,
            "retry": Retry(NoBackoff(), 0),
            **(self.tls.options if self.tls else {}),
            **_secured(self),
        }
        return Sentinel(self.hosts, sentinel_kwargs=_given(own), **options_of(self), **_secured(self))


class ClusterPath(msgspec.Struct, frozen=True, kw_only=True, tag="cluster"):
    """`hosts` of some servers of the cluster."""

    hosts: tuple[tuple[str, int], ...]
    username: str | None = None
    password: str | None = None
    tls: Tls | None = None

    def open(self) -> Path:
        return _InCluster(self)


AnyPath = PlainPath | SentinelPath | ClusterPath


def words_of(error: redis.RedisError) -> str:
    """Return the error as `Call.error` has it."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return f"{code} {str(error).removeprefix(code).lstrip()}"
    if str(error) == DEMOTED:
        return f"READONLY {error}"
    if isinstance(error, MasterNotFoundError):  # its own text has each option of each connection
        return "closed: no Sentinel names the master"
    if isinstance(error, exceptions.TimeoutError):
        return f"timeout: {error}"
    if isinstance(error, exceptions.ConnectionError):
        return f"closed: {error}"
    if isinstance(error, exceptions.ResponseError):
        return str(error)
    return f"closed: {type(error).__name__}: {error}"


def options_of(path: AnyPath) -> dict[str, Any]:
    """Return how to connect to a server by its URL, as redis-py names it."""
    return _given(
        {
            "username": path.username,
            "password": path.password,
            "decode_responses": True,
            "protocol": 2,
            "socket_timeout": PATIENCE,
            "socket_connect_timeout": PATIENCE,
            "retry": Retry(NoBackoff(), 0),
            **(path.tls.options if path.tls else {}),
        }
    )


def _secured(path: SentinelPath | ClusterPath) -> dict[str, Any]:
    """Return what says, without a URL, if TLS is used."""
    return {"ssl": True} if path.tls else {}


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


class _Plain:
    def __init__(self, path: PlainPath) -> None:
        self._clients = {url: redis.Redis.from_url(url, **options_of(path)) for url in path.urls}
        self._master = path.urls[0] if len(path.urls) == 1 else ""

    def call(self, words: Sequence[str], key: str) -> tuple[Any, str]:
        self._master = self._master or self._find_master()
        try:
            return self._clients[self._master].execute_command(*words), self._master
        except redis.RedisError:
            if len(self._clients) > 1:
                # The next look begins with the others.
                self._clients[self._master] = self._clients.pop(self._master)
                self._master = ""
            raise

    def _find_master(self) -> str:
        problem: redis.RedisError = exceptions.ConnectionError("no server says that it is a master")
        for url, client in self._clients.items():
            try:
                if client.info("replication")["role"] == "master":
                    return url
            except redis.RedisError as error:
                problem = error
        raise problem

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


class _ThroughSentinel:
    def __init__(self, path: SentinelPath) -> None:
        self._sentinel = path.sentinels()
        self._client = self._sentinel.master_for(path.name)

    def call(self, words: Sequence[str], key: str) -> tuple[Any, str]:
        reply = self._client.execute_command(*words)
        host, port = self._client.connection_pool.master_address
        return reply, f"{host}:{port}"

    def close(self) -> None:
        self._client.close()
        for each in self._sentinel.sentinels:
            each.close()


class _Keyed(RedisCluster):
    """Knows the key of each command. Else it would ask a server for all commands at the first call of a new one, which takes longer
    than what a proof measures."""

    key = ""

    def determine_slot(self, *_: object) -> int:
        return int(self.keyslot(self.key))


@contextmanager
def _as_redis_errors() -> Iterator[None]:
    """What redis-py raises if it knows no server for a slot is no `RedisError`. An ASK to a server that it does not know ends with an
    `AttributeError`, and servers that have lost their configuration with an `IndexError`."""
    try:
        yield
    except (exceptions.RedisClusterException, AttributeError, LookupError) as error:
        raise exceptions.ConnectionError(str(error)) from error


class _InCluster:
    def __init__(self, path: ClusterPath) -> None:
        nodes = [ClusterNode(host, port) for host, port in path.hosts]
        with _as_redis_errors():
            self._client = _Keyed(startup_nodes=nodes, **options_of(path), **_secured(path))

    def call(self, words: Sequence[str], key: str) -> tuple[Any, str]:
        self._client.key = key
        with _as_redis_errors():
            reply = self._client.execute_command(*words)
            node = self._client.get_node_from_key(key)
        return reply, node.name if node else ""

    def close(self) -> None:
        self._client.close()
