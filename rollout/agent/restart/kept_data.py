"""The data from before a change by a restart, kept on disk: a new version may save them so that the former one cannot read them.

The end of the server's process has written a file. A hard link keeps it: the server replaces its file by renaming another one.
Where the agent cannot make one, it copies the file into the journal's directory.
"""

import logging
import os
import shutil
import stat
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import msgspec

import decoding
from durable import replacing, write_file

#: The clocks of files and processes are so coarse, seconds.
COARSE_SECONDS = 0.05
#: Free disk that a copy needs, as a multiple of its size.
DISK = 1.2

log = logging.getLogger(__name__)

#: Device and inode.
_Identity = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept for a restart with `version`. `saved`: the file that the server writes at its end. `before`: what that was when
    the note was made, `noted_at`, in seconds since 1970. `link` and `copy`: where it is kept, one of them at most exists.
    """

    rollout: str
    module_name: str
    version: int
    former_version: int
    saved: str
    before: _Identity | None = None
    noted_at: float
    link: str
    copy: str
    #: The former version can read what the new one has written: nothing has to be put back.
    is_open: bool = False

    @property
    def file(self) -> Path | None:
        """Where the data are, None if they are not kept."""
        return next((path for each in (self.link, self.copy) if _is_file(path := Path(each))), None)


#: Notes are read and written again as a whole, by the thread of an operation and by another one.
_lock = threading.RLock()


class KeptData:
    """The notes in the journal's directory, at most one for each version. Threads may share it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / ".kept.json"
        self._problem = ""

    def read(self) -> tuple[Kept, ...]:
        """Return all notes. A file that is damaged has none: then its data stay on disk, which is logged."""
        try:
            return decoding.decode(self._file.read_bytes(), tuple[Kept, ...])
        except FileNotFoundError:
            return ()
        except (OSError, msgspec.MsgspecError) as error:
            if (problem := str(error)) != self._problem:  # each heartbeat reads it
                log.warning("%s is damaged, so the data that it names are not deleted: %s", self._file, problem)
            self._problem = problem
            return ()

    def of(self, module_name: str) -> tuple[Kept, ...]:
        """Return the notes of the module, the newest first."""
        return tuple(each for each in reversed(self.read()) if each.module_name == module_name)

    def note(self, *, rollout: str, module_name: str, version: int, former_version: int, saved: Path) -> Kept:
        """Note that the server is about to save its data. What was kept for the version before is deleted; for another one not,
        because this change may fail. Raises: `OSError`."""
        name = f"before-{module_name}-{version}"
        kept = Kept(
            rollout=rollout,
            module_name=module_name,
            version=version,
            former_version=former_version,
            saved=str(saved),
            before=_identity(saved),
            noted_at=time.time(),
            link=str(saved.with_name(f"{saved.name}.{name}")),
            copy=str(self._directory / f"{name}.rdb"),
        )
        with _lock:
            for each in self.of(module_name):
                if each.version == version:
                    self.drop(each)
            self._write((*self.read(), kept))
        return kept

    def open_way(self, kept: Kept) -> None:
        """Note that the former version can read what the new one writes. Raises: `OSError`."""
        with _lock:
            self._write(tuple(replace(each, is_open=True) if each == kept else each for each in self.read()))

    def put_back(self, kept: Kept) -> None:
        """Put the data in the place of the file that the next start reads. They stay kept too. Raises: `OSError`, also for a copy:
        the server's user could not read it."""
        saved = Path(kept.saved)
        link = saved.with_name(f"{saved.name}.modfleet")
        link.unlink(missing_ok=True)
        try:
            os.link(kept.link, link, follow_symlinks=False)
            link.replace(saved)
        finally:
            link.unlink(missing_ok=True)  # also if a killed agent has put them back: then rename(2) leaves both names

    def drop(self, kept: Kept) -> None:
        """Delete what is kept, unless a newer note has taken its place. Raises: `OSError`; then it is still noted."""
        with _lock:
            notes = self.read()
            if kept not in notes:
                return
            for each in (kept.link, kept.copy):
                _unlink(Path(each))
            self._write(tuple(each for each in notes if each != kept))

    def _write(self, notes: tuple[Kept, ...]) -> None:
        write_file(self._file, msgspec.json.encode(notes), mode=0o600)


class Keeper:
    """Keeps what the server's end writes: `take`, then `finish` when the next process runs, then `close`. None of them raises.

    An agent that was killed in between calls only the last two: by then, the file may be a newer one, but the link is not.
    Without a note, nothing is kept.
    """

    def __init__(self, kept: Kept | None = None) -> None:
        self._kept = kept
        self._source: BinaryIO | None = None
        self._is_taken, self._problem = False, ""
        #: No other process had saved by then, seconds since 1970.
        self._until: float | None = None

    def take(self, *, ended_now: bool) -> None:
        """Make the link. `ended_now`: the process has just ended; else the next one may run already."""
        if (kept := self._kept) is None:
            return
        with suppress(OSError):  # the link may be possible nevertheless
            self._source = os.fdopen(os.open(kept.saved, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
        self._is_taken, self._until = True, time.time() if ended_now else None
        try:
            Path(kept.link).unlink(missing_ok=True)
            os.link(kept.saved, kept.link, follow_symlinks=False)
        except OSError as error:
            self._problem = f"{kept.saved} cannot be linked ({error.strerror})"

    def finish(self, started: float | None) -> str:
        """Check the file, and copy it if there is no link. `started`: when the next process has, None if that is not known.

        Return why the data are not kept, one sentence; empty if they are.
        """
        if (kept := self._kept) is None or Path(kept.copy).is_file():
            return ""
        self._until = started if self._until is None else self._until
        try:
            problem = self._copy(kept) if self._problem else self._check(kept, Path(kept.link).lstat())
        except OSError as error:
            problem = str(error)
        return f"The data from before the change are not kept: {problem}." if problem else ""

    def close(self) -> None:
        """Delete a new link that is not seen to be right."""
        if self._source:
            self._source.close()
        with suppress(OSError):
            if self._kept and self._is_taken and self._check(self._kept, Path(self._kept.link).lstat()):
                Path(self._kept.link).unlink()

    def _copy(self, kept: Kept) -> str:
        if self._source is None:
            return f"{self._problem}, nor can it be read"
        found, directory = os.fstat(self._source.fileno()), Path(kept.copy).parent
        if problem := self._check(kept, found):
            return problem
        if shutil.disk_usage(directory).free < DISK * found.st_size:
            return f"{self._problem}, and {directory} has no room for a copy"
        with replacing(Path(kept.copy), mode=0o600) as target:
            shutil.copyfileobj(self._source, target, 1 << 20)
        return ""

    def _check(self, kept: Kept, found: os.stat_result) -> str:
        """Return why this is not the file, empty if it is: written after the note, and before the next process could."""
        until, at_once = self._until, kept.noted_at - COARSE_SECONDS
        is_new = stat.S_ISREG(found.st_mode) and (found.st_dev, found.st_ino) != kept.before
        if is_new and until is not None and at_once <= found.st_mtime <= until + COARSE_SECONDS:
            return ""
        return f"{kept.saved} is not seen to be the file that the server has written at its end"


def _is_file(path: Path) -> bool:
    with suppress(OSError):  # in a directory that only the server's user may search
        return path.is_file()
    return False


def _unlink(path: Path) -> None:
    """Raises: `OSError`. What is in a directory that the agent may not search is not its own."""
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        if os.access(path.parent, os.X_OK):
            raise


def _identity(path: Path) -> _Identity | None:
    with suppress(OSError):
        found = path.lstat()
        return found.st_dev, found.st_ino
    return None
