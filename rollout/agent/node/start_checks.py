"""Runs the start check in a thread of its own, so that neither a heartbeat nor an operation waits for it."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from durable import write_file
from rollout.agent.scratch.live import LiveServer, live_server
from rollout.agent.scratch.server import UnavailableError
from rollout.agent.scratch.start import NextStart, StartResult, check_start, next_start, start_result
from rollout.agent.server.session import LoadedModule
from rollout.agent.settings import AgentSettings
from rollout.messages import WouldStart

log = logging.getLogger(__name__)

#: Seconds between two checks if nothing has changed, after `yes` and after another result.
DAY = 86_400.0
NOT_YES_SECONDS = 600.0


class StartChecks:
    """Checks at the start, when a file or a line has changed, after each operation, and once a day.

    `changed` is called from another thread when there is another result.
    """

    def __init__(self, settings: AgentSettings, *, changed: Callable[[], None]) -> None:
        self._settings = settings
        self._changed = changed
        self._lock = threading.Lock()
        self._info: Mapping[str, str] = {}
        self._modules: tuple[LoadedModule, ...] = ()
        self._result = None if settings.scratch == "off" else last_result(settings)
        self._is_running = self._is_forced = False
        #: Of the thread only.
        self._live: LiveServer | None = None
        self._live_run_id = ""
        self._start: NextStart | None = None
        self._due_at = 0.0

    def newest(self, info: Mapping[str, str], modules: tuple[LoadedModule, ...]) -> StartResult | None:
        """Return the newest result, None before the first one. Never waits. A check starts if one is needed.

        `info` and `modules` are of the live server, empty while it is away.
        """
        with self._lock:
            if info:
                self._info, self._modules = info, modules
            self._run_in_thread()
            return self._result

    def again(self) -> None:
        """Check again, even if nothing has changed. Never waits."""
        with self._lock:
            self._is_forced = True
            self._run_in_thread()

    def _run_in_thread(self) -> None:
        if not self._is_running and self._settings.scratch != "off" and self._info:
            self._is_running = True
            threading.Thread(target=self._run, name="start-check", daemon=True).start()

    def _run(self) -> None:
        is_changed = False
        try:
            while True:
                with self._lock:
                    is_forced, self._is_forced = self._is_forced, False
                    info, modules = self._info, self._modules
                if found := self._check(info, modules, is_forced=is_forced):
                    with self._lock:
                        before, self._result = self._result, found
                    is_news = before is None or (before.result, before.reason) != (found.result, found.reason)
                    is_changed |= is_news
                    if is_news or self._start is not None:
                        self._keep(found)
                with self._lock:
                    if not self._is_forced:
                        break
        except Exception:  # the thread's outermost loop: the next run may succeed
            log.exception("The start check could not run")
        finally:
            with self._lock:
                self._is_running = False
        if is_changed:
            self._changed()

    def _check(
        self, info: Mapping[str, str], modules: tuple[LoadedModule, ...], *, is_forced: bool
    ) -> StartResult | None:
        """Return a new result, None if nothing has changed since the last one."""
        try:
            start = next_start(self._live_server(info))
        except UnavailableError as error:
            self._start = None
            return replace(start_result(WouldStart.UNKNOWN, str(error)), checked_at=time.time())
        if start == self._start and not is_forced and time.monotonic() < self._due_at:
            return None
        while True:
            found = check_start(start, modules, seconds=self._settings.scratch_seconds)
            before, start = start, next_start(start.live)
            if start == before:  # else a file was replaced while a server read it
                break
        self._start = start
        self._due_at = time.monotonic() + (DAY if found.result is WouldStart.YES else NOT_YES_SECONDS)
        return replace(found, checked_at=time.time())

    def _live_server(self, info: Mapping[str, str]) -> LiveServer:
        """Return the live server. While its process runs, it is asked only once."""
        if self._live is None or info.get("run_id") != self._live_run_id:
            self._live, self._live_run_id = live_server(self._settings, info), info.get("run_id", "")
        return self._live

    def _keep(self, found: StartResult) -> None:
        try:
            write_file(result_file(self._settings), msgspec.json.encode(found), mode=0o600)
        except OSError as error:
            log.warning("The result of the start check cannot be kept: %s", error)


def result_file(settings: AgentSettings) -> Path:
    """Return the file with the newest result, for the doctor."""
    return settings.journal_dir / ".start-check.json"


def last_result(settings: AgentSettings) -> StartResult | None:
    """Return the newest result, None if there is none or if it cannot be read."""
    try:
        return msgspec.json.decode(result_file(settings).read_bytes(), type=StartResult)
    except (OSError, msgspec.MsgspecError):
        return None
