"""What lies on disk, by content: SHA-256 of files and of module folders, read again only when a file has changed."""

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
    """SHA-256 of the file in hex, read now."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Digests:
    """Digests of module folders, remembered by path, size, modification time and inode. Threads may share one."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[_Stamp, str]] = {}
        self._lock = threading.Lock()

    def content(self, folder: Path) -> str:
        """Content digest of all files below `folder`, empty when it is not there."""
        return _content(folder, self._digest)

    def content_now(self, folder: Path) -> str:
        """Likewise, but every byte is read."""
        return _content(folder, self._read)

    def learn(self, folder: Path, members: Iterable[Member]) -> None:
        """Remember what was just written and verified below `folder`, so that it is not read again."""
        for member in members:
            path = folder / member.path
            self._remember(str(path), _stamp(path.stat()), member.sha256)

    def forget_others(self, folders: Iterable[Path]) -> None:
        """Keep what is known of these folders only."""
        kept = tuple(f"{folder}{os.sep}" for folder in folders)
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


def _content(folder: Path, digest_of: Callable[[str, _Stamp], str]) -> str:
    root = str(folder)
    try:
        members = [_member(path, root, digest_of) for path in _files(root)]
    except FileNotFoundError:  # removed while we looked
        return ""
    return content_digest(members) if members else ""


def _files(root: str) -> Iterator[str]:
    for folder, _, names in os.walk(root):
        for name in names:
            yield f"{folder}{os.sep}{name}"


def _member(path: str, root: str, digest_of: Callable[[str, _Stamp], str]) -> Member:
    stamp = _stamp(os.stat(path))  # noqa: PTH116 - every heartbeat walks all files; a Path of each doubles its cost
    return Member(path=path[len(root) + 1 :], size=stamp.size, sha256=digest_of(path, stamp))
