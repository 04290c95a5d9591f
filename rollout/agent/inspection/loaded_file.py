"""The file of a module that the server has loaded: its SHA-256, if the file on disk is still the one in its memory."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from rollout.agent.inspection.host_files import ROOT, on_host, process_directory
from rollout.agent.inspection.regular_file import open_regular

#: A larger file is not read, bytes.
MOST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Changes whenever a file is replaced or written to."""

    device: int
    inode: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedFile:
    """`problem`: why the digest is not known, one sentence. Then `sha256` is empty."""

    sha256: str = ""
    problem: str = ""
    stamp: Stamp | None = None


def read_loaded_file(
    path: str, pid: int | None, view: Path | None, known: LoadedFile | None = None, root: Path = ROOT
) -> LoadedFile:
    """Return the digest of the file that the process `pid` has mapped from `path`. `view`: where the agent sees the root of
    the server's file system. `known`: what was read before; a file that has not changed since is not read again."""
    if pid is None or view is None:
        return LoadedFile(problem="The server's process is not visible to the agent.")
    if not path.startswith("/"):
        return LoadedFile(problem=f"The server has loaded it from {path or 'an unknown path'}, which is not absolute.")
    try:
        maps = (process_directory(root, pid) / "maps").read_text(errors="replace")
    except OSError as error:
        return LoadedFile(
            problem=f"The agent may not read /proc/{pid}/maps ({error.strerror}), so it cannot tell if the file on disk is "
            "the loaded one."
        )
    try:
        with open_regular(on_host(view, path)) as file:
            stamp = _stamp(file.fileno())
            if not _is_mapped(maps, stamp):
                return LoadedFile(problem=f"{path} on disk is not the file that the server has loaded.")
            if stamp.size > MOST_BYTES:
                return LoadedFile(problem=f"{path} is larger than {MOST_BYTES >> 20} MiB.")
            if known is not None and known.stamp == stamp:
                return known
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # a BufferedReader
            if _stamp(file.fileno()) != stamp:
                return LoadedFile(problem=f"{path} was written to while it was read.")
    except OSError as error:
        return LoadedFile(problem=f"{path} cannot be read: {error.strerror or error}.")
    return LoadedFile(sha256=digest, stamp=stamp)


def _stamp(file: int) -> Stamp:
    found = os.fstat(file)
    return Stamp(device=found.st_dev, inode=found.st_ino, size=found.st_size, mtime_ns=found.st_mtime_ns)


def _is_mapped(maps: str, stamp: Stamp) -> bool:
    """Return True if a line of /proc/<pid>/maps is of this file: proc_pid_maps(5)."""
    wanted = (f"{os.major(stamp.device):02x}:{os.minor(stamp.device):02x}", str(stamp.inode))
    return any(tuple(line.split(maxsplit=5)[3:5]) == wanted for line in maps.splitlines())
