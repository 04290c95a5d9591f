"""SHA-256 of files and of module directories. A file is read again only if it has changed."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rollout.messages import Member, content_digest


@dataclass(frozen=True, slots=True)
class _Stamp:
    """Changes whenever a file is replaced or written to."""

    size: int
    mtime_ns: int
    inode: int


def _stamp(stat: os.stat_result) -> _Stamp:
    return _Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ino)


def file_digest(path: Path) -> str:
    """Read the file and return its SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Digests:
    """Digests of module directories, kept by path, size, modification time and inode. Threads may share one object."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[_Stamp, str]] = {}
        self._lock = threading.Lock()

    def content(self, directory: Path) -> str:
        """Return the content digest of all files below `directory`, or an empty string if it does not exist."""
        return _content(directory, self._digest)

    def content_now(self, directory: Path) -> str:
        """Return the same, but read every byte."""
        return _content(directory, self._read)

    def learn(self, directory: Path, members: Iterable[Member]) -> None:
        """Keep the digests of files that were just written and verified below `directory`, so that they are not read again."""
        for member in members:
            path = directory / member.path
            self._remember(str(path), _stamp(path.stat()), member.sha256)

    def forget_others(self, directories: Iterable[Path]) -> None:
        """Keep only the digests of files in these directories."""
        kept = tuple(f"{directory}{os.sep}" for directory in directories)
        with self._lock:
            self._known = {path: known for path, known in self._known.items() if path.startswith(kept)}

    def _digest(self, path: str, stamp: _Stamp) -> str:
        known = self._known.get(path)
        return known[1] if known and known[0] == stamp else self._read(path, stamp)

    def _read(self, path: str, stamp: _Stamp) -> str:
        digest = file_digest(Path(path))
        self._remember(path, stamp, digest)
        return digest

    def _remember(self, path: str, stamp: _Stamp, digest: str) -> None:
        with self._lock:
            self._known[path] = (stamp, digest)


def _content(directory: Path, digest_of: Callable[[str, _Stamp], str]) -> str:
    root = str(directory)
    try:
        members = [_member(path, root, digest_of) for path in _files(root)]
    except FileNotFoundError:  # removed in between
        return ""
    return content_digest(members) if members else ""


def _files(root: str) -> Iterator[str]:
    for directory, _, names in os.walk(root):
        for name in names:
            yield f"{directory}{os.sep}{name}"


def _member(path: str, root: str, digest_of: Callable[[str, _Stamp], str]) -> Member:
    stamp = _stamp(os.stat(path))  # noqa: PTH116 - every heartbeat walks all files; a Path of each doubles its cost
    return Member(path=path[len(root) + 1 :], size=stamp.size, sha256=digest_of(path, stamp))
