"""Each event of a rollout in words. Timeline, report, `why` and command line use these words, so that they agree."""

from typing import Any

from rollout.domain.placement.events import (
    OperationCancelRequested,
    OperationFinished,
    OperationGivenBack,
    OperationProgressed,
    OperationReleased,
    OperationReportedLate,
    OperationWaiting,
    ReportRejected,
)
from rollout.domain.rollout.events import (
    AbortRequested,
    NodesRetried,
    OneWayFound,
    OneWayPromoted,
    ProgressDeadlineExtended,
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
from rollout.domain.words import capitalized, counted, plain, some_of, with_cause
from rollout.messages import Reason

#: What happened, for a sentence about who did it: "paused by the user alice".
DONE: dict[type, str] = {
    RolloutApproved: "approved",
    RolloutRejected: "rejected",
    RolloutPaused: "paused",
    RolloutResumed: "resumed",
    WavePassed: "promoted",
    NodesRetried: "retried",
    AbortRequested: "aborted",
    RollbackRequested: "rollback requested",
    RolloutFinished: "ended",
    OperationCancelRequested: "cancel requested",
    OperationFinished: "canceled",
}


def sentence_of(event: Any) -> tuple[str, str]:
    """Return what happened, and details or an empty string. Neither has a full stop of its own."""
    match event:
        case RolloutStarted():
            waves = f"waves of {', '.join(map(str, event.waves)) or 'none'}"
            return f"Created for {counted(event.total, 'node')}", left_unchanged_sentence(event.left_alone) or waves
        case RolloutApproved() | RolloutRejected():
            return capitalized(DONE[type(event)]), event.remark
        case WaveStarted():
            return f"Wave {event.wave} started", ""
        case WaveSoaking():
            return f"Wave {event.wave} is soaking", f"until {event.until:%H:%M:%S} UTC"
        case WaveGated():
            return f"Wave {event.wave} waits at the gate", "a person must promote the rollout"
        case OneWayFound():
            return f"{event.node} has shown that there may be no way back", event.way_back.message
        case OneWayPromoted():
            return "Promoted without a way back", ""
        case WavePassed():
            return f"Wave {event.wave} passed", ""
        case WaveFailed():
            return f"Wave {event.wave} failed", event.message
        case ProgressDeadlineExtended():
            return "Progress deadline started again", f"the rollout waits for {event.message}"
        case RolloutPaused() | RollbackRequested():
            return capitalized(DONE[type(event)]), event.message
        case AbortRequested():
            return "Abort requested", event.message
        case RolloutResumed():
            return "Resumed", ""
        case RollbackStarted():
            return f"Rollback of {some_of(event.nodes) or 'no node'} started", left_unchanged_sentence(event.left_alone)
        case RolloutFollowed(is_rollback=True):
            return f"Rollback started as rollout {event.follower[:8]}", ""
        case RolloutFollowed(is_failback=True):
            return f"Failback started as rollout {event.follower[:8]}", ""
        case RolloutFollowed():
            return f"Failed nodes retried in rollout {event.follower[:8]}", ""
        case NodesRetried():
            return f"{some_of(event.nodes)} retried", "automatically" if event.automatic else ""
        case RolloutFinished():
            return f"Ended: {plain(event.phase)}", event.message
        case _:
            return _sentence_of_operation(event)


def _sentence_of_operation(event: Any) -> tuple[str, str]:
    match event:
        case OperationReleased():
            return f"Operation queued for {event.node}", ""
        case OperationCancelRequested():
            return f"Cancel requested on {event.node}", ""
        case OperationWaiting():
            return f"{event.node} waits: {plain(event.reason)}", event.message
        case OperationGivenBack(reason=Reason() as reason):
            return f"{event.node} returned its operation: {plain(reason)}", event.message
        case OperationGivenBack():
            return f"{event.node} went offline before it started", "its operation is released again when it is online"
        case OperationProgressed():
            return f"{event.node} is {plain(event.phase)}", with_cause(plain(event.reason or ""), event.message)
        case OperationFinished():
            seconds = f" in {event.seconds:.2f} s" if event.seconds is not None else ""
            return f"{event.node} {plain(event.phase)}{seconds}", with_cause(plain(event.reason or ""), event.message)
        case OperationReportedLate():
            return f"{event.node} reported late: {plain(event.phase)}", event.message
        case ReportRejected():
            return f"Report of {event.node} rejected", event.why
        case _:
            return type(event).__name__, ""
