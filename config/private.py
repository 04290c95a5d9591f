"""Makes the files of the control plane private to its user: mode 0600, and 0700 for directories."""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def keep_files_private() -> None:
    """Set the umask, so that other users cannot read files that this process and its children create.

    SQLite, Django and libraries create files themselves. The umask makes them private from the start.
    """
    os.umask(0o077)


def tighten(directory: Path, files: Iterable[Path]) -> None:
    """Remove the permissions of other users that an older version has left. Files of another user stay unchanged.

    The directory is tightened too if one of the files is in it, unless any user may add files to it, as to `/tmp`.
    """
    found = [path for path in files if path.is_file()]
    if any(path.parent == directory for path in found) and not directory.stat().st_mode & stat.S_ISVTX:
        found.append(directory)
    for path in found:
        mode = path.stat().st_mode
        if mode & 0o077:
            with suppress(PermissionError):
                path.chmod(stat.S_IMODE(mode) & 0o700)
