"""The server's process: its pid, its arguments, its user, and the systemd service that it belongs to."""

import os
import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from rollout.agent.inspection.host_files import ROOT, process_directory, read_link, read_text
from rollout.agent.inspection.sockets import is_local, owner_pid, peer_pid, tcp_inodes, unix_inodes
from rollout.agent.inspection.systemd import unit_settings

#: A process whose start differs by more than this from the server's uptime is another one, seconds.
UPTIME_SECONDS = 5.0
#: Servers round their uptime to seconds, and some file systems their times. Together with a reserve, seconds.
ROUNDING_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The server's process. `uid`, `gid` and `groups` are the effective ones.

    `arguments` are the words after the program's name. They are None if the server has replaced them by its title, as
    Redis and Valkey do, and its unit does not tell them either.
    """

    pid: int
    executable: str | None = None
    arguments: tuple[str, ...] | None = None
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None
    unit: str | None = None


def server_pid(url: str, info: Mapping[str, str], root: Path = ROOT) -> int | None:
    """Return the pid of the server at `url` (`unix://`, `redis://`, `rediss://`) on this host.

    `info` is the section `server` of INFO; it may be empty. Its `process_id` counts only if a process with that pid has the
    same program and start: in a container, pids are other ones.
    """
    parts = urlsplit(url)
    if parts.scheme == "unix":
        path = unquote(parts.path)
        pid = peer_pid(path) or owner_pid(unix_inodes(path, root), root)
    elif not is_local(parts.hostname or "localhost"):
        return None
    else:
        pid = owner_pid(tcp_inodes(parts.port or 6379, root), root)
    return pid or _confirmed(info, root)


def read_process(pid: int, root: Path = ROOT) -> Process:
    """Return what this host tells about the process."""
    status = _status(pid, root)
    unit = unit_of(pid, root)
    return Process(
        pid=pid,
        executable=read_link(process_directory(root, pid) / "exe"),
        arguments=_arguments(pid, unit, root),
        uid=_ids(status, "Uid", effective=True),
        gid=_ids(status, "Gid", effective=True),
        groups=tuple(int(each) for each in status["Groups"].split()) if "Groups" in status else None,
        unit=unit,
    )


def earliest_start(pid: int, info: Mapping[str, str], root: Path = ROOT) -> float | None:
    """Return a moment before the start of the server, in seconds since 1970; None if it is not known.

    The server has kept what the clock said at its start, and the kernel counts the seconds since then. If the clock was set
    in the meantime, they differ: the earlier moment is before the start by both clocks, the former and the new one.
    `info`: the section `server` of INFO, asked just now.
    """
    try:
        by_server = int(info["server_time_usec"]) / 1_000_000 - int(info["uptime_in_seconds"])  # no number is NaN
        by_kernel = time.time() - _age(pid, root)
    except (KeyError, ValueError, OverflowError, OSError):
        return None
    return min(by_server, by_kernel) - ROUNDING_SECONDS


def start_of(pid: int, root: Path = ROOT) -> float | None:
    """Return when the process has started, by the clock of now, in seconds since 1970; None if it is not known."""
    try:
        return time.time() - _age(pid, root)
    except OSError:
        return None


def unit_of(pid: int, root: Path = ROOT) -> str | None:
    """Return the name of the systemd service that the process belongs to."""
    text = read_text(process_directory(root, pid) / "cgroup") or ""
    for line in text.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        services = [each for each in path.split("/") if each.endswith(".service")]
        if services and controllers in {"", "name=systemd"}:
            return services[-1]
    return None


def writes_to_socket(pid: int, root: Path = ROOT) -> bool:
    """Return True if the standard output of the process is seen to be a socket, as journald's is: systemd.exec(5)."""
    return (read_link(process_directory(root, pid) / "fd/1") or "").startswith("socket:")


def _confirmed(info: Mapping[str, str], root: Path) -> int | None:
    """Return `process_id`, if this host has a process with that pid, program and start."""
    try:
        pid, uptime = int(info["process_id"]), float(info["uptime_in_seconds"])
        program = PurePosixPath(info["executable"]).name
        stat = (process_directory(root, pid) / "stat").read_text()
        age = _age(pid, root)
    except (KeyError, ValueError, OSError):
        return None
    comm = stat[stat.index("(") + 1 : stat.rindex(")")]
    is_same = comm == program[:15] and abs(age - uptime) <= UPTIME_SECONDS
    return pid if is_same else None


def _age(pid: int, root: Path) -> float:
    """Return the seconds since the process has started: proc_pid_stat(5). Raises: `OSError`."""
    stat = (process_directory(root, pid) / "stat").read_text()
    booted = float((root / "proc/uptime").read_text().split()[0])
    return booted - int(stat[stat.rindex(")") + 2 :].split()[19]) / os.sysconf("SC_CLK_TCK")


def _arguments(pid: int, unit: str | None, root: Path) -> tuple[str, ...] | None:
    """Return the words after the program's name, from the process or else from the unit that has started it.

    A server replaces its command line by a title such as `redis-server *:6379`: one word, padded with NUL.
    """
    try:
        words = (process_directory(root, pid) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return None
    if len(words) > 1:
        return tuple(word.decode(errors="surrogateescape") for word in words[1:])
    started = (unit_settings(unit, root) or {}).get("ExecStart") if unit else None
    if not started:
        return None
    found = re.search(r"argv\[\]=(.*?) ;", started)  # `systemctl show` prints a structure
    try:
        return tuple(shlex.split(found[1] if found else started)[1:])
    except ValueError:
        return None


def _status(pid: int, root: Path) -> dict[str, str]:
    lines = (read_text(process_directory(root, pid) / "status") or "").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _ids(status: Mapping[str, str], name: str, *, effective: bool) -> int | None:
    words = status.get(name, "").split()
    return int(words[1 if effective else 0]) if len(words) > 1 else None
