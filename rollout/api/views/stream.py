"""Streams a rollout's events as server-sent events."""

import json
import time
from collections.abc import Iterator

from rest_framework.request import Request

from api.errors import InvalidRequestError
from api.events import event_document
from eventstore import RecordedEvent, give_connection_back, head, is_ending, watcher
from rollout.domain.errors import RolloutNotFoundError
from rollout.domain.rollout.events import FINAL_ROLLOUT_PHASES
from rollout.queries.rollouts import newest_positions, rollout_document, rollout_events

#: Seconds between two comments on a stream without events. They keep proxies from closing it, and they find a client that
#: has disconnected, which holds a thread of the server until then.
HEARTBEAT_SECONDS = 2.0
STREAM_BATCH = 500
#: With this id a browser's EventSource reconnects from the beginning.
RESTORED = "id: 0\nevent: log.restored\ndata: {}\n\n"


def position_after(request: Request) -> int:
    """Return the position of the log after which the client resumes. Raises: `InvalidRequestError`."""
    after = request.headers.get("Last-Event-ID") or request.query_params.get("after", "0")
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        raise InvalidRequestError("Last-Event-ID: must be a position of the log.")
    return int(after)


def is_over(uid: str, after: int) -> bool:
    """Return True if no event will follow this position. Raises: `RolloutNotFoundError`."""
    _, newest, phase = rollout_document(uid)
    return phase in FINAL_ROLLOUT_PHASES and newest <= after <= head()


def event_stream(uid: str, after: int) -> Iterator[str]:
    """Yield the rollout's events after a position until the rollout ends, or this process is about to. Read the database
    only when there are new events of this rollout, and yield a comment every `HEARTBEAT_SECONDS` otherwise.

    If the log was restored to an earlier position, the last event is `RESTORED`: the client starts again."""
    sent_at = time.monotonic()
    while True:
        try:
            _, newest, phase = rollout_document(uid)
        except RolloutNotFoundError:  # it existed when the stream began
            yield RESTORED
            return
        if newest <= after and after > head():
            yield RESTORED
            return
        while after < newest and (batch := rollout_events(uid, after=after, limit=STREAM_BATCH)):
            after = batch[-1].position
            give_connection_back()  # the client may take long to read them
            yield "".join(_sse(each) for each in batch)
            sent_at = time.monotonic()
        if phase in FINAL_ROLLOUT_PHASES or is_ending():
            return
        with watcher.waiter(uid, newest, newest_positions, ends_early=True) as waiter:
            has_news = False
            while not has_news:
                has_news = waiter.wait(max(0.0, sent_at + HEARTBEAT_SECONDS - time.monotonic()))
                if time.monotonic() >= sent_at + HEARTBEAT_SECONDS:
                    sent_at = time.monotonic()
                    yield ": nothing new\n\n"


def _sse(recorded: RecordedEvent) -> str:
    return f"id: {recorded.position}\nevent: {recorded.type}\ndata: {json.dumps(event_document(recorded))}\n\n"
