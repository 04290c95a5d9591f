"""`/livez`, or `/healthz`: this process answers. `/readyz`: what it needs does, or a word for why not. No more, for anybody.

Nobody can load the database by asking: an answer is kept for a second, and of each check one runs at a time. A check
that takes too long is not waited for, and none is started beside it.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from django.core.files.storage import default_storage
from django.db import Error, connection
from django.http import HttpRequest, HttpResponse, JsonResponse

from api.failures import database_cause, disk_cause
from artifacts_app.selectors import newest_storage_key
from artifacts_app.storage import probe_spool
from eventstore import database_now, head, leave_the_pool, upgrades
from operations import broker
from operations.relay_heartbeat import probe_write, relay_heartbeat

logger = logging.getLogger(__name__)

#: How long an answer is kept, and a check is waited for, seconds.
KEPT_SECONDS = 1.0
CHECK_SECONDS = 2.0
#: A relay has a look at everything each second; one that had none for so long is stuck, seconds.
RELAY_LATE_SECONDS = 30.0
NO_ANSWER = "no_answer"


class NotReadyError(Exception):
    """What is wrong, for the log, and the word for it that anybody may see."""

    def __init__(self, message: str, *, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


class Check:
    """Whether a component answers. Threads may ask at once."""

    def __init__(self, name: str, probe: Callable[[], str | None]) -> None:
        self.name = name
        #: What the newest probe has to say though all is well.
        self.warning: str | None = None
        self._probe = probe
        self._lock = threading.Lock()
        self._cause = NO_ANSWER
        self._ended_at = float("-inf")
        self._running: threading.Thread | None = None

    def start(self) -> None:
        """Unless what is known is new enough, or the check still runs."""
        with self._lock:
            if self._running is None and time.monotonic() - self._ended_at > KEPT_SECONDS:
                self._running = threading.Thread(target=self._run, name=f"check-{self.name}", daemon=True)
                self._running.start()

    def cause(self, *, until: float) -> str:
        """Why the component is not well, in a word; empty if it is.

        Waits for a check that runs, up to a moment of the monotonic clock; one that is late is not well.
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
        except Exception as error:  # noqa: BLE001  # whatever it is: the component does not answer as it should
            cause = _cause(error)
            if not self._cause or self._ended_at < 0:  # once, and not at each probe
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
    """It can be read, and written too. Returns a warning while rows wait for their rebuild.

    The process is ready all the same: the log and its decisions are right, and all processes would be taken out of
    service at once by one forgotten command.
    """
    head()
    probe_write()
    return upgrades.warning() or None


def probe_storage() -> None:
    """The package that was uploaded last is there, and there is room for another one."""
    key = newest_storage_key()
    if not default_storage.exists(key or "readyz") and key is not None:
        raise NotReadyError("the newest package is not in the storage", cause="missing")
    probe_spool()


def probe_relay() -> None:
    heartbeat = relay_heartbeat()
    if heartbeat is None:
        raise NotReadyError("no relay has ever been at work", cause="never")
    late = (database_now() - heartbeat.looked_at).total_seconds()
    if late > RELAY_LATE_SECONDS:
        raise NotReadyError(f"no relay has been at work for {late:.0f} s", cause="late")


CHECKS = (
    Check("database", probe_database),
    Check("broker", broker.ping),
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
    document = {"error_code": "method_not_allowed", "description": "Only GET and HEAD are answered here."}
    response = _answer(document, 405)
    response["Allow"] = "GET, HEAD"
    return response


def _answer(document: Mapping[str, object], status: int) -> HttpResponse:
    response = JsonResponse(document, status=status, headers={"Cache-Control": "no-store"})
    response["Content-Length"] = str(len(response.content))
    return response


PATHS: dict[str, Callable[[HttpRequest], HttpResponse]] = {"/livez": livez, "/healthz": livez, "/readyz": readyz}
