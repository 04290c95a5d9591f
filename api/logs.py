"""The id of the request on each line of the log."""

import logging

from django.http import HttpRequest

from eventstore import current_request


class RequestIdFilter(logging.Filter):
    """Gives each record `request_id`: `-` outside of a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        given = getattr(record, "request_id", "")  # of a line that is written when the request's context has ended
        record.request_id = given or current_request() or _id_of(getattr(record, "request", None)) or "-"
        return True


def _id_of(request: HttpRequest | None) -> str:
    """Django logs an answer of 4xx when the middleware, and its context, have ended."""
    return request.META.get("HTTP_X_REQUEST_ID", "") if isinstance(request, HttpRequest) else ""
