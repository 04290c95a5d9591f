"""Turns exceptions into answers. No other module does."""

import logging
import math
import sys
from collections.abc import Iterator
from typing import Any

from django.core.exceptions import DisallowedHost, PermissionDenied
from django.db import Error
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, UnreadablePostError
from django.template.loader import get_template
from django.views import defaults
from rest_framework import exceptions
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from api.errors import (
    ApiError,
    ConflictError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    PermissionDeniedError,
    TooManyRequestsError,
    UnauthenticatedError,
    UnsupportedMediaTypeError,
)
from api.failures import database_refusal
from api.statuses import headers_of, status_of
from eventstore import ConcurrencyError

logger = logging.getLogger(__name__)


def handle_exception(exception: Exception, context: dict[str, Any]) -> Response | None:
    """Return the answer to an exception in a view: always JSON.

    Returns None for an unexpected exception: Django then logs it and calls `handle_500`.
    """
    if (request := context.get("request")) is not None:
        # A page's template would read the user, and so check the refused credentials again.
        request.accepted_renderer, request.accepted_media_type = JSONRenderer(), JSONRenderer.media_type
    match exception:
        case ApiError():
            error = exception
        case Http404():
            error = NotFoundError()
        case PermissionDenied():
            error = PermissionDeniedError()
        case ConcurrencyError():
            error = ConflictError()
        case UnreadablePostError():
            error = InvalidRequestError("The body is shorter than its Content-Length.")
        case exceptions.ValidationError():
            error = InvalidRequestError("; ".join(_in_words(exception.detail)))
        case exceptions.APIException():
            return _answer_of_framework(exception)
        case Error() if (refusal := database_refusal(exception)) is not None:
            logger.warning("the database cannot be used: %s", " ".join(str(exception).split()))
            error = refusal
        case _:
            return None
    return Response(_body(error.code, error.description), status=status_of(error), headers=headers_of(error))


def error_response(error: ApiError) -> HttpResponse:
    """Return the answer to an error outside of any view."""
    return JsonResponse(_body(error.code, error.description), status=status_of(error), headers=headers_of(error))


_FRAMEWORK_CODES = {
    int(status_of(each)): each.code
    for each in (
        InvalidRequestError,
        UnauthenticatedError,
        PermissionDeniedError,
        NotFoundError,
        MethodNotAllowedError,
        UnsupportedMediaTypeError,
        TooManyRequestsError,
    )
}


def _answer_of_framework(exception: exceptions.APIException) -> Response:
    headers = {}
    if challenge := getattr(exception, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if seconds := getattr(exception, "wait", None):
        headers["Retry-After"] = str(math.ceil(seconds))
    code = _FRAMEWORK_CODES.get(exception.status_code, InvalidRequestError.code)
    return Response(_body(code, "; ".join(_in_words(exception.detail))), status=exception.status_code, headers=headers)


def _in_words(detail: Any, path: str = "") -> Iterator[str]:
    """Return DRF's nested messages in one list, each with its field: `commands[0].flags: Not a list.`"""
    match detail:
        case dict():
            for name, inner in detail.items():
                if name == "non_field_errors":
                    yield from _in_words(inner, path)
                else:
                    yield from _in_words(inner, f"{path}.{name}" if path else str(name))
        case list() if any(isinstance(each, dict | list) for each in detail):
            for index, inner in enumerate(detail):
                yield from _in_words(inner, f"{path}[{index}]")
        case list():
            for message in detail:
                yield from _in_words(message, path)
        case _:
            yield f"{path}: {detail}" if path else str(detail)


def _body(code: str, description: str) -> dict[str, str]:
    return {"error_code": code, "description": description}


def _is_for_people(request: HttpRequest) -> bool:
    """Return True for the admin site: only it answers with HTML."""
    return request.path.startswith("/admin/")


def _page(error: ApiError) -> HttpResponse:
    """Return a page without the frame of the other pages, which reads the database."""
    page = get_template("unavailable.html").render({"description": error.description})
    return HttpResponse(page, status=status_of(error), headers=headers_of(error))


def handle_400(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer a request that Django refuses before any view: a wrong host name, or a body over the limit."""
    if _is_for_people(request):
        return defaults.bad_request(request, exception)
    if isinstance(exception, DisallowedHost):
        return error_response(InvalidRequestError("The Host header has a host that is not in MODFLEET_ALLOWED_HOSTS."))
    return error_response(InvalidRequestError())


def handle_403(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    if _is_for_people(request):
        return defaults.permission_denied(request, exception)
    return error_response(PermissionDeniedError())


def handle_404(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    if _is_for_people(request):
        return defaults.page_not_found(request, exception)
    return error_response(NotFoundError("There is nothing at this path."))


def handle_500(request: HttpRequest) -> HttpResponseBase:
    """Answer 500. Django has logged the exception, with the request's id."""
    refusal = database_refusal(sys.exc_info()[1])
    if _is_for_people(request):
        return defaults.server_error(request) if refusal is None else _page(refusal)
    if refusal is not None:
        return error_response(refusal)
    return error_response(ApiError("An unexpected error. The log has it, with this X-Request-ID."))
