"""How each attempt of an operation ended, in fields and as a sentence.

The rows of `Operation.attempts` are never overwritten.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from api.fields import rfc3339
from eventstore import in_words
from rollout.domain.placement.outcomes import NOTHING_TO_DO
from rollout.domain.words import in_utc, plain, with_cause
from rollout.messages import Activation, Phase, Reason
from rollout.models import Operation

#: Phases of an attempt that did not do what it should.
BAD = (Phase.FAILED, Phase.TIMED_OUT)


def outcomes_of(rows: Sequence[Operation]) -> dict[str, list[dict[str, Any]]]:
    """Return the outcomes of each operation and of the attempts before it, in order, by the operation's key.

    At most one query, and none where there was one attempt of each.
    """
    repeated = {(each.rollout, each.node) for each in rows if each.attempt > 1 or each.rollback}
    former = Operation.attempts.filter(
        former=True, rollout__in={rollout for rollout, _ in repeated}, node__in={node for _, node in repeated}
    )
    return outcomes_in(rows, list(former) if repeated else ())


def outcomes_in(rows: Iterable[Operation], former: Iterable[Operation]) -> dict[str, list[dict[str, Any]]]:
    """Return the same, from the former attempts that were read before."""
    before: dict[tuple[str, str], list[Operation]] = {}
    for each in sorted(former, key=lambda each: (each.generation, each.attempt)):
        before.setdefault((each.rollout, each.node), []).append(each)
    return {
        row.key: [outcome(each) for each in (*before.get((row.rollout, row.node), ()), row) if each.finished_at]
        for row in rows
    }


def outcome(row: Operation) -> dict[str, Any]:
    """Return how one attempt ended. `by`: the user who canceled it, or whose newer rollout took over. `late`: the phase that
    the node reported after the end. `text`: all of it as a sentence."""
    at = in_utc(row.finished_at or row.scheduled_at)
    late = f" (the node reported late: {plain(row.late)})" if row.late else ""
    begun = f", {begun_in_words(row)}," if begun_in_words(row) else "" if row.released_at else ","
    by = f"by {in_words(row.canceled_by)} " if row.canceled_by else ""
    ended = f"{attempt_in_words(row)}{begun} {plain(row.phase)} {by}at {at}"
    reason = "" if row.canceled_by and row.reason == Reason.MANUAL else row.reason
    if row.phase == Phase.ROLLED_BACK and row.reason in NOTHING_TO_DO:
        reason = f"nothing to undo: {reason}"
    return {
        "attempt": row.newest_attempt,
        "rollback": row.rollback,
        "action": row.action,
        "version": row.version,
        "content_sha256": row.content_sha256 or None,
        "had": had_by(row),
        "phase": row.phase,
        "reason": row.reason or None,
        "message": row.message,
        "by": row.canceled_by or None,
        "requested_by": row.asked_by,
        "automatic": row.automatic,
        "released_at": rfc3339(row.released_at) if row.released_at else None,
        "at": rfc3339(row.finished_at) if row.finished_at else None,
        "seconds": row.seconds,
        "swap_seconds": row.swap_seconds,
        "health": row.health,
        "restart": row.restart,
        "way_back": row.way_back,
        "late": row.late or None,
        "text": f"{with_cause(ended, reason, row.message)}{late}",
    }


def earlier(outcomes: list[dict[str, Any]], *, has_ended: bool) -> list[dict[str, Any]]:
    """Return the outcomes of the attempts before the newest one."""
    return outcomes[:-1] if has_ended else outcomes


def had_by(row: Operation) -> dict[str, Any] | None:
    """Return the version of the module that the node had when the operation was released: the loaded one, or else the newest
    one on disk. None if there was none, or if it is not known."""
    return max(row.had or (), key=lambda each: (each["activation"] == Activation.LOAD, each["version"]), default=None)


def attempt_in_words(row: Operation) -> str:
    if row.released_at is None:
        what = "undo, " if row.rollback else "retry, " if row.attempt > 1 else ""
        return f"{what}never released"
    if not row.rollback:
        return f"attempt {row.attempt}"
    return "undo" if row.attempt == 1 else f"undo, attempt {row.attempt}"


def begun_in_words(row: Operation) -> str:
    """Return who retried it or requested the undo. Empty for a first attempt, and for rows of an older version."""
    if (row.attempt == 1 and not row.rollback) or not (row.automatic or row.asked_by):
        return ""
    verb = "retried" if row.attempt > 1 else "requested"
    return f"{verb} by {'the strategy' if row.automatic else in_words(row.asked_by)}"
