"""The probes. `/livez` and `/healthz`: this process answers. `/readyz`: what it needs answers, or one word why not.

They are public, so they must not load the database: an answer is kept for a second, and each check runs once at a time.
A check that takes too long is not waited for, and not started again.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from django.core.files.storage import default_storage
from django.db import Error, connection
from django.http import HttpRequest, HttpResponse, JsonResponse

from api.failures import Cause, database_cause, disk_cause
from artifacts_app.selectors import newest_storage_key
from artifacts_app.storage import probe_spool
from eventstore import database_now, head, leave_the_pool, upgrades
from operations import broker
from operations.relay_heartbeat import probe_write, relay_heartbeat

logger = logging.getLogger(__name__)

#: How long an answer is kept, and how long a request waits for a check, seconds.
KEPT_SECONDS = 1.0
CHECK_SECONDS = 2.0
#: A relay runs each second. It is stuck if it has not run for so long, seconds.
RELAY_LATE_SECONDS = 30.0
NO_ANSWER = "no_answer"


class NotReadyError(Exception):
    """The problem, for the log, and one public word for it."""

    def __init__(self, message: str, *, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


class Check:
    """Checks if a component answers. Threads may share one object."""

    def __init__(self, name: str, probe: Callable[[], str | None]) -> None:
        self.name = name
        #: A warning of the newest probe that has succeeded.
        self.warning: str | None = None
        self._probe = probe
        self._lock = threading.Lock()
        self._cause = NO_ANSWER
        self._ended_at = float("-inf")
        self._running: threading.Thread | None = None

    def start(self) -> None:
        """Start the check, unless its last result is new enough, or it still runs."""
        with self._lock:
            if self._running is None and time.monotonic() - self._ended_at > KEPT_SECONDS:
                self._running = threading.Thread(target=self._run, name=f"check-{self.name}", daemon=True)
                self._running.start()

    def cause(self, *, until: float) -> str:
        """Return why the component is not ready, in one word. Empty if it is ready.

        Waits for a running check until `until`, on the monotonic clock. A check that takes longer is not ready.
        """
        with self._lock:
            running = self._running
        if running is not None:
            running.join(max(0.0, until - time.monotonic()))
        with self._lock:
            return self._cause if self._running is None else NO_ANSWER

    def _run(self) -> None:
        cause = ""
        try:
            leave_the_pool()
            self.warning = self._probe()
        except Exception as error:  # noqa: BLE001  # any error means that the component is not ready
            cause = _cause(error)
            if cause != self._cause or self._ended_at < 0:  # log it once, not at each probe
                logger.warning("%s is not ready: %s: %s", self.name, type(error).__name__, error)
        finally:
            connection.close()
            with self._lock:
                self._cause, self._ended_at, self._running = cause, time.monotonic(), None


def _cause(error: Exception) -> str:
    if isinstance(error, NotReadyError):
        return error.cause
    if isinstance(error, Error):
        return database_cause(error) or "error"
    return disk_cause(error)


def probe_database() -> str | None:
    """Check that the database can be read and written. Return a warning while projections wait for their rebuild.

    The process is ready even then: the log and its decisions are right. Otherwise one forgotten command would take all
    processes out of service.
    """
    head()
    probe_write()
    return upgrades.warning() or None


def probe_broker() -> None:
    """Check that the broker answers."""
    try:
        broker.ping()
    except broker.BrokerAwayError as error:
        raise NotReadyError(str(error), cause="untrusted" if error.is_untrusted else Cause.UNREACHABLE) from error


def probe_storage() -> None:
    """Check that the newest package is in the storage, and that there is space for an upload."""
    key = newest_storage_key()
    if not default_storage.exists(key or "readyz") and key is not None:
        raise NotReadyError("the newest package is not in the storage", cause="missing")
    probe_spool()


def probe_relay() -> None:
    heartbeat = relay_heartbeat()
    if heartbeat is None:
        raise NotReadyError("no relay has ever run", cause="never")
    late = (database_now() - heartbeat.looked_at).total_seconds()
    if late > RELAY_LATE_SECONDS:
        raise NotReadyError(f"no relay has run for {late:.0f} s", cause="late")


CHECKS = (
    Check("database", probe_database),
    Check("broker", probe_broker),
    Check("storage", probe_storage),
    Check("relay", probe_relay),
)


def livez(request: HttpRequest) -> HttpResponse:
    return _refusal(request) or _answer({"status": "ok"}, 200)


def readyz(request: HttpRequest) -> HttpResponse:
    if (refusal := _refusal(request)) is not None:
        return refusal
    for check in CHECKS:
        check.start()
    until = time.monotonic() + CHECK_SECONDS
    causes = {check.name: check.cause(until=until) for check in CHECKS}
    is_ready = not any(causes.values())
    document: dict[str, object] = {
        "status": _word(is_ready),
        "checks": {name: _word(not cause) for name, cause in causes.items()},
        "causes": {name: cause for name, cause in causes.items() if cause},
    }
    if warnings := [check.warning for check in CHECKS if not causes[check.name] and check.warning]:
        document["warnings"] = warnings
    return _answer(document, 200 if is_ready else 503)


def _word(is_ok: bool) -> str:
    return "ok" if is_ok else "not ok"


def _refusal(request: HttpRequest) -> HttpResponse | None:
    if request.method in {"GET", "HEAD"}:
        return None
    document = {"error_code": "method_not_allowed", "description": "Only GET and HEAD are allowed."}
    response = _answer(document, 405)
    response["Allow"] = "GET, HEAD"
    return response


def _answer(document: Mapping[str, object], status: int) -> HttpResponse:
    response = JsonResponse(document, status=status, headers={"Cache-Control": "no-store"})
    response["Content-Length"] = str(len(response.content))
    return response


PATHS: dict[str, Callable[[HttpRequest], HttpResponse]] = {"/livez": livez, "/healthz": livez, "/readyz": readyz}
