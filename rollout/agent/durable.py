"""File changes that survive a power cut: written beside, fsynced, renamed."""

import os
import uuid
from pathlib import Path


def unique_beside(path: Path) -> Path:
    """A name that nobody has, in the folder of `path`; it starts with a dot and ends with `.tmp`."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")


def sync_folder(folder: Path) -> None:
    """Names in `folder` are as durable as the files that they name."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, content: bytes, *, mode: int) -> None:
    """`path` holds `content`; a reader, and a restart, sees the whole of the old or of the new one.

    It never has more rights than `mode`, and has those whatever the process's mask is.
    """
    fresh = unique_beside(path)
    try:
        with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    sync_folder(path.parent)
