"""The mounts that the processes of this host see."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rollout.agent.inspection.host_files import ROOT, process_directory, read_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """The mount that a path is on. Two processes see the same directory if `device` and `inner` are equal.

    `inner` is the path inside the file system. `options` are those of the mount, such as `noexec` and `ro`. `kind` is the type
    of the file system, such as `ext4`.
    """

    point: str
    device: str
    inner: str
    options: frozenset[str]
    kind: str = ""


def mount_of(path: str, pid: int | str = "self", root: Path = ROOT) -> Mount | None:
    """Return the mount of `path` as the process sees it: proc(5), /proc/<pid>/mountinfo."""
    found = None
    for line in (read_text(process_directory(root, pid) / "mountinfo") or "").splitlines():
        words = line.split()
        if len(words) < 6:
            continue
        inside, point = (_octal(each) for each in words[3:5])
        if PurePosixPath(path).is_relative_to(point) and (not found or len(point) >= len(found.point)):
            rest = PurePosixPath(path).relative_to(point)
            found = Mount(
                point=point,
                device=words[2],
                inner=str(PurePosixPath(inside) / rest),
                options=frozenset(words[5].split(",")),
                kind=(line.partition(" - ")[2].split() or [""])[0],
            )
    return found


def sees_same(path: str, other: str, pid: int, root: Path = ROOT) -> bool | None:
    """Return True if `path` is for this process the same directory as `other` for the process `pid`."""
    mine, theirs = mount_of(path, "self", root), mount_of(other, pid, root)
    if not mine or not theirs:
        return None
    return (mine.device, mine.inner) == (theirs.device, theirs.inner)


def _octal(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
