"""Opens files that the server or another user has named: a pipe would block, a device may have no end, and a link may lead to
a file of ours."""

import os
import stat
from errno import EINVAL, ELOOP
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path) -> BinaryIO:
    """Open the file at `path` for reading. Raises: `OSError`, also if it is not a regular file."""
    _require_regular(path.stat(), path)  # opening a device may already have an effect
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        _require_regular(os.fstat(file.fileno()), path)
    except OSError:
        file.close()
        raise
    return file


def read_secret(path: Path) -> str:
    """Return the text of a file, without white space at its ends. Raises: `OSError`, also if it is a link in a directory of
    another user than root: that user could have root send any file to a server."""
    is_foreign = _is_of_another_user(path.parent)
    if is_foreign and path.is_symlink():
        raise OSError(ELOOP, "it is a link in a directory of another user", str(path))
    flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_NOFOLLOW | os.O_NONBLOCK if is_foreign else 0)
    with os.fdopen(os.open(path, flags)) as file:
        return file.read().strip()


def _is_of_another_user(directory: Path) -> bool:
    try:
        return directory.stat().st_uid not in {0, os.geteuid()}
    except OSError:  # the file cannot be opened either, and that error names the file
        return True


def _require_regular(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(EINVAL, "it is not a regular file", str(path))
