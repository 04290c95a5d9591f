"""Watch a rollout until it ends, through lost connections."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import httpx

from eventstore import in_words
from modfleet.client import ROLLOUTS, Client, Document, RefusedError, UnreachableError, path_to
from modfleet.failure import CommandError, ExitCode

#: Longest wait of one request for a change, seconds.
LONGEST_WAIT = 20.0
#: Least seconds between two requests: a thousand nodes report more often than a person can read.
POLL_SECONDS = 0.2
#: Least seconds between two questions about what the rollout waits for. A wait may begin without a change of the rollout.
WAITS_SECONDS = 2.0
#: Seconds between two attempts to connect. They double up to the longest.
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
#: Reasons of skipped nodes that have what the rollout asks for.
DONE_BEFORE = frozenset({"already_installed", "not_installed"})


class StillRunningError(CommandError):
    """`--timeout` has passed and the rollout is still running."""

    code = ExitCode.STILL_RUNNING


class Listener(Protocol):
    """Receives the changes of the connection."""

    def lost(self, reason: str) -> None: ...

    def back(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    rollout: Document
    #: Nodes with an attempt that failed or timed out, also if it was retried or undone; in the rollout's order.
    failures: tuple[Document, ...]
    #: How many nodes failed for the same cause, in words.
    causes: tuple[str, ...] = ()
    #: What the rollout waits for, in one line; empty if it has ended.
    waits: str = ""
    #: What has happened on nodes in progress.
    notes: tuple[str, ...] = ()


def snapshots(api: Client, uid: str, *, timeout: float | None, listener: Listener) -> Iterator[Snapshot]:
    """Yield the rollout now and after each change, also of what it waits for, until it has ended. `waits` is empty while nodes
    are in progress.

    Raises: `StillRunningError` after `timeout` seconds; `UnreachableError` without a connection at the start or at the
    timeout; `RefusedError`.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    etag, failures, counted = "", (), (0, 0, 0)  # type: tuple[str, tuple[Document, ...], tuple[int, int, int]]
    causes: tuple[str, ...] = ()
    rollout: Document = None
    waits: tuple[str, tuple[str, ...]] = ("", ())
    asked_at = -math.inf
    connection = _Connection(listener, deadline)
    is_waits_known = True
    while True:
        longest = LONGEST_WAIT if is_waits_known else WAITS_SECONDS
        left = longest if deadline is None else max(0.0, min(longest, deadline - time.monotonic()))
        try:
            found = api.changed(path_to(ROLLOUTS, uid), etag=etag, wait=left if etag else 0)
            if found is not None:
                rollout, new_etag = found
                count = failure_counts(rollout)
                if count != counted:
                    failures, causes = failed_nodes(api, rollout), failure_causes(api, rollout)
            before, is_waits_known = waits, rollout["phase"] in FINAL or time.monotonic() - asked_at >= WAITS_SECONDS
            if is_waits_known:
                waits, asked_at = stalled_by(api, rollout), time.monotonic()
        except (UnreachableError, RefusedError) as error:
            connection.lost(error)
            continue
        connection.works()
        if found is not None:
            etag, counted = new_etag, count
        if found is not None or waits != before:
            yield Snapshot(rollout=rollout, failures=failures, causes=causes, waits=waits[0], notes=waits[1])
            if rollout["phase"] in FINAL:
                return
        if deadline is not None and time.monotonic() >= deadline:
            raise StillRunningError(
                f"Not finished after {timeout:g} s; the rollout continues. `modfleet rollout why {uid}` shows what it waits for; "
                f"`modfleet rollout watch {uid}` watches it again."
            )
        time.sleep(POLL_SECONDS)


class _Connection:
    """Wait longer after each failure, and give up at the deadline or if no request has succeeded yet."""

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
        """Wait until the next attempt. Raises: the error, if another attempt would not help."""
        if not self._has_worked or (isinstance(error, RefusedError) and not _is_temporary(error)):
            raise error
        if self._deadline is not None and time.monotonic() + self._pause >= self._deadline:
            raise error
        if not self._is_lost:
            self._is_lost = True
            self._listener.lost(str(error))
        asked = error.retry_after if isinstance(error, RefusedError) else None
        time.sleep(self._pause if asked is None else min(asked, 60))
        self._pause = min(2 * self._pause, LONGEST_RETRY)


def _is_temporary(error: RefusedError) -> bool:
    """Return True if the control plane is starting, is overloaded or has lost its database."""
    return error.status >= httpx.codes.INTERNAL_SERVER_ERROR or error.status == httpx.codes.TOO_MANY_REQUESTS


def failure_counts(rollout: Document) -> tuple[int, int, int]:
    """Return the numbers of nodes that failed, that timed out, and that failed before a retry or an undo."""
    progress = rollout["progress"]
    # The previous version of the control plane does not send the last one.
    return progress["failed"], progress["timed_out"], progress.get("failed_before", 0)


def failed_nodes(api: Client, rollout: Document) -> tuple[Document, ...]:
    failed, timed_out, before = failure_counts(rollout)
    if not (failed or timed_out or before):
        return ()
    query = {"outcome": FAILED} if before else {"phase": FAILED}
    return tuple(api.every(path_to(ROLLOUTS, rollout["uid"], "nodes"), query))


def failure_causes(api: Client, rollout: Document) -> tuple[str, ...]:
    """Return how many nodes failed with the same words of their servers, the most frequent first."""
    if not any(failure_counts(rollout)):
        return ()
    # The previous version of the control plane does not send them.
    groups = api.get(path_to(ROLLOUTS, rollout["uid"], "why")).get("failures", [])
    return tuple(each["text"] for each in groups if each["line"])


def stalled_by(api: Client, rollout: Document) -> tuple[str, tuple[str, ...]]:
    """Return what the rollout waits for while no node is in progress, in one line, and what has happened on nodes in
    progress; both are empty if it has ended."""
    if rollout["phase"] in FINAL:
        return "", ()
    answer = api.get(path_to(ROLLOUTS, rollout["uid"], "why"))
    is_moving = any(each["what"] in {"next_step", "node_deadline"} for each in answer["waits_for"])
    # The previous version of the control plane sends no notes.
    return "" if is_moving else waits_in_a_line(answer), tuple(answer.get("notes", ()))


def waits_in_a_line(answer: Document) -> str:
    """Return the first thing that a rollout waits for, and how many more there are. `answer`: why it is in its phase."""
    waits = answer["waits_for"]
    if not waits:
        return ""
    until = f" until {waits[0]['until']}" if waits[0]["until"] else ""
    more = f" (and {len(waits) - 1} more: `modfleet rollout why {answer['uid']}`)" if len(waits) > 1 else ""
    return f"waits for {waits[0]['text']}{until}{more}"


def why_lines(answer: Document) -> list[str]:
    """Return why a rollout or a node is in its phase, what it waits for, and its failures with the lines of the servers' logs."""
    waits = [
        f"waits for: {each['text']}{' until ' + each['until'] if each['until'] else ''}" for each in answer["waits_for"]
    ]
    lines = [answer["summary"], f"rule {answer['rule']['id']}: {answer['rule']['text']}", *waits]
    # The previous version of the control plane does not send the next two.
    lines += [each["text"] for each in answer.get("masters", [])]
    for each in answer.get("failures", []):
        lines += ["", each["text"], *(f"  {each['node']}: {line}" for line in each["server_log"])]
    return lines


def failed_attempts(failures: tuple[Document, ...]) -> list[tuple[Document, Document]]:
    """Return a pair of node and outcome for each failed attempt."""
    return [(node, each) for node in failures for each in outcomes_of(node) if each["phase"] in FAILED]


def outcomes_of(node: Document) -> list[Document]:
    # The previous version of the control plane sends only the newest, as fields of the node.
    found: list[Document] = node.get("outcomes", [node] if node["finished_at"] else [])
    return found


def attempt_in_words(outcome: Document) -> str:
    number = outcome["attempt"]
    if not outcome["rollback"]:
        return str(number)
    return "undo" if number <= 1 else f"undo {number}"


def whose(attempt: Document) -> str:
    """Return who requested an attempt, and who canceled it."""
    # The previous version of the control plane does not send who retried and who canceled.
    asked = "the strategy" if attempt.get("automatic") else attempt.get("requested_by", "")
    canceled = attempt.get("by") or attempt.get("canceled_by")
    if not canceled:
        return str(asked)
    verb = "taken over" if attempt["reason"] == "newer_rollout" else "canceled"
    return f"{asked}, {verb} by {in_words(canceled)}"


def exit_code(rollout: Document) -> ExitCode | None:
    """Return the exit code of a watch; None while the rollout continues without a person."""
    if rollout["phase"] in FINAL:
        is_rollback = rollout["phase"] == "rolled_back" and rollout["rollback_of"]
        return ExitCode.SUCCEEDED if rollout["phase"] == "succeeded" or is_rollback else ExitCode.FAILED
    waits = gated_wave(rollout) is not None or waits_as_one_way(rollout)
    if rollout["phase"] in {"paused", "pending_approval"} or waits:
        return ExitCode.WAITS_FOR_PERSON
    return None


def not_done(api: Client, rollout: Document) -> tuple[Document, ...]:
    """Return all nodes, if the rollout has succeeded although each node was skipped and none has what it asks for; else nothing."""
    progress = rollout["progress"]
    if rollout["phase"] != "succeeded" or not progress["skipped"] or progress["skipped"] < progress["total"]:
        return ()
    nodes = tuple(api.every(path_to(ROLLOUTS, rollout["uid"], "nodes")))
    return () if any(each["reason"] in DONE_BEFORE for each in nodes) else nodes


def gated_wave(rollout: Document) -> int | None:
    return next((each["wave"] for each in rollout["waves"] if each["phase"] == "gated"), None)


def waits_as_one_way(rollout: Document) -> bool:
    """Return True if a person has to accept that there is no rollback."""
    one_way = rollout.get("one_way")
    return rollout["phase"] == "running" and bool(one_way) and not one_way["promoted"]


def next_step(rollout: Document) -> str:
    """Return what a person can do next; empty if there is nothing."""
    uid, phase = rollout["uid"], rollout["phase"]
    verb = f"`modfleet rollout {{}} {uid}`"
    match phase:
        case "paused":
            return f"The rollout is paused: {verb.format('why')} shows the reason. Then run `resume`, `rollback` or `abort`."
        case "pending_approval":
            return (
                f"The rollout waits for approval by a person other than {in_words(rollout['actor'])}: run "
                f"{verb.format('approve')}."
            )
        case "succeeded" if skipped := rollout["progress"]["skipped"]:
            who = "1 node was" if skipped == 1 else f"{skipped} nodes were"
            return f"{verb.format('why')} shows why {who} skipped."
        case "succeeded" if follower := rollout.get("failed_back_by"):
            return f"Its former masters become the masters again: `modfleet rollout watch {follower}` follows that."
        case "succeeded" | "superseded":
            return ""
        case "rolled_back" if rollout["rollback_of"]:
            return ""
        case "rejected" | "rolled_back" | "aborted":
            return f"{verb.format('why')} shows the reason."
        case "failed" | "completed_with_failures" | "rollback_failed":
            return f"{verb.format('why')} shows the reason; {verb.format('retry')} tries the failed nodes again."
    if waits_as_one_way(rollout):
        return (
            f"The rollout waits after {rollout['one_way']['node']}, because there is no rollback: {verb.format('why')} shows the "
            f"reason, {verb.format('promote')} goes on, and {verb.format('abort')} ends it."
        )
    if (wave := gated_wave(rollout)) is not None:
        return f"The rollout waits at the gate after wave {wave}: {verb.format('promote')} opens the gate."
    return ""
