"""Where the host's files are found, and how they are read."""

import os
from pathlib import Path

ROOT = Path("/")


def on_host(root: Path, path: str | os.PathLike[str]) -> Path:
    """Return where the host's `path` is found below `root`."""
    return root / os.fspath(path).lstrip("/")


def process_directory(root: Path, pid: int | str) -> Path:
    return root / "proc" / str(pid)


def read_text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def read_link(path: Path) -> str | None:
    try:
        return str(path.readlink())
    except OSError:
        return None
