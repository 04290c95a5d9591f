"""What stopped a rollout, and what people did, in fields and as a sentence."""

from typing import Any

from api.fields import rfc3339
from eventstore import RecordedEvent, in_words, is_person
from rollout.domain.explanation.rollout import STOPPED
from rollout.domain.explanation.rules import rule_of
from rollout.domain.placement.events import OperationCancelRequested, OperationFinished
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
from rollout.domain.sentences import DONE
from rollout.domain.words import MOST_NAMED, in_utc, some_of, with_cause
from rollout.messages import Phase, Reason

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


def stop_of(recorded: RecordedEvent, before: RolloutState) -> dict[str, Any] | None:
    """Return what stopped the rollout: `by` a user, or else a `rule`. None if the event stops nothing.

    `before`: the rollout's state before the event. An end is a stop only if nothing else has stopped the rollout.
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
        "text": with_cause(f"{DONE[type(event)]} {who} at {in_utc(recorded.recorded_at)}", message),
    }


#: What `action_of` calls an event.
VERBS: dict[type, str] = {
    RolloutApproved: "approve",
    RolloutResumed: "resume",
    WavePassed: "promote",
    NodesRetried: "retry",
    OperationCancelRequested: "cancel",
    OperationFinished: "cancel",
}
ACTION_FIELDS = ("action", "actor", "at", "remark", "nodes", "count", "text")


def action_of(recorded: RecordedEvent, canceled_by: str) -> dict[str, Any] | None:
    """Return what a person did, except stops; or which newer rollout took over a node. None for any other event.

    `canceled_by`: who canceled the operation that the event ends. If a newer rollout takes over a silent node, the actor
    of the event is not a person.
    """
    event = recorded.event
    if type(event) not in VERBS:
        return None
    verb, done = VERBS[type(event)], DONE[type(event)]
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
        "nodes": nodes[:MOST_NAMED],
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
    """Return the actions with one more. The same action on several nodes becomes one."""
    same = ("action", "actor", "at", "remark", "done")
    if not actions or not action["nodes"] or any(actions[-1][name] != action[name] for name in same):
        return [*actions, action]
    last = actions[-1]
    both = {**last, "nodes": [*last["nodes"], *action["nodes"]][:MOST_NAMED], "count": last["count"] + action["count"]}
    return [*actions[:-1], {**both, "text": _in_words(both)}]


def _in_words(action: dict[str, Any]) -> str:
    nodes = f"{some_of(action['nodes'], action['count'])} " if action["nodes"] else ""
    by = f" by {in_words(action['actor'])}" if action["actor"] else ""
    return with_cause(f"{nodes}{action['done']}{by} at {action['when']}", action["remark"])
