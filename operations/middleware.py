"""Logs and counts each request, and answers the probes before anything else."""

import logging
import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase

from operations import health
from operations.measures import count_request
from rollout.logs import ACCESS, noting_position

logger = logging.getLogger(ACCESS)

#: Used instead of the path if no route matches: paths are unlimited, and may contain anything.
UNMATCHED = "unmatched"


class AccessMiddleware:
    """The outermost middleware: it also sees refused requests. It writes the route template, never a path or a query."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        began = time.perf_counter()
        with noting_position():
            response = self._get_response(request)
            seconds = time.perf_counter() - began
            _note(request, response.status_code, seconds)
        return response


def _note(request: HttpRequest, status: int, seconds: float) -> None:
    method, route = request.method or "", _route(request)
    count_request(method=method, route=route, status=status, seconds=seconds)
    logger.info(
        "%s %s %s %.3f s",
        method,
        route,
        status,
        seconds,
        extra={
            "method": method,
            "route": route,
            "status": status,
            "seconds": round(seconds, 6),
            "request_id": request.META.get("HTTP_X_REQUEST_ID", ""),
            "actor": request.META.get("modfleet.actor", ""),
            **_subject(request, route),
        },
    )


def _route(request: HttpRequest) -> str:
    if request.path in health.PATHS:
        return request.path
    match = request.resolver_match
    return UNMATCHED if match is None else f"/{match.route}"


def _subject(request: HttpRequest, route: str) -> dict[str, str]:
    """Return the rollout and the node of the request, from its route."""
    named = {} if request.resolver_match is None else request.resolver_match.kwargs
    if route.startswith("/v2/rollouts/"):
        return {"rollout": str(named.get("uid", "")), "node": str(named.get("name", ""))}
    if route.startswith("/v2/nodes/"):
        return {"node": str(named.get("name", ""))}
    return {}


class ProbeMiddleware:
    """Answers the probes before sessions read the database, and before host names and HTTPS are checked."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        answer = health.PATHS.get(request.path)
        return self._get_response(request) if answer is None else answer(request)
