"""What every request needs: an id, an actor, a body within limits, an answer with its length."""

import re
import uuid
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.http.response import HttpResponse

from api.body import ENVELOPE_BYTES, BodyStream
from api.errors import InvalidRequestError
from api.handlers import error_response
from eventstore import ANONYMOUS, acting_as, current_actor, give_connection_back, is_person, shown

_SANE_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class ApiMiddleware:
    """Refuses requests that no view should get, and completes the answers to all others."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request_id = _request_id(request)
        request.META["HTTP_X_REQUEST_ID"] = request_id
        body = _replace_body(request)
        with acting_as(ANONYMOUS, correlation_id=request_id):
            if _has_nul(request):  # each database refuses it in a string in its own way
                response: HttpResponseBase = error_response(
                    InvalidRequestError("A path or query must not contain NUL.")
                )
            else:
                response = self._get_response(request)
            request.META["modfleet.actor"] = _person()
        body.release()
        if body.refusal is not None:
            response.close()
            response = error_response(body.refusal)
        give_connection_back()  # the client may be slow to read the answer
        response["X-Request-ID"] = request_id
        if isinstance(response, HttpResponse) and not response.has_header("Content-Length"):
            response["Content-Length"] = str(len(response.content))
        return response


def _person() -> str:
    """Return the user whose credentials were verified, for the outer middleware. Empty without credentials."""
    actor = current_actor()
    return shown(actor) if is_person(actor) else ""


def _request_id(request: HttpRequest) -> str:
    given = request.headers.get("X-Request-ID", "")
    return given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex


def _replace_body(request: HttpRequest) -> BodyStream:
    """Replace Django's stream, which treats a chunked body as empty.

    A chunked body gets the largest length that a body may have: its reader finds the end earlier.
    """
    if "chunked" in request.headers.get("Transfer-Encoding", "").lower():
        request.META["CONTENT_LENGTH"] = str(settings.ENVIRONMENT.max_upload_bytes + ENVELOPE_BYTES)
    try:
        length = max(0, int(request.META.get("CONTENT_LENGTH") or 0))
    except ValueError:
        length = 0
    # The client may be slow to send it: until then the thread needs no database connection.
    body = BodyStream(request.META["wsgi.input"], length, before=give_connection_back)
    request._stream = body  # type: ignore[assignment]  # noqa: SLF001  # there is no public way to replace it
    return body


def _has_nul(request: HttpRequest) -> bool:
    return "\x00" in request.path or "%00" in request.META.get("QUERY_STRING", "")
