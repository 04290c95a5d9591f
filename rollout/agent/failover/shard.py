"""The servers of the shard during a failover: the agent's own one, and its replicas."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from rollout.agent.failure import Failure, MustWaitError
from rollout.agent.server import place
from rollout.agent.server.session import RefusedError, Server
from rollout.agent.settings import AgentSettings
from rollout.messages import Reason
from rollout.tls import is_secured

#: How often a state is read, seconds.
POLL_SECONDS = 0.02
#: The longest time after the switch until the former master follows the new one, seconds.
LINK_SECONDS = 60.0


class FailoverNotPossibleError(MustWaitError):
    """The master is where it was, no pause is left, and no failover is in progress. The message says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.FAILOVER_NOT_POSSIBLE, message)


class NotYetError(FailoverNotPossibleError):
    """What stands against it passes by itself, such as another failover."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failover:
    """A failover in progress, kept on disk from before its first step until its end. Addresses are `host:port`.

    `candidates`: the replicas, one of which becomes the master. `target`: the chosen one, empty if Sentinel chooses. `was`: the
    master's address, as its replicas or Sentinel know it. `run_id`: of its process. `limit`: of the pause, seconds. `began`:
    seconds since 1970. `priority`: the replica-priority of the target, which is lowered until the end so that Sentinel chooses it;
    empty if it is not.
    """

    way: Literal["sentinel", "command", "cluster"]
    candidates: tuple[str, ...]
    target: str
    was: str
    run_id: str
    limit: float
    began: float = field(default_factory=time.time)
    priority: str = ""

    def begun_now(self) -> "Failover":
        return replace(self, began=time.time())

    @property
    def age(self) -> float:
        """Return for how many seconds it has been in progress."""
        return max(0.0, time.time() - self.began)


class Way(Protocol):
    """A way to fail over. `check` returns where the master is, and the replica that takes over. `switch` and `settle` return the address of the new master; `settle` returns an empty text if the master
    is where it was, as before the failover. `finish` returns sentences on what is left to do. All may raise `Failure`."""

    def check(self, replicas: Sequence[str], limit: float, target: str) -> tuple[str, str]: ...
    def switch(self, failover: Failover) -> str: ...
    def finish(self, failover: Failover, now: str) -> Iterable[str]: ...
    def settle(self, failover: Failover) -> str: ...


class Peer:
    """A server of the shard. Each call has a connection of its own: Sentinel ends those that are open at a failover."""

    def __init__(self, name: str, server: Server) -> None:
        self.name = name
        self._server = server

    def call(self, *words: str) -> Any:
        with self._server.session() as session:
            return session.call(*words)

    def info(self, *sections: str) -> Mapping[str, str]:
        with self._server.session() as session:
            return session.info(*sections)

    def replication(self) -> Mapping[str, str]:
        return self.info("replication")

    def parameter(self, name: str) -> str:
        """Return a parameter of the server, empty if it has none of this name. Raises: `RefusedError`."""
        answer = self.call("CONFIG", "GET", name)
        return str(answer[1]) if answer else ""

    def abort(self) -> None:
        """End a FAILOVER that is in progress. Raises: `RefusedError` if it cannot be ended."""
        try:
            if self.replication().get("master_failover_state", "no-failover") != "no-failover":
                self.call("FAILOVER", "ABORT")
        except RefusedError as error:
            if "no failover in progress" not in str(error).lower():
                raise

    def refuse_without(self, *commands: Sequence[str]) -> None:
        """Queue the commands in a transaction that is never executed. Raises: `FailoverNotPossibleError` if one is refused."""
        lacks = []
        with self._server.session() as session:
            for words in (("MULTI",), *commands):
                try:
                    session.call(*words)
                except RefusedError:
                    lacks.append(" ".join(words[:2]) if words[0] in {"CONFIG", "CLUSTER", "CLIENT"} else words[0])
        if lacks:
            raise FailoverNotPossibleError(
                f"The agent's user may not call {', '.join(lacks)} at {self.name}. Give it the rights of the level `restart` "
                "(docs/howto/doctor.md) at each server of the shard."
            )


def replica_at(settings: AgentSettings, address: str, own: Peer) -> Peer:
    """Return the replica, to which the agent connects as to its own server, with the same user and password.

    Raises: `RefusedError` if the agent may not see if the replica needs TLS.
    """
    secured = is_secured(settings.server_url) or own.parameter("tls-replication") == "yes"
    url = replica_url(settings.server_url, address, "rediss" if secured else "redis")
    return Peer(address, Server(replace(settings, server_url=url)))


def replica_url(server_url: str, address: str, scheme: str) -> str:
    """Return the URL of the server at `host:port`, with the user and the password in `server_url`."""
    user, at, _ = urlsplit(server_url).netloc.rpartition("@")
    host, _, port = address.rpartition(":")
    return f"{scheme}://{user}{at}{f'[{host}]' if ':' in host else host}:{port}"


def replicas_of(own: Peer, settings: AgentSettings, addresses: Iterable[str]) -> dict[Peer, Mapping[str, str]]:
    """Return a connection to each replica, with its sections `server` and `replication` of INFO.

    Raises: `FailoverNotPossibleError` if one cannot be reached, or is no replica in step of the agent's own server.
    """
    replid = own.replication().get("master_replid")
    found = {}
    for address in addresses:
        peer = replica_at(settings, address, own)
        try:
            info = peer.info("server", "replication")
        except (Failure, RefusedError) as error:
            raise FailoverNotPossibleError(
                f"The agent needs a connection to the replica {address}, with the user and the password that it has for its own "
                f"server. {error}"
            ) from error
        if not replid or info.get("master_replid") != replid:
            raise FailoverNotPossibleError(
                f"The server at {address} does not have the data of this master. Check its address."
            )
        if info.get("master_link_status") != "up":
            raise NotYetError(f"The server at {address} is no replica in step. Wait until its link is up.")
        found[peer] = info
    return found


def following(info: Mapping[str, str]) -> set[str]:
    """Return the addresses of the replicas that the master lists as online. `info`: its section `replication`."""
    return {each.address for each in place.replicas(info) if each.state == "online"}


def wait_until(condition: Callable[[], bool], end: float) -> bool:
    """Return True as soon as the condition does, False at `end` by the monotonic clock."""
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def link_problem(own: Peer) -> list[str]:
    """Wait until the former master has all data of the new one. Return a sentence if that takes too long."""
    if wait_until(lambda: own.replication().get("master_link_status") == "up", time.monotonic() + LINK_SECONDS):
        return []
    return [f"The former master has not been in step with the new one within {LINK_SECONDS:g} s."]


def rewrite(peer: Peer) -> list[str]:
    """Let the server write its configuration file. Return a sentence if it cannot."""
    try:
        peer.call("CONFIG", "REWRITE")
    except (Failure, RefusedError) as error:
        words = f"The configuration file of {peer.name} has the former role: CONFIG REWRITE failed ({error})."
        return [f"{words} Correct the file before that server is restarted."]
    return []
