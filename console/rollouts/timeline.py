"""A rollout's timeline: one sentence for each event."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from eventstore import RecordedEvent, is_person
from rollout.domain.placement.events import (
    OperationCancelRequested,
    OperationFinished,
    OperationGivenBack,
    OperationProgressed,
    OperationReleased,
    OperationReportedLate,
    OperationScheduled,
    ReportRejected,
)
from rollout.domain.rollout.events import (
    AbortRequested,
    NodesReleased,
    NodesRetried,
    RollbackRequested,
    RollbackStarted,
    RolloutApproved,
    RolloutFinished,
    RolloutFollowed,
    RolloutPaused,
    RolloutRejected,
    RolloutResumed,
    RolloutStarted,
    WaveFailed,
    WaveGated,
    WavePassed,
    WaveSoaking,
    WaveStarted,
)
from rollout.domain.rollout.rollback import left_unchanged_sentence
from rollout.messages import Phase

#: How many nodes a sentence names.
NAMED = 5
_BAD = frozenset({Phase.FAILED, Phase.TIMED_OUT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """`tone` is `good`, `bad`, `wait`, `person` or empty; `actor` is the person who requested it, or empty."""

    position: int
    moment: datetime
    text: str
    more: str
    tone: str
    actor: str


def timeline_of(events: Iterable[RecordedEvent]) -> list[Entry]:
    """Return an entry for each event, in order, without events that only queue operations."""
    return [_entry(each) for each in events if not isinstance(each.event, OperationScheduled | NodesReleased)]


def _entry(envelope: RecordedEvent) -> Entry:
    text, more = _words(envelope.event)
    return Entry(
        position=envelope.position,
        moment=envelope.recorded_at,
        text=text,
        more=more,
        tone=_tone(envelope.event),
        actor=envelope.shown_actor if is_person(envelope.actor) and _is_requested(envelope.event) else "",
    )


def _is_requested(event: Any) -> bool:
    match event:
        case RolloutPaused() | AbortRequested() | RollbackRequested():
            return event.reason == "manual"
        case NodesRetried():
            return not event.automatic
        case (
            RolloutFollowed()
            | RolloutStarted()
            | RolloutApproved()
            | RolloutRejected()
            | RolloutResumed()
            | OperationCancelRequested()
        ):
            return True
        case WavePassed():
            return True
        case OperationFinished():
            return event.phase == Phase.CANCELED
        case _:
            return False


def _tone(event: Any) -> str:
    match event:
        case WaveFailed():
            return "bad"
        case OperationFinished() if event.phase in _BAD:
            return "bad"
        case OperationFinished() if event.phase == Phase.SUCCEEDED:
            return "good"
        case RolloutFinished():
            return "good" if event.phase in {"succeeded", "rolled_back"} else "bad"
        case WavePassed():
            return "good"
        case WaveGated() | WaveSoaking() | RolloutPaused():
            return "wait"
        case _ if _is_requested(event):
            return "person"
        case _:
            return ""


def _words(event: Any) -> tuple[str, str]:
    match event:
        case RolloutStarted():
            waves = f"waves of {', '.join(map(str, event.waves)) or 'none'}"
            return f"Started for {_count(event.total)}", left_unchanged_sentence(event.left_alone) or waves
        case RolloutApproved() | RolloutRejected():
            return "Approved" if isinstance(event, RolloutApproved) else "Rejected", event.remark
        case WaveStarted():
            return f"Wave {event.wave} started", ""
        case WaveSoaking():
            return f"Wave {event.wave} is soaking", f"until {event.until:%H:%M:%S} UTC"
        case WaveGated():
            return f"Wave {event.wave} waits at the gate", "a person must promote the rollout"
        case WavePassed():
            return f"Wave {event.wave} passed", ""
        case WaveFailed():
            return f"Wave {event.wave} failed", event.message
        case RolloutPaused():
            return "Paused", event.message
        case RolloutResumed():
            return "Resumed", ""
        case AbortRequested():
            return "Abort requested", event.message
        case RollbackRequested():
            return "Rollback requested", event.message
        case RollbackStarted():
            return f"Rollback of {_names(event.nodes) or 'no node'} started", left_unchanged_sentence(event.left_alone)
        case RolloutFollowed(is_rollback=True):
            return f"Rollback started as rollout {event.follower[:8]}", ""
        case RolloutFollowed():
            return f"Failed nodes retried in rollout {event.follower[:8]}", ""
        case NodesRetried():
            return f"{_names(event.nodes)} retried", "automatically" if event.automatic else ""
        case RolloutFinished():
            return f"Ended: {_plain(event.phase)}", event.message
        case _:
            return _words_of_node(event)


def _words_of_node(event: Any) -> tuple[str, str]:
    match event:
        case OperationReleased():
            return f"Operation released to {event.node}", ""
        case OperationCancelRequested():
            return f"Cancel requested on {event.node}", ""
        case OperationGivenBack():
            return f"{event.node} went offline before it started", "its operation is released again when it is online"
        case OperationProgressed():
            return f"{event.node} is {_plain(event.phase)}", ""
        case OperationFinished():
            seconds = f" in {event.seconds:.2f} s" if event.seconds is not None else ""
            said = ": ".join(filter(None, (_plain(event.reason or ""), event.message)))
            return f"{event.node} {_plain(event.phase)}{seconds}", said
        case OperationReportedLate():
            return f"{event.node} reported late: {_plain(event.phase)}", event.message
        case ReportRejected():
            return f"Report of {event.node} rejected", event.why
        case _:
            return type(event).__name__, ""


def _plain(word: str) -> str:
    return str(word).replace("_", " ")


def _count(total: int) -> str:
    return "1 node" if total == 1 else f"{total} nodes"


def _names(nodes: tuple[str, ...]) -> str:
    more = len(nodes) - NAMED
    return ", ".join(nodes[:NAMED]) + (f" and {more} more" if more > 0 else "")
