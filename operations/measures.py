"""Metrics that this process counts since its start: requests, and appends to the log."""

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from eventstore import Appended
from rollout.logs import note_position

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_APPEND_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_requests = Counter(
    "modfleet_http_requests_total",
    "HTTP requests that this process has answered, by route template.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
_request_seconds = Histogram(
    "modfleet_http_request_duration_seconds",
    "Seconds until the answer began, also of requests that wait for a change (?wait=) or stream.",
    ["method", "route"],
    buckets=_REQUEST_SECONDS,
    registry=REGISTRY,
)
_append_seconds = Histogram(
    "modfleet_append_duration_seconds",
    "Seconds of an append to the log: from the wait for the lock to the commit.",
    buckets=_APPEND_SECONDS,
    registry=REGISTRY,
)
_projection_seconds = Histogram(
    "modfleet_projection_duration_seconds",
    "Seconds in which an append writes the read models.",
    buckets=_APPEND_SECONDS,
    registry=REGISTRY,
)
_appended = Counter("modfleet_appended_events_total", "Events that this process has appended.", registry=REGISTRY)


def count_request(*, method: str, route: str, status: int, seconds: float) -> None:
    known = method if method in METHODS else "other"
    _requests.labels(known, route, str(status)).inc()
    _request_seconds.labels(known, route).observe(seconds)


def count_append(appended: Appended) -> None:
    """Count an append. It is an observer of the log."""
    _append_seconds.observe(appended.seconds)
    _projection_seconds.observe(appended.projection_seconds)
    _appended.inc(appended.events)
    note_position(appended.position)
