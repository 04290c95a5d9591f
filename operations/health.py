"""`/livez`, or `/healthz`: this process answers. `/readyz`: what it needs does. For anybody, so they say no more than that.

Nobody can load the database by asking: an answer is kept for a second, and of each check one runs at a time. A check
that takes too long is not waited for, and none is started beside it.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from django.core.files.storage import FileSystemStorage, default_storage
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse

from artifacts_app.selectors import newest_storage_key
from eventstore.store import database_now, head
from operations import broker
from operations.heartbeat import relay_heartbeat

logger = logging.getLogger(__name__)

#: How long an answer is kept, and a check is waited for, seconds.
KEPT_SECONDS = 1.0
CHECK_SECONDS = 2.0
#: A relay has a look at everything each second; one that had none for so long is stuck, seconds.
RELAY_LATE_SECONDS = 30.0


class NotReadyError(Exception):
    """What is wrong, for the log."""


class Check:
    """Whether a component answers. Threads may ask at once."""

    def __init__(self, name: str, probe: Callable[[], None]) -> None:
        self.name = name
        self._probe = probe
        self._lock = threading.Lock()
        self._is_ok = False
        self._ended_at = float("-inf")
        self._running: threading.Thread | None = None

    def start(self) -> None:
        """Unless what is known is new enough, or the check still runs."""
        with self._lock:
            if self._running is None and time.monotonic() - self._ended_at > KEPT_SECONDS:
                self._running = threading.Thread(target=self._run, name=f"check-{self.name}", daemon=True)
                self._running.start()

    def is_ok(self, *, until: float) -> bool:
        """Waits for a check that runs, up to a moment of the monotonic clock; one that is late is not well."""
        with self._lock:
            running = self._running
        if running is not None:
            running.join(max(0.0, until - time.monotonic()))
        with self._lock:
            return self._running is None and self._is_ok

    def _run(self) -> None:
        is_ok = False
        try:
            self._probe()
            is_ok = True
        except Exception as error:  # noqa: BLE001  # whatever it is: the component does not answer as it should
            if self._is_ok or self._ended_at < 0:  # once, and not at each probe
                logger.warning("%s is not ready: %s: %s", self.name, type(error).__name__, error)
        finally:
            connection.close()
            with self._lock:
                self._is_ok, self._ended_at, self._running = is_ok, time.monotonic(), None


def probe_database() -> None:
    head()


def probe_storage() -> None:
    """The package that was uploaded last is there. Before the first: there is a place for it."""
    key = newest_storage_key()
    if key is not None:
        if not default_storage.exists(key):
            raise NotReadyError("the newest package is not in the storage")
    elif isinstance(default_storage, FileSystemStorage):
        folder = Path(default_storage.location)
        while not folder.exists():
            folder = folder.parent  # it is made by the first upload
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise NotReadyError("the folder of the packages cannot be written")
    else:
        default_storage.exists("readyz")


def probe_relay() -> None:
    beat = relay_heartbeat()
    if beat is None:
        raise NotReadyError("no relay has ever been at work")
    late = (database_now() - beat.looked_at).total_seconds()
    if late > RELAY_LATE_SECONDS:
        raise NotReadyError(f"no relay has been at work for {late:.0f} s")


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
    well = {check.name: check.is_ok(until=until) for check in CHECKS}
    is_ready = all(well.values())
    checks = {name: _word(is_ok) for name, is_ok in well.items()}
    return _answer({"status": _word(is_ready), "checks": checks}, 200 if is_ready else 503)


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
