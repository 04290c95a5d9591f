"""Watches the server's configuration: what another hand changed in its `loadmodule` and `include` lines, and double lines.

It works without the control plane, so that the next start of the server works at once. The newest changes are in a file, so
that a change while the agent was stopped is found too.
"""

import logging
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import msgspec

import decoding
from durable import write_file
from rollout.agent.inspection.start_lines import StartLines
from rollout.agent.module_files.include import load_line
from rollout.agent.node.persistence import Persistence
from rollout.agent.server.texts import storable
from rollout.messages import MOST_CONFIGURATION_CHANGES, ChangeKind, ConfigurationChange

log = logging.getLogger(__name__)

#: Limit of the text of a change, characters.
LONGEST = 400


class _Kept(msgspec.Struct):
    """`lines` is None until they were read for the first time."""

    main: str | None = None
    lines: list[str] | None = None
    changes: list[ConfigurationChange] = []


class ConfigurationWatch:
    """Compares the lines at each heartbeat, and before each operation. `directory`: of the journal."""

    def __init__(self, persistence: Persistence, directory: Path) -> None:
        self._persistence = persistence
        self._file = directory / ".configuration"
        self._kept = self._read()
        if self._kept.main and persistence.reader.main is None:  # the server may be down
            persistence.reader.main = self._kept.main

    def observe(self, info: Mapping[str, str], *, rewrites: bool) -> tuple[ConfigurationChange, ...]:
        """Return the newest changes. `info`: the section `server` of INFO. `rewrites`: no operation has begun, and none can."""
        try:
            with self._persistence.lock:  # no CONFIG REWRITE of ours is between its two ends
                self._observe(info, rewrites=rewrites)
        except Exception:  # a node without heartbeats would count as offline
            log.exception("The server's configuration could not be read")
        return tuple(self._kept.changes)

    def _observe(self, info: Mapping[str, str], *, rewrites: bool) -> None:
        start = self._persistence.reader.read(info)
        self._compare(start)
        if words := self._persistence.resolve(start, rewrites=rewrites):
            log.warning("%s", words)
            self._note(ChangeKind.RESOLVED, words)
            self._compare(self._persistence.reader.read({}))

    def _compare(self, start: StartLines) -> None:
        """Note a change that is not ours. Lines that cannot be read are not compared."""
        if start.problem or not start.main:
            return
        before, now = self._kept.lines, self._lines(start)
        if before == now and self._kept.main == start.main:
            return
        written = self._persistence.written
        self._kept.main, self._kept.lines = start.main, now
        if before is None or (written and now == self._lines(written)):
            self._save()
            return
        if words := _difference(before, now):
            self._note(ChangeKind.OUTSIDE, f"{start.main}: {words}")
        else:
            self._save()

    def _lines(self, start: StartLines) -> list[str]:
        loads = [load_line(each.path, each.args) for each in self._persistence.others(start) if each.file]
        return [*(f"include {each}" for each in start.includes), *loads]

    def _note(self, kind: ChangeKind, words: str) -> None:
        change = ConfigurationChange(id=uuid.uuid4().hex, kind=kind, at=time.time(), message=storable(words)[:LONGEST])
        self._kept.changes = [*self._kept.changes, change][-MOST_CONFIGURATION_CHANGES:]
        self._save()

    def _read(self) -> _Kept:
        try:
            return decoding.decode(self._file.read_bytes(), _Kept)
        except (OSError, msgspec.MsgspecError):
            return _Kept()

    def _save(self) -> None:
        write_file(self._file, msgspec.json.encode(self._kept), mode=0o600)


def _difference(before: list[str], now: list[str]) -> str:
    """Return what was added and removed, empty if nothing was."""
    added = [f"added `{each}`" for each in now if each not in before]
    removed = [f"removed `{each}`" for each in before if each not in now]
    if added or removed:
        return ", ".join([*added, *removed])
    return "the order or the number of its lines changed" if before != now else ""
