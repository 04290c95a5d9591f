"""The journal on disk: which commands this node has accepted and answered. It is the fence against old and repeated commands.

One small JSON file per module. A generation is journaled before its operation starts, a final report before it is sent.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

import decoding
from durable import write_file
from rollout.agent.failure import Failure
from rollout.agent.server.session import LoadedModule
from rollout.messages import Command, Reason, Report

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """The node before an operation, which a failure restores.

    `content_sha256` is the digest of the operation's target, empty if there was none. `loaded` is the version of the
    module that the server had loaded, if Modfleet installed it. `commands` are the commands that it had registered, and
    `options` the values of its options, None if they are not known.
    """

    content_sha256: str = ""
    loaded: LoadedModule | None = None
    commands: tuple[str, ...] = ()
    options: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The newest operation of one module. `report` is None until the operation has ended.

    `committed`: the operation can only be finished, and no longer be canceled. `release`: that of the newest command.
    """

    rollout: str
    generation: int
    attempt: int
    before: Before
    committed: bool = False
    report: Report | None = None
    release: int = 0

    @property
    def order(self) -> tuple[int, int]:
        return self.generation, self.attempt


class Journal:
    """The entries of one node, in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with suppress(OSError):  # each command will fail; heartbeats are still sent
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in directory.glob("*"):  # older versions let others read them; arguments may contain passwords
                path.chmod(0o600)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Allow one operation at a time on this node, also if an old agent still runs while a new one starts."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(self._directory / ".lock", os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def try_lock(self) -> Iterator[bool]:
        """Give True and the lock if no operation is in progress, also of another agent; else False. Never waits."""
        try:
            file = os.fdopen(os.open(self._directory / ".lock", os.O_CREAT | os.O_WRONLY, 0o600), "w")
        except OSError:
            yield False
            return
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True

    def sweep(self) -> None:
        """Delete the temporary files that a killed agent has left. Needs the lock."""
        for left in self._directory.glob(".*.tmp"):
            left.unlink(missing_ok=True)

    def entry(self, module_name: str) -> Entry | None:
        """Return the newest operation of the module. Raises: `Failure` (io_error) if its file cannot be read."""
        try:
            return decoding.decode(self._file(module_name).read_bytes(), Entry)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            path = self._file(module_name)
            raise Failure(
                Reason.IO_ERROR, f"The journal {path} is damaged ({error}). Remove it, then retry."
            ) from error

    def begin(self, command: Command, before: Before, *, committed: bool = False) -> Entry:
        """Write an unfinished entry. From now on, commands for this module that are older than `command` are refused."""
        entry = Entry(
            rollout=command.rollout,
            generation=command.generation,
            attempt=command.attempt,
            before=before,
            committed=committed,
            release=command.release,
        )
        self._write(command.module_name, entry)
        return entry

    def commit(self, module_name: str, entry: Entry) -> Entry:
        """Mark the operation as one that can only be finished, also after a crash. Return its entry."""
        if entry.committed:
            return entry
        committed = replace(entry, committed=True)
        self._write(module_name, committed)
        return committed

    def finish(self, entry: Entry, report: Report) -> None:
        """Write the final report: it answers the command, however often the command is repeated."""
        self._write(report.module_name, replace(entry, report=report))

    def generations(self) -> dict[str, int]:
        """Return the newest generation of each module. Unreadable entries are left out, so that heartbeats are still sent."""
        found = {}
        for path in sorted(self._directory.glob("[!.]*.json")):
            try:
                entry = self.entry(path.stem)
            except (Failure, OSError) as error:
                log.warning("%s", error)
                continue
            if entry:
                found[path.stem] = entry.generation
        return found

    def _file(self, module_name: str) -> Path:
        return self._directory / f"{module_name}.json"

    def _write(self, module_name: str, entry: Entry) -> None:
        write_file(self._file(module_name), msgspec.json.encode(entry), mode=0o600)
