"""The file of a module that the server has loaded: its SHA-256, if the file on disk is still the one in its memory.

The kernel says which file a process has mapped, but only to the process's user and to root. For other users, a file that has not
changed since before the server's start is the loaded one.
"""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rollout.agent.inspection.host_files import ROOT, on_host, process_directory
from rollout.agent.inspection.mounts import mount_of, sees_same
from rollout.agent.inspection.regular_file import open_regular

#: A larger file is not read, bytes.
MOST_BYTES = 1 << 30
#: As the kernel: a path with more links is not followed.
MOST_LINKS = 40
#: File systems on which each write and each rename sets the ctime, by this host's clock. Not btrfs: a snapshot that takes the
#: place of a directory keeps its former ctime.
TIMED = frozenset({"ext2", "ext3", "ext4", "overlay", "tmpfs", "xfs"})
#: What makes each file known.
REMEDY = "run the agent as the server's user."


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Changes whenever a file is replaced or written to. Unlike the mtime, no program can set the ctime."""

    device: int
    inode: int
    size: int
    ctime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedFile:
    """`problem`: why the digest is not known, one or two sentences. Then `sha256` is empty."""

    sha256: str = ""
    problem: str = ""
    stamp: Stamp | None = None


def read_loaded_file(
    path: str,
    pid: int | None,
    view: Path | None,
    started: float | None,
    known: LoadedFile | None = None,
    root: Path = ROOT,
) -> LoadedFile:
    """Return the digest of the file that the process `pid` has loaded from `path`.

    `view`: where the agent sees the root of the server's file system. `started`: a moment before the start of the process, in
    seconds since 1970. `known`: what was read before; a file that has not changed since is not read again.
    """
    if pid is None or view is None:
        return LoadedFile(problem="The server's process is not visible to the agent.")
    if not path.startswith("/"):
        return LoadedFile(problem=f"The server has loaded it from {path or 'an unknown path'}, which is not absolute.")
    try:
        with open_regular(on_host(view, path)) as file:
            stamp = _stamp(file.fileno())
            if problem := _why_not_loaded(path, stamp, pid, view, started, root):
                return LoadedFile(problem=problem)
            if stamp.size > MOST_BYTES:
                return LoadedFile(problem=f"{path} is larger than {MOST_BYTES >> 20} MiB.")
            if known is not None and known.stamp == stamp:
                return known
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # a BufferedReader
            if _stamp(file.fileno()) != stamp:
                return LoadedFile(problem=f"{path} was written to while it was read.")
    except (OSError, ValueError) as error:  # a NUL in the path
        return LoadedFile(problem=f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.")
    return LoadedFile(sha256=digest, stamp=stamp)


def _why_not_loaded(path: str, stamp: Stamp, pid: int, view: Path, started: float | None, root: Path) -> str:
    """Return why the open file may not be the loaded one, empty if it is."""
    try:
        maps = (process_directory(root, pid) / "maps").read_text(errors="replace")
    except OSError:
        return _why_changed(path, stamp, pid, view, started, root)
    return "" if _is_mapped(maps, stamp) else f"{path} on disk is not the file that the server has loaded."


def _stamp(file: int) -> Stamp:
    found = os.fstat(file)
    return Stamp(device=found.st_dev, inode=found.st_ino, size=found.st_size, ctime_ns=found.st_ctime_ns)


def _is_mapped(maps: str, stamp: Stamp) -> bool:
    """Return True if a line of /proc/<pid>/maps is of this file: proc_pid_maps(5)."""
    wanted = (f"{os.major(stamp.device):02x}:{os.minor(stamp.device):02x}", str(stamp.inode))
    return any(tuple(line.split(maxsplit=5)[3:5]) == wanted for line in maps.splitlines())


def _why_changed(path: str, stamp: Stamp, pid: int, view: Path, started: float | None, root: Path) -> str:
    """Return why the open file may not be what `path` has named since `started`, empty if it is.

    A rename sets the ctime of what is renamed, and that of the directory. So a name in a directory has not changed if one of
    them is older. This holds for each part of the path, with its links. The server must see the same mounts.
    """
    if started is None or view != root:
        return f"The server's start is not known, so {path} may not be the loaded file: {REMEDY}"
    at, left, links = root, [*PurePosixPath(path).parts[1:]], 0
    found = at.lstat()
    while left:
        name = left.pop(0)
        if name == "..":
            at = at.parent if at != root else root
            continue
        here = at / name
        found, directory = here.lstat(), at.lstat()
        shown = f"/{here.relative_to(root)}"
        mount = mount_of(shown, "self", root)
        if mount is None or not sees_same(shown, shown, pid, root):
            return f"The server may see another file at {shown}: {REMEDY}"
        if mount.kind not in TIMED:
            return f"The file system of {shown} ({mount.kind}) does not tell if it has changed since the load: {REMEDY}"
        if min(found.st_ctime, directory.st_ctime) >= started:
            return f"{shown} has changed since the server's start. Restart the server, or {REMEDY}"
        if not stat.S_ISLNK(found.st_mode):
            at = here
            continue
        links += 1
        if links > MOST_LINKS:
            return f"{path} has too many links."
        target = PurePosixPath(here.readlink())
        at = root if target.is_absolute() else at
        left = [*target.parts[target.is_absolute() :], *left]
    if (found.st_dev, found.st_ino) != (stamp.device, stamp.inode):
        return f"{path} was replaced while it was read."
    if stamp.ctime_ns >= started * 1_000_000_000:
        return f"{path} has changed since the server's start. Restart the server, or {REMEDY}"
    return ""
