"""Files of the control plane are for its own user alone: 0600, and folders 0700, from the moment they are made."""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def keep_files_private() -> None:
    """From now on nothing that this process, or its children, make may be read by others.

    SQLite, Django and libraries create files by themselves: with the process's mask there is no moment in between.
    """
    os.umask(0o077)


def tighten(folder: Path, files: Iterable[Path]) -> None:
    """Take from others what an older version let them read. What belongs to another user stays as it is.

    The folder is ours if one of the files is in it; not if anyone may add files to it, as to `/tmp`.
    """
    found = [path for path in files if path.is_file()]
    if any(path.parent == folder for path in found) and not folder.stat().st_mode & stat.S_ISVTX:
        found.append(folder)
    for path in found:
        mode = path.stat().st_mode
        if mode & 0o077:
            with suppress(PermissionError):
                path.chmod(stat.S_IMODE(mode) & 0o700)
