"""What became of a rollout: how each attempt ended, what stopped it and what people did, each with a sentence.

Attempts are read from `Operation.attempts`, where nothing overwrites them; stops and actions are read from the events.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from api.fields import rfc3339
from eventstore import RecordedEvent, in_words, is_person
from rollout.domain.explanation.rollout import STOPPED
from rollout.domain.explanation.rules import rule_of
from rollout.domain.explanation.sentences import in_utc
from rollout.domain.placement.events import OperationCancelRequested, OperationFinished
from rollout.domain.placement.outcomes import NOTHING_TO_DO
from rollout.domain.rollout.events import (
    AbortRequested,
    NodesRetried,
    RollbackRequested,
    RolloutApproved,
    RolloutFinished,
    RolloutPaused,
    RolloutRejected,
    RolloutResumed,
    WavePassed,
)
from rollout.domain.rollout.state import RolloutState
from rollout.messages import Activation, Phase, Reason
from rollout.models import Operation, Rollout

#: Phases of an attempt that did not bring about what it was to.
BAD = (Phase.FAILED, Phase.TIMED_OUT)


# --- Attempts ---------------------------------------------------------------------------------------------------------


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
    """How one attempt ended. `by` is the person who canceled it, or whose newer rollout took its place; `late` the phase
    that the node has reported since, and `text` says it in words."""
    at = in_utc(row.finished_at or row.scheduled_at)
    late = f" (the node has answered late: {_plain(row.late)})" if row.late else ""
    begun = f", {begun_in_words(row)}," if begun_in_words(row) else "" if row.released_at else ","
    by = f"by {in_words(row.canceled_by)} " if row.canceled_by else ""
    ended = f"{attempt_in_words(row)}{begun} {_plain(row.phase)} {by}at {at}"
    reason = "" if row.canceled_by and row.reason == Reason.MANUAL else row.reason
    if row.phase == Phase.ROLLED_BACK and row.reason in NOTHING_TO_DO:
        reason = f"nothing was left to undo: {reason}"
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
        "late": row.late or None,
        "text": f"{ended}{_because(reason, row.message)}{late}",
    }


def earlier(outcomes: list[dict[str, Any]], *, has_ended: bool) -> list[dict[str, Any]]:
    """The outcomes of the attempts before the newest one."""
    return outcomes[:-1] if has_ended else outcomes


def had_by(row: Operation) -> dict[str, Any] | None:
    """What the node had of the module when the operation was released: the version that was loaded, or else the newest
    of those whose files were there. None if there was nothing, or if it is not known."""
    return max(row.had or (), key=lambda each: (each["activation"] == Activation.LOAD, each["version"]), default=None)


def attempt_in_words(row: Operation) -> str:
    if row.released_at is None:
        what = "undo, " if row.rollback else "retry, " if row.attempt > 1 else ""
        return f"{what}never released"
    if not row.rollback:
        return f"attempt {row.attempt}"
    return "undo" if row.attempt == 1 else f"undo, attempt {row.attempt}"


def begun_in_words(row: Operation) -> str:
    """Who retried it, or asked for the undo; empty for a first attempt, and if an older version has written the row."""
    if (row.attempt == 1 and not row.rollback) or not (row.automatic or row.asked_by):
        return ""
    verb = "retried" if row.attempt > 1 else "asked for"
    return f"{verb} by {'the strategy' if row.automatic else in_words(row.asked_by)}"


def _because(*words: str) -> str:
    said = ": ".join(filter(None, words))
    return f": {said}" if said else ""


# --- Stops ------------------------------------------------------------------------------------------------------------

_ACTIONS: dict[type, str] = {
    RolloutPaused: "pause",
    AbortRequested: "abort",
    RollbackRequested: "rollback",
    RolloutRejected: "reject",
    RolloutFinished: "end",
}
#: The events that `stop_of` returns a stop for.
STOPS = tuple(_ACTIONS)
STOP_FIELDS = ("action", "by", "rule", "reason", "message", "at", "text")
_DONE = {"pause": "paused", "abort": "aborted", "rollback": "rollback asked for", "reject": "rejected", "end": "ended"}


def stop_of(recorded: RecordedEvent, before: RolloutState) -> dict[str, Any] | None:
    """Return what stopped the rollout: `by` a person, or else a `rule`. None if the event stops nothing.

    `before` is the rollout's state before the event: an end is a stop only where nothing else has stopped it.
    """
    event = recorded.event
    action = _ACTIONS.get(type(event))
    if action is None or (action == "end" and (not event.reason or before.phase in STOPPED)):
        return None
    reason = Reason.MANUAL if isinstance(event, RolloutRejected) else event.reason
    message = event.remark if isinstance(event, RolloutRejected) else event.message
    by = recorded.shown_actor if reason == Reason.MANUAL else ""
    rule = rule_of(reason)
    who = f"by {in_words(by)}" if by else f"by the rule {rule}"
    return {
        "action": action,
        "by": by or None,
        "rule": rule,
        "reason": reason,
        "message": message,
        "at": rfc3339(recorded.recorded_at),
        "text": f"{_DONE[action]} {who} at {in_utc(recorded.recorded_at)}{_because(message)}",
    }


# --- Actions ----------------------------------------------------------------------------------------------------------

#: What `action_of` calls an event, and in words.
VERBS: dict[type, tuple[str, str]] = {
    RolloutApproved: ("approve", "approved"),
    RolloutResumed: ("resume", "resumed"),
    WavePassed: ("promote", "promoted"),
    NodesRetried: ("retry", "retried"),
    OperationCancelRequested: ("cancel", "cancel asked for"),
    OperationFinished: ("cancel", "canceled"),
}
ACTION_FIELDS = ("action", "actor", "at", "remark", "nodes", "count", "text")
#: How many nodes an action names before the others are only counted.
NAMED = 5


def action_of(recorded: RecordedEvent, canceled_by: str) -> dict[str, Any] | None:
    """Return what a person did by the event, beside stopping the rollout; or which newer rollout took over a node. None for
    any other event.

    `canceled_by` is that of the operation, if it ends by the event: a newer rollout may take over only once the node is
    silent, and then no person is the event's actor.
    """
    event = recorded.event
    if type(event) not in VERBS:
        return None
    verb, done = VERBS[type(event)]
    if isinstance(event, OperationFinished):
        if event.phase != Phase.CANCELED or event.reason not in {Reason.MANUAL, Reason.NEWER_ROLLOUT}:
            return None
        if event.reason == Reason.NEWER_ROLLOUT:
            verb, done = "supersede", "taken over"
    if verb != "supersede" and not is_person(recorded.actor):
        return None
    nodes = nodes_of(event)
    action = {
        "action": verb,
        "actor": recorded.shown_actor if is_person(recorded.actor) else canceled_by or None,
        "at": rfc3339(recorded.recorded_at),
        "remark": remark_of(event),
        "nodes": nodes[:NAMED],
        "count": len(nodes),
        "done": f"wave {event.wave} {done}" if isinstance(event, WavePassed) else done,
        "when": in_utc(recorded.recorded_at),
    }
    return {**action, "text": _in_words(action)}


def nodes_of(event: Any) -> list[str]:
    return [event.node] if hasattr(event, "node") else list(getattr(event, "nodes", ()))


def remark_of(event: Any) -> str:
    return getattr(event, "remark", "") or getattr(event, "message", "")


def joined(actions: list[dict[str, Any]], action: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the actions with another one. What was done to many nodes at once is one action."""
    same = ("action", "actor", "at", "remark", "done")
    if not actions or not action["nodes"] or any(actions[-1][name] != action[name] for name in same):
        return [*actions, action]
    last = actions[-1]
    both = {**last, "nodes": [*last["nodes"], *action["nodes"]][:NAMED], "count": last["count"] + action["count"]}
    return [*actions[:-1], {**both, "text": _in_words(both)}]


def _in_words(action: dict[str, Any]) -> str:
    more = action["count"] - len(action["nodes"])
    nodes = f"{', '.join(action['nodes'])}{f' and {more} more' if more else ''} " if action["nodes"] else ""
    by = f" by {in_words(action['actor'])}" if action["actor"] else ""
    return f"{nodes}{action['done']}{by} at {action['when']}{_because(action['remark'])}"


# --- Other rollouts ---------------------------------------------------------------------------------------------------


def besides(row: Rollout) -> Iterator[str]:
    """Sentences about the rollouts that it follows and that follow it, and about the nodes that its rollback left alone."""
    if row.retry_of:
        yield f"It tries the failed nodes of rollout {row.retry_of} again."
    if row.rollback_of:
        yield f"It rolls rollout {row.rollback_of} back."
    for retry in row.retried_by:
        yield f"Rollout {retry} tries its failed nodes again."
    if row.rolled_back_by:
        yield f"Its rollback is rollout {row.rolled_back_by}."
    if row.left_alone.get("count"):
        yield row.left_alone["text"]


def _plain(word: str) -> str:
    return word.replace("_", " ")
