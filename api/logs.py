"""Adds the request's id to each log line."""

import logging

from django.http import HttpRequest

from eventstore import current_request


class RequestIdFilter(logging.Filter):
    """Sets `request_id` of each record: `-` outside of a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        given = getattr(record, "request_id", "")  # for a line that is written after the request's context has ended
        record.request_id = given or current_request() or _id_of(getattr(record, "request", None)) or "-"
        return True


def _id_of(request: HttpRequest | None) -> str:
    """Return the id from the record's request: Django logs a 4xx answer after the middleware's context has ended."""
    return request.META.get("HTTP_X_REQUEST_ID", "") if isinstance(request, HttpRequest) else ""
