"""Checks of the broker: reachable, authenticated, and the rights on the node's own queues."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from kombu.exceptions import OperationalError
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from rollout import tls
from rollout.agent.control_plane.identity import IdentityError
from rollout.agent.control_plane.publisher import connected, transport_options
from rollout.agent.control_plane.trust import Trust
from rollout.agent.doctor.host import Host, errors, pairs, words_of
from rollout.agent.doctor.outcome import Outcome, UnknownError, failed, passed, unknown
from rollout.agent.settings import AgentSettings
from rollout.messages import HEARTBEATS, REPORTS, FindingStatus, cancel_queue_for, queue_for

#: The longest time to connect to the broker, seconds.
CONNECT_SECONDS = 3.0
FIX = "Start the broker, open its port for this host, or correct MODFLEET_BROKER_URL."
_TRIED = "_broker"


def broker(host: Host) -> Outcome:
    if _TRIED not in host.known:
        trust = host.trust
        # For other checks, if this one takes too long.
        host.known[_TRIED] = failed("The broker does not answer in time.", FIX)
        host.known[_TRIED] = _try(trust)
    outcome: Outcome = host.known[_TRIED]
    return outcome


def broker_rights(host: Host) -> Outcome:
    """Queue each command of the agent in a transaction that is never executed: the broker checks the rights first."""
    with connection(host) as raw:
        if isinstance(_answer(raw, "MULTI"), NoPermissionError):
            missing = ["MULTI"]
        else:
            missing = [
                name for name, words in _commands(host.settings) if isinstance(_answer(raw, *words), NoPermissionError)
            ]
    if missing:
        return failed(
            f"The broker refuses the agent's user: {', '.join(missing)}.",
            f"Print the user's rights with `modfleet-manage broker_acl {host.settings.node}` and set them in the broker.",
        )
    return passed("The broker allows all commands that the agent needs.")


@contextmanager
def connection(host: Host) -> Iterator[Any]:
    """Open a connection of redis-py to the broker. Raises: `UnknownError`."""
    if broker(host).status is not FindingStatus.PASS:
        raise UnknownError("The broker does not answer: see broker.")
    try:
        with connected(host.trust) as opened:
            channel: Any = opened.default_channel
            with channel.conn_or_acquire() as client:
                raw = client.connection_pool.make_connection()
                try:
                    raw.connect()
                    yield raw
                finally:
                    raw.disconnect()
    except (OperationalError, RedisError, OSError) as error:
        raise UnknownError(f"The broker has stopped answering: {words_of(error)}.") from error


def hello_id(raw: Any) -> int | None:
    """Return the number that the server gives to this connection. Numbers of one server only grow."""
    answer = _answer(raw, "HELLO", "2")
    return None if isinstance(answer, Exception) else int(pairs(answer)["id"])


def _try(trust: Trust) -> Outcome:
    parts = urlsplit(trust.settings.broker_url)
    where = (
        f"{parts.hostname}:{parts.port or 6379}"
        if parts.hostname and "socket" not in parts.scheme
        else unquote(parts.path)
    )
    try:
        _connect(parts.scheme, where)
        with connected(trust) as opened:
            if not hasattr(opened.default_channel, "conn_or_acquire"):
                return unknown("The broker is not Redis or Valkey: its rights and its clock are not checked.")
    except IdentityError as error:
        return failed(str(error), "Check the file MODFLEET_IDENTITY_FILE, or join the node again.")
    except (OperationalError, RedisError, OSError, KeyError, ValueError) as error:
        if any(isinstance(each, AuthenticationError) for each in errors(error)):
            return failed(
                f"The broker at {where} refuses the agent's user or password.",
                "Check the user and password in MODFLEET_BROKER_URL against the broker's ACL.",
            )
        authority = tls.missing_authority(error, "MODFLEET_BROKER_CA")
        fix = f"{authority}." if authority else FIX
        return failed(f"The broker at {where} cannot be reached: {words_of(error)}.", fix)
    return passed(f"The broker at {where} answers.")


def _connect(scheme: str, where: str) -> None:
    """Connect once, and wait for an answer: the broker's client tries again for a long time."""
    if scheme in {"redis", "rediss"}:
        host, _, port = where.rpartition(":")
        probe = socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS)
    elif "socket" in scheme:
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        return
    with probe:
        probe.settimeout(CONNECT_SECONDS)
        if "socket" in scheme:
            probe.connect(where)
        if scheme != "rediss":
            probe.sendall(b"PING\r\n")  # without a password, the answer is an error
            probe.recv(1)


def _commands(settings: AgentSettings) -> list[tuple[str, tuple[str, ...]]]:
    """Return what the agent calls on the broker, each with the words that name it to people."""
    node, options = settings.node, transport_options(settings.node)
    tags, index = str(options["unacked_key"]), str(options["unacked_index_key"])
    own, cancels = queue_for(node), cancel_queue_for(node)
    commands = [
        ("BRPOP", own, "1"),
        ("BRPOP", cancels, "1"),
        ("LPUSH", REPORTS, "x"),
        ("LPUSH", HEARTBEATS, "x"),
        ("LLEN", own),
        ("SADD", f"_kombu.binding.{own}", "x"),
        ("HGET", tags, "x"),
        ("HSET", tags, "x", "x"),
        ("HDEL", tags, "x"),
        ("ZADD", index, "1", "x"),
        ("ZREM", index, "x"),
        ("ZRANGE", index, "0", "-1"),
    ]
    return [*((f"{words[0]} {words[1]}", words) for words in commands), ("TIME", ("TIME",))]


def _answer(raw: Any, *words: str) -> Any:
    """Return the answer, or the error that the server answers."""
    raw.send_command(*words)
    try:
        return raw.read_response()
    except ResponseError as error:
        return error
