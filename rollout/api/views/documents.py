"""A rollout's document: now, in the past, or after its next change."""

import json
import time
from typing import Literal

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request

from api.errors import InvalidRequestError
from api.waiting import waiting
from eventstore import is_ending, wait_for_news
from rollout.domain.rollout.events import FINAL_ROLLOUT_PHASES
from rollout.queries.as_of import position_of, rollout_as_of
from rollout.queries.rollouts import newest_positions, rollout_document

LONGEST_WAIT_SECONDS = 60.0

WAIT = OpenApiParameter(
    "wait", {"type": "number", "minimum": 0, "maximum": 60}, description="Seconds to wait for a change, at most 60"
)

AS_OF = OpenApiParameter(
    "as_of",
    {"oneOf": [{"type": "integer", "minimum": 0, "maximum": 10**18 - 1}, {"type": "string", "format": "date-time"}]},
    description="A position of the log, or a time: return the state at that moment",
)

_HEADER: Literal["header"] = "header"
LOCATION = OpenApiParameter("Location", str, _HEADER, response=[202], required=True, description="The URL to poll")
ETAG = OpenApiParameter("ETag", str, _HEADER, response=[200, 304], required=True, description="Identifies this state")
IF_NONE_MATCH = OpenApiParameter("If-None-Match", str, _HEADER, description="The ETag that the client has")
LAST_EVENT_ID = OpenApiParameter(
    "Last-Event-ID", {"type": "string", "pattern": "^[0-9]{0,18}$"}, _HEADER, description="The position to resume after"
)


def as_of(request: Request) -> int | None:
    """Return the position of `as_of`, None for now. Raises: `InvalidRequestError`."""
    text = request.query_params.get("as_of")
    if text is None:
        return None
    if "wait" in request.query_params:
        raise InvalidRequestError("as_of: cannot be combined with wait, because the past does not change.")
    return position_of(text)


def former_rollout(request: Request, uid: str, position: int) -> HttpResponse:
    former = rollout_as_of(uid, position)
    return _document(json.dumps(former.document), f'"{former.position}"', _etags(request))


def current_rollout(request: Request, uid: str) -> HttpResponse:
    """Return the document. Wait up to `wait` seconds until it differs from the client's ETag.

    A process that is about to end does not wait: the client asks again, and another process answers.
    """
    given = _etags(request)
    deadline = time.monotonic() + _wait_seconds(request)
    known = given - {"*"}
    while True:
        document, version, phase = rollout_document(uid)
        etag = f'"{version}"'
        known = known or {etag}
        left = deadline - time.monotonic()
        if etag not in known or phase in FINAL_ROLLOUT_PHASES or left <= 0 or is_ending():
            break
        with waiting():
            wait_for_news(uid, after=version, newest=newest_positions, timeout=left, ends_early=True)
    return _document(document, etag, given)


def _document(text: str, etag: str, given: set[str]) -> HttpResponse:
    """Return the document, or 304 for a client that has it."""
    if not given.isdisjoint({etag, "*"}):
        return HttpResponse(status=304, headers={"ETag": etag})
    return HttpResponse(text, content_type="application/json", headers={"ETag": etag})


def _etags(request: Request) -> set[str]:
    """Return the ETags of `If-None-Match`, `*` for any. Proxies that compress mark them as weak."""
    given = request.headers.get("If-None-Match", "").split(",")
    return {each.strip().removeprefix("W/") for each in given if each.strip()}


def _wait_seconds(request: Request) -> float:
    text = request.query_params.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT_SECONDS:
        raise InvalidRequestError(f"wait: must be a number of seconds from 0 to {LONGEST_WAIT_SECONDS:.0f}.")
    return seconds
