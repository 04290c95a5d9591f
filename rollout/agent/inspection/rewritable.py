"""Can the server write its main configuration file? For CONFIG REWRITE, it renames a new file from the same directory."""

from pathlib import Path

from rollout.agent.inspection.host_files import ROOT
from rollout.agent.inspection.mounts import mount_of


def can_rewrite(main: str | None, pid: int | None, root: Path = ROOT) -> bool:
    """Return False if the server surely cannot: it has no such file, or the file is on a read-only mount or is a mount itself,
    as in a container.

    `main`: its path, empty if there is none, None if it is not known. `pid`: the server's, None if it is not known.
    """
    if not main:
        return main is None
    mount = mount_of(main, pid, root) if pid else None
    return mount is None or ("ro" not in mount.options and mount.point != main)
