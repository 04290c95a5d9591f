"""A rollout as it changes, however often the connection is lost."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import httpx

from eventstore import in_words
from modfleet.client import ROLLOUTS, Client, Document, RefusedError, UnreachableError, path_to
from modfleet.failure import CommandError, ExitCode

#: Seconds.
LONGEST_WAIT = 20.0
#: A thousand nodes report more often than anybody can look.
BETWEEN_LOOKS = 0.2
FIRST_RETRY, LONGEST_RETRY = 0.25, 5.0

FINAL = frozenset(
    {
        "succeeded",
        "completed_with_failures",
        "failed",
        "aborted",
        "rolled_back",
        "rollback_failed",
        "superseded",
        "rejected",
    }
)
FAILED = ["failed", "timed_out"]


class StillRunningError(CommandError):
    """The time that somebody wanted to wait is over."""

    code = ExitCode.STILL_RUNNING


class Listener(Protocol):
    """Is told about the connection."""

    def lost(self, reason: str) -> None: ...

    def back(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    rollout: Document
    #: Nodes on which an attempt has failed or timed out, also one that was retried or undone; in the rollout's order.
    failures: tuple[Document, ...]


def standings(api: Client, uid: str, *, timeout: float | None, listener: Listener) -> Iterator[Standing]:
    """The rollout now, and after each change; the last one is final.

    Raises: `StillRunningError` after `timeout` seconds, `UnreachableError` if there is no connection at the start or
    none by then, `RefusedError`.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    etag, failures, counted = "", (), (0, 0, 0)  # type: tuple[str, tuple[Document, ...], tuple[int, int, int]]
    connection = _Connection(listener, deadline)
    while True:
        left = LONGEST_WAIT if deadline is None else max(0.0, min(LONGEST_WAIT, deadline - time.monotonic()))
        try:
            found = api.changed(path_to(ROLLOUTS, uid), etag=etag, wait=left if etag else 0)
            if found is not None:
                rollout, new_etag = found
                count = failure_counts(rollout)
                if count != counted:
                    failures = failed_nodes(api, rollout)
        except (UnreachableError, RefusedError) as error:
            connection.lost(error)
            continue
        connection.works()
        if found is not None:
            etag, counted = new_etag, count
            yield Standing(rollout=rollout, failures=failures)
            if rollout["phase"] in FINAL:
                return
        if deadline is not None and time.monotonic() >= deadline:
            raise StillRunningError(
                f"The rollout goes on after {timeout:g} s: `modfleet rollout watch {uid}` follows it further."
            )
        time.sleep(BETWEEN_LOOKS)


class _Connection:
    """Waits longer from failure to failure, and gives up at the deadline. What never worked is not waited for."""

    def __init__(self, listener: Listener, deadline: float | None) -> None:
        self._listener = listener
        self._deadline = deadline
        self._has_worked = self._is_lost = False
        self._pause = FIRST_RETRY

    def works(self) -> None:
        if self._is_lost:
            self._listener.back()
        self._has_worked, self._is_lost, self._pause = True, False, FIRST_RETRY

    def lost(self, error: UnreachableError | RefusedError) -> None:
        """Returns when it is time to try again. Raises: the error, if trying again does not help."""
        if not self._has_worked or (isinstance(error, RefusedError) and not _passes(error)):
            raise error
        if self._deadline is not None and time.monotonic() + self._pause >= self._deadline:
            raise error
        if not self._is_lost:
            self._is_lost = True
            self._listener.lost(str(error))
        asked = error.retry_after if isinstance(error, RefusedError) else None
        time.sleep(self._pause if asked is None else min(asked, 60))
        self._pause = min(2 * self._pause, LONGEST_RETRY)


def _passes(error: RefusedError) -> bool:
    """A server that starts, is overloaded or has lost its database is one to come back to."""
    return error.status >= httpx.codes.INTERNAL_SERVER_ERROR or error.status == httpx.codes.TOO_MANY_REQUESTS


def failure_counts(rollout: Document) -> tuple[int, int, int]:
    """Nodes that have failed, that have timed out, and that had before they were retried or undone."""
    progress = rollout["progress"]
    # A control plane of the version before counts none of the last kind.
    return progress["failed"], progress["timed_out"], progress.get("failed_before", 0)


def failed_nodes(api: Client, rollout: Document) -> tuple[Document, ...]:
    failed, timed_out, before = failure_counts(rollout)
    if not (failed or timed_out or before):
        return ()
    wanted = {"outcome": FAILED} if before else {"phase": FAILED}
    return tuple(api.every(path_to(ROLLOUTS, rollout["uid"], "nodes"), wanted))


def failed_attempts(failures: tuple[Document, ...]) -> list[tuple[Document, Document]]:
    """Each node of these with each of its outcomes that is a failure."""
    return [(node, each) for node in failures for each in outcomes_of(node) if each["phase"] in FAILED]


def outcomes_of(node: Document) -> list[Document]:
    # A control plane of the version before sends the newest alone, as the node's own fields.
    found: list[Document] = node.get("outcomes", [node] if node["finished_at"] else [])
    return found


def attempt_in_words(outcome: Document) -> str:
    number = outcome["attempt"]
    if not outcome["rollback"]:
        return str(number)
    return "undo" if number <= 1 else f"undo {number}"


def whose(attempt: Document) -> str:
    """At whose request an attempt was made, and who canceled it."""
    # A control plane of the version before does not say who retried and who canceled.
    asked = "the strategy" if attempt.get("automatic") else attempt.get("requested_by", "")
    canceled = attempt.get("by") or attempt.get("canceled_by")
    if not canceled:
        return str(asked)
    verb = "taken over" if attempt["reason"] == "newer_rollout" else "canceled"
    return f"{asked}, {verb} by {in_words(canceled)}"


def exit_code(rollout: Document) -> ExitCode | None:
    """With which a watch of it ends; None while it goes on by itself."""
    if rollout["phase"] in FINAL:
        is_rollback = rollout["phase"] == "rolled_back" and rollout["rollback_of"]
        return ExitCode.SUCCEEDED if rollout["phase"] == "succeeded" or is_rollback else ExitCode.FAILED
    if rollout["phase"] in {"paused", "pending_approval"} or gated_wave(rollout) is not None:
        return ExitCode.WAITS_FOR_PERSON
    return None


def gated_wave(rollout: Document) -> int | None:
    return next((each["wave"] for each in rollout["waves"] if each["phase"] == "gated"), None)


def next_step(rollout: Document) -> str:
    """For a person who has watched it up to here; empty if there is nothing to do."""
    uid, phase = rollout["uid"], rollout["phase"]
    verb = f"`modfleet rollout {{}} {uid}`"
    match phase:
        case "paused":
            return f"It waits for a person: see {verb.format('why')}, then resume, rollback or abort it."
        case "pending_approval":
            return (
                f"It waits for approval by another person than {in_words(rollout['actor'])}: {verb.format('approve')}."
            )
        case "succeeded" | "superseded":
            return ""
        case "rolled_back" if rollout["rollback_of"]:
            return ""
        case "rejected" | "rolled_back" | "aborted":
            return f"See {verb.format('why')}."
        case "failed" | "completed_with_failures" | "rollback_failed":
            return f"See {verb.format('why')}; {verb.format('retry')} tries the failed nodes again."
    if (wave := gated_wave(rollout)) is not None:
        return f"It waits at the gate after wave {wave}: {verb.format('promote')} opens it."
    return ""
