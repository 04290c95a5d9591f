"""Runs the start check in a thread of its own, so that neither a heartbeat nor an operation waits for it."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import msgspec

import decoding
from durable import write_file
from rollout.agent.inspection.configuration import Directive
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
#: Seconds between two looks at the live server's process and unit.
LIVE_SECONDS = 60.0


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
        self._live_until = 0.0
        self._start: NextStart | None = None
        self._start_modules: tuple[LoadedModule, ...] = ()
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

    @property
    def is_no(self) -> bool:
        """Return True if the newest result is that the server would not start."""
        with self._lock:
            return self._result is not None and self._result.result is WouldStart.NO

    def again(self) -> None:
        """Check again, even if nothing has changed. Never waits."""
        with self._lock:
            self._is_forced = True
            self._run_in_thread()

    def note(self, result: StartResult) -> None:
        """Replace the newest result, until the next check ends."""
        with self._lock:
            self._result = result
        self._changed()

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
        is_same = start == self._start and modules == self._start_modules
        if is_same and not is_forced and time.monotonic() < self._due_at:
            return None
        while True:
            found = check_start(start, modules, seconds=self._settings.scratch_seconds)
            before, start = start, next_start(start.live)
            if start == before:  # else a file was replaced while a server read it
                break
        self._start, self._start_modules = start, modules
        self._due_at = time.monotonic() + (DAY if found.result is WouldStart.YES else NOT_YES_SECONDS)
        return replace(found, checked_at=time.time())

    def _live_server(self, info: Mapping[str, str]) -> LiveServer:
        """Return the live server. Its unit may change while it runs."""
        if self._live is None or info.get("run_id") != self._live_run_id or time.monotonic() >= self._live_until:
            self._live, self._live_run_id = live_server(self._settings, info), info.get("run_id", "")
            self._live_until = time.monotonic() + LIVE_SECONDS
        return self._live

    def _keep(self, found: StartResult) -> None:
        try:
            write_file(result_file(self._settings), msgspec.json.encode(found), mode=0o600)
        except OSError as error:
            log.warning("The result of the start check cannot be kept: %s", error)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleLine:
    """The lines of one module after a change. `module`: what a start loads from `directory`, None for nothing.

    `include`: the file that gets a new line. `order`: directories whose modules are loaded in that order. All paths are as
    the server sees them.
    """

    directory: PurePosixPath
    module: LoadedModule | None
    include: str
    order: tuple[PurePosixPath, ...] = ()

    def applied_to(self, lines: tuple[Directive, ...]) -> tuple[Directive, ...]:
        """Return the lines after the change. They keep their places, except those of `order`."""
        own = [index for index, each in enumerate(lines) if _loads_below(each, self.directory)]
        if self.module is None:
            # CONFIG REWRITE, which removes a line of the main file, removes the module's options too.
            option = (
                f"{self.directory.name.lower()}." if any(lines[each].file != self.include for each in own) else None
            )
            return tuple(
                each
                for index, each in enumerate(lines)
                if index not in own and not (option and each.words[0].startswith(option))
            )
        words = ("loadmodule", self.module.path, *self.module.args)
        if own:
            changed = {own[0]: replace(lines[own[0]], words=words)}
            kept = [changed.get(index, each) for index, each in enumerate(lines) if index not in own[1:]]
        else:
            number, place = self._new_place(lines)
            kept = [*lines[:place], Directive(file=self.include, line=number, words=words), *lines[place:]]
        return self._in_order(kept)

    def _new_place(self, lines: tuple[Directive, ...]) -> tuple[int, int]:
        """Return the number of the new line, and how many lines come before it: options of the command line come last."""
        ours = [index for index, each in enumerate(lines) if each.file == self.include and each.line]
        if ours:
            return lines[ours[-1]].line + 1, ours[-1] + 1
        return 1, next((index for index, each in enumerate(lines) if not each.line), len(lines))

    def _in_order(self, lines: list[Directive]) -> tuple[Directive, ...]:
        ranks = {
            index: rank
            for index, line in enumerate(lines)
            for rank, directory in enumerate(self.order)
            if _loads_below(line, directory)
        }
        moved = dict(zip(sorted(ranks), sorted(ranks, key=lambda index: ranks[index]), strict=True))
        return tuple(lines[moved.get(index, index)] for index in range(len(lines)))


def _loads_below(line: Directive, directory: PurePosixPath) -> bool:
    return (
        line.words[0] == "loadmodule" and len(line.words) > 1 and PurePosixPath(line.words[1]).is_relative_to(directory)
    )


def start_after(
    settings: AgentSettings, info: Mapping[str, str], modules: Sequence[LoadedModule], change: ModuleLine
) -> StartResult:
    """Return if the server would start after the change. `info` and `modules` are of the live server.

    It takes a few times `settings.scratch_seconds` at most.
    """
    try:
        start = next_start(live_server(settings, info), change.applied_to)
    except UnavailableError as error:
        return start_result(WouldStart.UNKNOWN, str(error))
    others = [each for each in modules if each.name != change.directory.name]
    return check_start(start, others, seconds=settings.scratch_seconds)


def result_file(settings: AgentSettings) -> Path:
    """Return the file with the newest result, for the doctor."""
    return settings.journal_dir / ".start-check.json"


def last_result(settings: AgentSettings) -> StartResult | None:
    """Return the newest result, None if there is none or if it cannot be read."""
    try:
        return decoding.decode(result_file(settings).read_bytes(), StartResult)
    except (OSError, msgspec.MsgspecError):
        return None
