"""Is it safe that the server saves its data, and that it or its replica makes a full synchronization? Pure, but for `resources`."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rollout.agent.inspection.host_files import ROOT, on_host, process_directory, read_text
from rollout.agent.server.texts import number
from rollout.messages import CHILD_WORKS

#: Free disk, as a multiple of the data, and free memory, as a multiple of what the last child process has copied.
DISK = 1.2
MEMORY = 2.0
#: Fields of INFO persistence that are 1 while a child process works.
CHILDREN = {
    "rdb_bgsave_in_progress": "BGSAVE",
    "aof_rewrite_in_progress": "BGREWRITEAOF",
    "aof_rewrite_scheduled": "BGREWRITEAOF",
    "module_fork_in_progress": "A child process of a module",
}
#: Directory, limit and use of a group, of version 2 (no controllers in its line) and of version 1.
_MEMORY_FILES = {
    False: ("sys/fs/cgroup", "memory.max", "memory.current"),
    True: ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What the server's host has left, in bytes. None: it is not known.

    `last_save`: the size of the file that the server saved last. `overcommit`: of vm.overcommit_memory, see proc_sys_vm(5).
    """

    disk: int | None = None
    memory: int | None = None
    overcommit: int | None = None
    last_save: int | None = None


def why_not_save(info: Mapping[str, str], resources: Resources) -> str:
    """Return why the server must not be asked to save now, one sentence; empty if it may. What is not known is a reason.

    `info`: the sections `persistence` and `memory` of INFO.
    """
    for field, name in CHILDREN.items():
        if info.get(field, "0") != "0":
            return f"{name}{CHILD_WORKS}"
    if info.get("rdb_last_bgsave_status") != "ok":
        return "The last BGSAVE of the server has failed. See its log."
    if info.get("aof_last_write_status", "ok") != "ok":
        return "The server could not write its append-only file. See its log."
    used, copied = number(info.get("used_memory")) or 0, number(info.get("rdb_last_cow_size")) or 0
    data = used if resources.last_save is None else resources.last_save
    if resources.disk is None:
        return "It is not known how much disk the server has left: its directory is not visible to the agent."
    if resources.disk < DISK * data:
        return f"The server's directory has {_size(resources.disk)} left, but a save may need {_size(DISK * data)}."
    if resources.memory is None:
        return "It is not known how much memory the server's host has left."
    if resources.memory < MEMORY * copied:
        return f"The server's host has {_size(resources.memory)} of memory left, but a save may need {_size(MEMORY * copied)}."
    return _overcommit(resources, used)


def _overcommit(resources: Resources, used: int) -> str:
    """With 0, the kernel refuses a child process only if all its memory together cannot fit; with 2, it counts each copy."""
    if resources.overcommit == 1 or (resources.overcommit == 0 and used <= (resources.memory or 0)):
        return ""
    return (
        f"vm.overcommit_memory is {'not known' if resources.overcommit is None else resources.overcommit}, so the kernel may "
        "refuse the server's child process. Run `sysctl vm.overcommit_memory=1`."
    )


def resources(pid: int, directory: str, file: str, root: Path = ROOT) -> Resources:
    """Return what is left for the server's process. `directory` and `file`: its settings `dir` and `dbfilename`."""
    view = process_directory(root, pid) / "root"
    try:
        is_visible = view.exists()
    except OSError:  # only the server's user and root may look at it
        is_visible = False
    place = on_host(view if is_visible else root, directory)
    try:
        found = os.statvfs(place)
        disk = found.f_bavail * found.f_frsize
    except OSError:
        disk = None
    try:
        last_save = (place / file).stat().st_size
    except OSError:
        last_save = None
    return Resources(
        disk=disk,
        memory=_memory(pid, root),
        overcommit=_number(root / "proc/sys/vm/overcommit_memory"),
        last_save=last_save,
    )


def _memory(pid: int, root: Path) -> int | None:
    """Return the memory that the host has left, or a control group of the process, whichever is less: cgroups(7)."""
    host = re.search(r"^MemAvailable: +(\d+) kB$", read_text(root / "proc/meminfo") or "", re.MULTILINE)
    if host is None:
        return None
    left = [int(host[1]) * 1024]
    for line in (read_text(process_directory(root, pid) / "cgroup") or "").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        top, limit, used = _MEMORY_FILES[bool(controllers)]
        group = on_host(root / top, path)
        for each in (group, *group.parents):
            most, now = _number(each / limit), _number(each / used)
            if most is not None and now is not None:
                left.append(max(0, most - now))
    return min(left)


def _number(path: Path) -> int | None:
    text = (read_text(path) or "").strip()
    return int(text) if text.isdecimal() else None


def _size(number: float) -> str:
    return f"{number / 1e6:,.0f} MB" if number < 1e9 else f"{number / 1e9:,.1f} GB"
