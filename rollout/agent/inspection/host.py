"""What tells this host from others: its platform, its operating system, and its id."""

import platform
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rollout.messages import operating_system

PLATFORM = f"{platform.system().lower()}/{platform.machine()}"
#: Files that name the operating system: os-release(5).
OS_RELEASES = (Path("/etc/os-release"), Path("/usr/lib/os-release"))
#: The machine's id and the host name: together they tell machines and containers apart.
HOST_FILES = (Path("/etc/machine-id"), Path("/proc/sys/kernel/hostname"))


def read_host_id(files: Sequence[Path] = HOST_FILES) -> str:
    """Return what the files have that can be read."""
    words = []
    for each in files:
        with suppress(OSError):
            words.append(each.read_text().strip())
    return "\0".join(words)


def read_operating_system(files: Sequence[Path] = OS_RELEASES) -> str:
    """Return a name such as `rhel9` from the first file that can be read; empty if the file has none."""
    for file in files:
        try:
            fields = dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line)
        except (OSError, ValueError):
            continue
        known = operating_system("".join(fields.get(name, "").strip("\"' ") for name in ("ID", "VERSION_ID")))
        return "" if known == "linux" else known  # the default of os-release(5)
    return ""
