"""A failover by Sentinel, which its clients follow."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from rollout.agent.failover.preference import restore
from rollout.agent.failover.shard import (
    POLL_SECONDS,
    Failover,
    FailoverNotPossibleError,
    NotYetError,
    Peer,
    following,
    link_problem,
    replica_at,
    rewrite,
    wait_until,
)
from rollout.agent.failure import Failure
from rollout.agent.server import place
from rollout.agent.server.session import RefusedError, Server, ServerSilentError
from rollout.agent.server.texts import address, number
from rollout.agent.settings import AgentSettings
from rollout.messages import Reason

log = logging.getLogger(__name__)

#: By how much longer than the limit a master stays paused if its agent dies, seconds, or Sentinel's `down-after-milliseconds` if
#: that is more. A pause also holds up what Sentinel sends to the server. After half of the latter, Sentinel connects again: seen to
#: make it a replica after 20 s with 30,000, in the moment in which the pause ends, and before a client gets an answer.
HOLD_SECONDS = 30.0
#: How long Sentinel may need to see that a replica has become the master, seconds. It asks each second.
SEEN_SECONDS = 3.0
#: How long a command of Sentinel may be on its way, seconds.
QUIET_SECONDS = 0.3
#: Flags of a replica that Sentinel does not choose.
ABSENT = frozenset({"s_down", "o_down", "disconnected"})


class Sentinel(Peer):
    """One Sentinel, for the shard of the agent's settings."""

    def __init__(self, settings: AgentSettings, url: str) -> None:
        server = Server(replace(settings, server_url=url, server_user="", server_password_file=None))
        super().__init__(f"Sentinel {urlsplit(url).netloc.rpartition('@')[2]}", server)
        self._shard = settings.sentinel_master

    def ask(self, word: str, *words: str) -> Any:
        return self.call("SENTINEL", word, self._shard, *words)

    def master(self) -> str:
        return address(*self.ask("GET-MASTER-ADDR-BY-NAME"))

    def shard(self) -> Mapping[str, str]:
        return _pairs(self.ask("MASTER"))

    def replicas(self) -> list[Mapping[str, str]]:
        return [_pairs(each) for each in self.ask("REPLICAS")]

    def fails_over(self) -> bool:
        return "failover_in_progress" in _flags(self.shard())

    def master_instead(self, failover: Failover) -> str:
        """Return the master that it names instead of this one, empty if none. The same server by another name is none: it would
        follow itself."""
        shard, now = self.shard(), self.master()  # during a failover, the first still shows the former master
        is_same = shard.get("runid") == failover.run_id and "failover_in_progress" not in _flags(shard)
        return "" if now == failover.was or is_same else now

    def refuse_without_rights(self) -> None:
        """Call what changes something for a shard that does not exist. Raises: `FailoverNotPossibleError`."""
        for word in ("FAILOVER", "RESET"):
            try:
                self.call("SENTINEL", word, "")
            except RefusedError as error:
                if error.lacks_permission:
                    raise FailoverNotPossibleError(
                        f"The agent's user may not call SENTINEL {word} at {self.name}. See docs/howto/restarts.md."
                    ) from error


class BySentinel:
    def __init__(self, own: Peer, settings: AgentSettings) -> None:
        self._own, self._settings = own, settings
        self._unreachable: list[str] = []
        #: Sentinel lets the server itself hand over its role. Then no pause is needed while Sentinel cannot be reached.
        self._is_coordinated = False

    def check(self, replicas: Sequence[str], limit: float, target: str) -> tuple[str, str]:
        """Return where the master is, and the target. Raises: `FailoverNotPossibleError`."""
        self._own.refuse_without(
            ("CLIENT", "PAUSE", "0"),
            ("CLIENT", "UNPAUSE"),
            ("REPLICAOF", "NO", "ONE"),
            ("FAILOVER", "ABORT"),
            ("CONFIG", "REWRITE"),
        )
        try:
            sentinels = self._sentinels()
        except Failure as error:
            raise FailoverNotPossibleError(error.message) from error
        if any(each.fails_over() for each in sentinels):
            raise NotYetError("Sentinel fails over already. Wait until it has ended.")
        first, shard = sentinels[0], sentinels[0].shard()
        if len(named := sorted({each.master() for each in sentinels})) > 1:
            raise NotYetError(f"The Sentinels name different masters: {', '.join(named)}.")
        if shard.get("runid") != self._own.info("server").get("run_id"):
            raise FailoverNotPossibleError(
                f"{first.name} says that the master is at {shard.get('ip')}:{shard.get('port')}, which is another server or was "
                "just restarted. Check MODFLEET_SENTINEL_MASTER."
            )
        first.refuse_without_rights()
        first.ask("CKQUORUM")
        usable = {address(each["ip"], each["port"]): each for each in first.replicas() if not ABSENT & _flags(each)}
        if strangers := sorted(usable.keys() - set(replicas)):
            raise FailoverNotPossibleError(f"Sentinel may choose {', '.join(strangers)}, which was not checked.")
        if not any(each.get("slave-priority") != "0" for each in usable.values()):
            raise FailoverNotPossibleError("Sentinel sees no replica with another replica-priority than 0.")
        return named[0], target

    def sees(self, target: str, priority: str) -> bool:
        """Return True if each Sentinel knows this replica-priority of the target."""
        return all(
            each.get("slave-priority") == priority
            for sentinel in self._sentinels()
            for each in sentinel.replicas()
            if address(each["ip"], each["port"]) == target
        )

    def switch(self, failover: Failover) -> str:
        end = time.monotonic() + failover.limit
        sentinel = self._sentinels()[0]
        try:
            self._ask(sentinel, failover, end)
        except (FailoverNotPossibleError, RefusedError) as error:
            self._own.call("CLIENT", "UNPAUSE")
            raise self._refusal(error, *restore(self._own, self._settings, failover)) from error
        try:
            return self._demote(self._await(sentinel, failover, end))
        except (FailoverNotPossibleError, RefusedError) as error:
            if now := self._undo(failover):
                return now
            raise self._refusal(error, *restore(self._own, self._settings, failover)) from error

    def finish(self, failover: Failover, now: str) -> Iterable[str]:
        yield from self._unreachable
        yield from restore(self._own, self._settings, failover)
        yield from rewrite(self._own)
        yield from link_problem(self._own)

    def settle(self, failover: Failover) -> str:
        now = self._settle(failover)
        for problem in () if now else restore(self._own, self._settings, failover):
            log.warning("%s", problem)
        return now

    def _settle(self, failover: Failover) -> str:
        if master := place.master(self._own.replication()):
            return self._demote(master)
        if now := self._named(failover):
            return self._demote(now)
        leader = next((each for each in self._sentinels() if each.fails_over()), None)
        if leader is None:
            if self._unreachable and failover.age < failover.limit + HOLD_SECONDS:
                raise Failure(
                    Reason.SERVER_UNREACHABLE, f"It is not known if Sentinel fails over. {' '.join(self._unreachable)}"
                )
            self._own.call("CLIENT", "UNPAUSE")
            return ""
        self._pause(leader, failover)
        try:
            return self._demote(self._await(leader, failover, time.monotonic() + failover.limit))
        except (FailoverNotPossibleError, RefusedError):
            return self._undo(failover)

    def _ask(self, sentinel: Sentinel, failover: Failover, end: float) -> None:
        """Let Sentinel fail over, so that no write is acknowledged that the new master lacks. Raises: `RefusedError`."""
        try:
            sentinel.ask("FAILOVER", "COORDINATED")
        except RefusedError as error:
            if "wrong number of arguments" not in str(error):
                raise
        else:
            self._is_coordinated = True
            return
        self._pause(sentinel, failover)
        if not wait_until(lambda: self._is_equal(failover), end):
            raise FailoverNotPossibleError(
                f"The replicas have not caught up within {failover.limit:g} s. Retry when fewer clients write."
            )
        sentinel.ask("FAILOVER")

    def _await(self, sentinel: Sentinel, failover: Failover, end: float) -> str:
        """Return the master that Sentinel names instead of this one. Raises: `FailoverNotPossibleError`."""
        while time.monotonic() < end:
            with suppress(ServerSilentError):  # it may write its file for some seconds
                is_ended = not sentinel.fails_over()  # first: Sentinel names the new master before it ends the failover
                if now := sentinel.master_instead(failover):
                    return now
                if is_ended:
                    raise FailoverNotPossibleError("Sentinel has given up its failover. See its log.")
            time.sleep(POLL_SECONDS)
        raise FailoverNotPossibleError(f"Sentinel has not failed over within {failover.limit:g} s. See its log.")

    def _demote(self, now: str) -> str:
        """Make the former master a replica, if it is none. Only then its clients go on."""
        if not place.master(self._own.replication()):
            host, _, port = now.rpartition(":")
            self._own.call("REPLICAOF", host, port)
        self._own.call("CLIENT", "UNPAUSE")
        return now

    def _undo(self, failover: Failover) -> str:
        """End the failover and the pause. Return the new master, if a replica has become it meanwhile: that is not undone."""
        self._own.abort()
        if self._is_coordinated:
            self._own.call("CLIENT", "UNPAUSE")
        leaders = [each for each in self._sentinels() if each.fails_over()]
        if leaders and self._lost(failover):  # a replica is a master already, and Sentinel has not seen it yet
            with suppress(FailoverNotPossibleError):
                return self._demote(self._await(leaders[0], failover, time.monotonic() + SEEN_SECONDS))
        if now := place.master(self._own.replication()):
            return self._demote(now)
        for each in leaders:
            each.ask("RESET")
        time.sleep(QUIET_SECONDS)
        self._own.abort()
        if now := place.master(self._own.replication()) or self._named(failover):
            return self._demote(now)
        self._own.call("CLIENT", "UNPAUSE")
        host, _, port = failover.was.rpartition(":")
        for lost in self._lost(failover):  # Sentinel has made it a master, but no client knows it
            with suppress(Failure, RefusedError):  # or it has ended
                replica_at(self._settings, lost, self._own).call("REPLICAOF", host, port)
        return ""

    def _named(self, failover: Failover) -> str:
        """Return the master that a Sentinel names instead of this one, empty if none does."""
        return next((now for each in self._sentinels() if (now := each.master_instead(failover))), "")

    def _lost(self, failover: Failover) -> list[str]:
        """Return the candidates that do not follow the server any more."""
        return sorted(set(failover.candidates) - following(self._own.replication()))

    def _is_equal(self, failover: Failover) -> bool:
        lags = {each.address: each.lag_bytes for each in place.replicas(self._own.replication())}
        return all(lags.get(each) == 0 for each in failover.candidates)

    def _pause(self, sentinel: Sentinel, failover: Failover) -> None:
        """Stop the writes, for longer than the limit: this also ends if the agent dies, but not before Sentinel has acted."""
        down_after = (number(sentinel.shard().get("down-after-milliseconds")) or 0) / 1000
        seconds = failover.limit + max(HOLD_SECONDS, down_after)
        self._own.call("CLIENT", "PAUSE", str(round(seconds * 1000)), "WRITE")

    def _sentinels(self) -> list[Sentinel]:
        """Return the Sentinels that answer. Raises: `Failure` if none does."""
        found, problems = [], []
        for url in self._settings.sentinel_urls:
            sentinel = Sentinel(self._settings, url)
            try:
                sentinel.shard()
                found.append(sentinel)
            except (Failure, RefusedError) as error:
                problems.append(f"{sentinel.name} cannot be asked: {str(error).rstrip('.')}.")
        self._unreachable = problems
        if not found:
            raise Failure(Reason.SERVER_UNREACHABLE, " ".join(problems))
        return found

    def _refusal(self, error: Exception, *more: str) -> FailoverNotPossibleError:
        return FailoverNotPossibleError(" ".join([f"{str(error).rstrip('.')}.", *self._unreachable, *more]))


def _pairs(answer: Sequence[str]) -> Mapping[str, str]:
    return dict(zip(answer[::2], answer[1::2], strict=True))


def _flags(fields: Mapping[str, str]) -> set[str]:
    return set(fields.get("flags", "").split(","))
