"""A rollout's events as server-sent events, while they happen."""

import json
import time
from collections.abc import Iterator

from rest_framework.request import Request

from api.errors import InvalidRequestError
from eventstore import RecordedEvent, give_connection_back, head, watcher
from rollout import selectors
from rollout.errors import RolloutNotFoundError
from rollout.events import FINAL_ROLLOUT_PHASES

#: How often a stream speaks up on which nothing happens, seconds: proxies keep it open then, and a client that has gone
#: away is noticed, which holds a thread of the server until then.
HEARTBEAT_SECONDS = 2.0
STREAM_BATCH = 500
#: With this id a browser's EventSource comes again for the story from its beginning.
RESTORED = "id: 0\nevent: log.restored\ndata: {}\n\n"


def position_after(request: Request) -> int:
    """After which position of the log the client wants to go on. Raises: `InvalidRequestError`."""
    after = request.headers.get("Last-Event-ID") or request.query_params.get("after", "0")
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        raise InvalidRequestError("Last-Event-ID: must be a position of the log.")
    return int(after)


def is_over(uid: str, after: int) -> bool:
    """Whether nothing comes after this position any more. Raises: `RolloutNotFoundError`."""
    _, newest, phase = selectors.rollout_document(uid)
    return phase in FINAL_ROLLOUT_PHASES and newest <= after <= head()


def story(uid: str, after: int) -> Iterator[str]:
    """The rollout's events after a position, as they come; ends with the rollout. Reads them only when there are new
    ones; asks nothing while others are busy; and speaks up when it had nothing to say for a while.

    If the log was restored to an earlier position, the last event is `RESTORED`: the client begins anew."""
    spoke_at = time.monotonic()
    while True:
        try:
            _, newest, phase = selectors.rollout_document(uid)
        except RolloutNotFoundError:  # it was there when the stream began
            yield RESTORED
            return
        if newest <= after and after > head():
            yield RESTORED
            return
        while after < newest and (batch := selectors.rollout_events(uid, after=after, limit=STREAM_BATCH)):
            after = batch[-1].position
            give_connection_back()  # the client may take long to read them
            yield "".join(_sse(each) for each in batch)
            spoke_at = time.monotonic()
        if phase in FINAL_ROLLOUT_PHASES:
            return
        with watcher.waiter(uid, newest, selectors.newest_positions) as waiter:
            has_news = False
            while not has_news:
                has_news = waiter.wait(max(0.0, spoke_at + HEARTBEAT_SECONDS - time.monotonic()))
                if time.monotonic() >= spoke_at + HEARTBEAT_SECONDS:
                    spoke_at = time.monotonic()
                    yield ": nothing new\n\n"


def _sse(recorded: RecordedEvent) -> str:
    return (
        f"id: {recorded.position}\nevent: {recorded.type}\ndata: {json.dumps(selectors.event_document(recorded))}\n\n"
    )
