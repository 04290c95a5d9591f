"""A rollout's timeline: one sentence for each event."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from eventstore import RecordedEvent, is_person
from rollout.domain.placement.events import OperationCancelRequested, OperationFinished, OperationScheduled
from rollout.domain.rollout.events import (
    AbortRequested,
    NodesReleased,
    NodesRetried,
    OneWayFound,
    OneWayPromoted,
    RollbackRequested,
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
)
from rollout.domain.sentences import sentence_of
from rollout.messages import Phase

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
    text, more = sentence_of(envelope.event)
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
        case WavePassed() | OneWayPromoted():
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
        case WaveGated() | OneWayFound() | WaveSoaking() | RolloutPaused():
            return "wait"
        case _ if _is_requested(event):
            return "person"
        case _:
            return ""
