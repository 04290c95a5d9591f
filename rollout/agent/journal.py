"""What this node has promised and answered, on disk: the fence against old and repeated commands.

One small JSON file per module. A generation is journaled before its work starts, a final report before it is sent.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from durable import write_file
from rollout.agent.failure import Failure
from rollout.agent.server import LoadedModule
from rollout.messages import Command, Reason, Report

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """The node before an operation: what a failure puts back.

    `content_sha256` is what the operation's target held, empty when it did not exist; `loaded` is the version of
    the module, installed by us, that the server had loaded, and `commands` those that it had registered.
    """

    content_sha256: str = ""
    loaded: LoadedModule | None = None
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The newest operation of one module. `report` is None until it has ended.

    `committed`: it has come so far that it can only be finished, and no longer be canceled.
    """

    rollout: str
    generation: int
    attempt: int
    before: Before
    committed: bool = False
    report: Report | None = None

    @property
    def order(self) -> tuple[int, int]:
        return self.generation, self.attempt


class Journal:
    """The entries of one node, below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with suppress(OSError):  # each command says so; the node heartbeats all the same
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in folder.glob("*"):  # an older version let others read them; arguments may hold passwords
                path.chmod(0o600)

    @contextmanager
    def held(self) -> Iterator[None]:
        """One operation at a time on this node, also when an old agent is still at work while a new one starts."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(self._folder / ".lock", os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def entry(self, module_name: str) -> Entry | None:
        """The newest operation of that module. Raises: `Failure` (io_error) when its file cannot be understood."""
        try:
            return msgspec.json.decode(self._file(module_name).read_bytes(), type=Entry)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            path = self._file(module_name)
            raise Failure(
                Reason.IO_ERROR, f"The journal {path} is damaged ({error}): remove it, then retry."
            ) from error

    def begin(self, command: Command, before: Before, *, committed: bool = False) -> Entry:
        """An unfinished entry; from now on nothing older than `command` is obeyed for its module."""
        entry = Entry(
            rollout=command.rollout,
            generation=command.generation,
            attempt=command.attempt,
            before=before,
            committed=committed,
        )
        self._write(command.module_name, entry)
        return entry

    def commit(self, module_name: str, entry: Entry) -> Entry:
        """`entry`, from now on only to be finished, also after a crash."""
        if entry.committed:
            return entry
        committed = replace(entry, committed=True)
        self._write(module_name, committed)
        return committed

    def finish(self, entry: Entry, report: Report) -> None:
        """The answer to the entry's command, for as often as it is repeated."""
        self._write(report.module_name, replace(entry, report=report))

    def generations(self) -> dict[str, int]:
        """The newest generation of each module; one that cannot be read is left out, so that the node still heartbeats."""
        found = {}
        for path in sorted(self._folder.glob("[!.]*.json")):
            try:
                entry = self.entry(path.stem)
            except (Failure, OSError) as error:
                log.warning("%s", error)
                continue
            if entry:
                found[path.stem] = entry.generation
        return found

    def _file(self, module_name: str) -> Path:
        return self._folder / f"{module_name}.json"

    def _write(self, module_name: str, entry: Entry) -> None:
        write_file(self._file(module_name), msgspec.json.encode(entry), mode=0o600)
