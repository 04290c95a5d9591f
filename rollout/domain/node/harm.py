"""Judges by the facts of a heartbeat if a server was harmed after a module was loaded successfully."""

from collections.abc import Mapping, Sequence
from typing import Any

#: The fields of `messages.ServerState` that are judged.
JUDGED = ("run_id", "crash", "link_down_seconds", "unexpected_error_replies")
#: A replica whose link is down for longer is harmed, seconds.
LINK_SECONDS = 5
#: Two restarts within so many seconds are a crash.
CRASH_SECONDS = 60


def is_suspect(facts: Mapping[str, Any], restarts: Sequence[float]) -> bool:
    """Return True if `harm_since` may find something in the facts, whatever the operation."""
    return bool(
        facts.get("crash")
        or _is_link_down(facts)
        or facts.get("unexpected_error_replies")
        or _is_restarted_twice(restarts)
    )


def harm_since(health: Mapping[str, Any], facts: Mapping[str, Any], restarts: Sequence[float]) -> str:
    """Return as a sentence how the server was harmed since the operation; empty if it was not, or if that is not known.

    `health` is the `messages.ServerHealth` of the operation. `restarts`: when the server was restarted, Unix time, the
    newest last. One restart alone is no harm.
    """
    is_same = health["run_id"] == facts["run_id"]
    if not health["run_id"]:
        return ""
    if not is_same and facts.get("crash"):
        return f"Its server has crashed since: {facts['crash']}"
    if not is_same and _is_restarted_twice(restarts):
        return f"Its server was restarted twice within {CRASH_SECONDS} s since."
    before = health["unexpected_error_replies"] if is_same else 0
    now = facts.get("unexpected_error_replies") or 0
    if before is not None and now < before:
        before = 0  # CONFIG RESETSTAT
    if before is not None and now > before:
        return (
            f"Its server has answered {now - before} commands of its master with an error since, and lost these writes."
        )
    if _is_link_down(facts):
        return f"The link of its server to the master is down for {facts['link_down_seconds']} s."
    return ""


def is_restarted_since(health: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Return True if the server is known to be another process than after the operation."""
    return bool(health["run_id"] and facts["run_id"]) and health["run_id"] != facts["run_id"]


def _is_restarted_twice(restarts: Sequence[float]) -> bool:
    return len(restarts) > 1 and restarts[-1] - restarts[-2] <= CRASH_SECONDS


def _is_link_down(facts: Mapping[str, Any]) -> bool:
    return (facts.get("link_down_seconds") or 0) > LINK_SECONDS
