"""Files that survive a power cut: written under another name, fsynced, renamed.

For the agent, the command line and the control plane alike: knows no Django, and no other package of this project.
"""

import glob
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def temporary_name(path: Path) -> Path:
    """Return a new name in the directory of `path`. It starts with a dot and ends with `.tmp`."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")


def remove_temporaries(path: Path) -> None:
    """Delete the temporary files of processes that were killed while they replaced `path`. None may replace it now."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 12}.tmp"):
        left.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` as durable as the files that they name."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_directory(path: Path, *, mode: int) -> None:
    """Create a directory and its missing parents with exactly these rights, whatever the process's mask is.

    Existing directories are left unchanged.
    """
    for each in reversed([each for each in (path, *path.parents) if not each.exists()]):
        each.mkdir(exist_ok=True)
        each.chmod(mode)


@contextmanager
def replacing(path: Path, *, mode: int) -> Iterator[BinaryIO]:
    """Give a file that replaces `path` when the block ends, and is deleted if the block raises.

    A reader, also after a power cut, sees the whole old file or the whole new one. The new file has exactly the rights
    in `mode` from its first byte on, whatever the process's mask is.
    """
    temporary = temporary_name(path)
    try:
        with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def write_file(path: Path, content: bytes, *, mode: int) -> None:
    """Replace `path` by a file with this content, as `replacing` does."""
    with replacing(path, mode=mode) as file:
        file.write(content)
