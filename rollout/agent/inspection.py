"""Reads facts about the server's process from its host: process, configuration files, systemd unit, mounts, labels.

Nothing here changes the host or asks the server. `root` is the directory that holds the host's file system, `/` outside
of tests. All returned paths are as the host sees them, without `root`. An unknown fact is None.
"""

import os
import re
import shlex
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from glob import escape, iglob
from ipaddress import ip_address
from itertools import islice
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from rollout.agent.regular_file import open_regular

ROOT = Path("/")
#: A process whose start differs by more than this from the server's uptime is another one, seconds.
UPTIME_SECONDS = 5.0
#: Redis and Valkey refuse deeper includes.
DEEPEST_INCLUDE = 16
#: The most configuration files that are read, the most bytes of each, and the most lines of all. The server names the
#: first file, and may be hostile.
MOST_FILES = 1_000
MOST_BYTES = 1_000_000
MOST_LINES = 100_000
#: The longest time for `systemctl show`, seconds.
SYSTEMCTL_SECONDS = 3.0
#: Directories of units, the first wins: systemd.unit(5).
UNIT_DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
#: Settings that systemd collects over all files. An empty value resets them. The last value of any other setting wins.
LIST_SETTINGS = ("ExecPaths", "NoExecPaths", "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "ExecStart")
UNIT_SETTINGS = (
    *LIST_SETTINGS,
    "User",
    "Group",
    "Restart",
    "UMask",
    "ProtectSystem",
    "ProtectHome",
    "PrivateTmp",
    "RootDirectory",
    "RootImage",
    "MemoryDenyWriteExecute",
)


def on_host(root: Path, path: str | os.PathLike[str]) -> Path:
    """Return where the host's `path` is found below `root`."""
    return root / os.fspath(path).lstrip("/")


# --- Process ----------------------------------------------------------------------------------------------------------


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
        pid = _peer(path) or _owner(_unix_inodes(path, root), root)
    elif not is_local(parts.hostname or "localhost"):
        return None
    else:
        pid = _owner(_tcp_inodes(parts.port or 6379, root), root)
    return pid or _confirmed(info, root)


def process(pid: int, root: Path = ROOT) -> Process:
    """Return what this host tells about the process."""
    status = _status(pid, root)
    unit = unit_of(pid, root)
    return Process(
        pid=pid,
        executable=_link(_proc(root, pid) / "exe"),
        arguments=_arguments(pid, unit, root),
        uid=_ids(status, "Uid", effective=True),
        gid=_ids(status, "Gid", effective=True),
        groups=tuple(int(each) for each in status["Groups"].split()) if "Groups" in status else None,
        unit=unit,
    )


def is_local(host: str) -> bool:
    """Return True if `host` is an address of this host: a socket can be bound to it."""
    try:
        if ip_address(host).is_loopback:
            return True
    except ValueError:
        if host == "localhost" or host.endswith(".localhost"):
            return True
    with suppress(OSError):
        for family, kind, protocol, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            with suppress(OSError), socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
                return True
    return False


def unit_of(pid: int, root: Path = ROOT) -> str | None:
    """Return the name of the systemd service that the process belongs to."""
    text = _text(_proc(root, pid) / "cgroup") or ""
    for line in text.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        services = [each for each in path.split("/") if each.endswith(".service")]
        if services and controllers in {"", "name=systemd"}:
            return services[-1]
    return None


def writes_to_socket(pid: int, root: Path = ROOT) -> bool:
    """Return True if the standard output of the process is seen to be a socket, as journald's is: systemd.exec(5)."""
    return (_link(_proc(root, pid) / "fd/1") or "").startswith("socket:")


def _proc(root: Path, pid: int | str) -> Path:
    return root / "proc" / str(pid)


def _peer(path: str) -> int | None:
    """Return the pid of the process that listens on the Unix socket. The kernel tells it to each client: unix(7)."""
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        client.connect(path)
        pid, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return pid or None  # 0: a process that this pid namespace does not see
    return None


def _unix_inodes(path: str, root: Path) -> set[str]:
    """Return the inodes of the sockets that listen on `path`: proc(5), /proc/net/unix."""
    lines = (_text(root / "proc/net/unix") or "").splitlines()[1:]
    rows = [line.split(maxsplit=7) for line in lines]
    listening = 0x10000  # __SO_ACCEPTCON
    return {row[6] for row in rows if len(row) == 8 and row[7] == path and int(row[3], 16) & listening}


def _tcp_inodes(port: int, root: Path) -> set[str]:
    rows = [
        line.split() for name in ("tcp", "tcp6") for line in (_text(root / "proc/net" / name) or "").splitlines()[1:]
    ]
    return {row[9] for row in rows if len(row) > 9 and row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}


def _owner(inodes: set[str], root: Path) -> int | None:
    """Return the only process that has one of these sockets open."""
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    owners = set()
    for directory in (root / "proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(_link(each) in wanted for each in (directory / "fd").iterdir()):
                owners.add(int(directory.name))
    return owners.pop() if len(owners) == 1 else None  # children of a server have its sockets too


def _confirmed(info: Mapping[str, str], root: Path) -> int | None:
    """Return `process_id`, if this host has a process with that pid, program and start."""
    try:
        pid, uptime = int(info["process_id"]), float(info["uptime_in_seconds"])
        program = PurePosixPath(info["executable"]).name
        stat = (_proc(root, pid) / "stat").read_text()
        booted = float((root / "proc/uptime").read_text().split()[0])
    except (KeyError, ValueError, OSError):
        return None
    comm = stat[stat.index("(") + 1 : stat.rindex(")")]
    started = int(stat[stat.rindex(")") + 2 :].split()[19]) / os.sysconf("SC_CLK_TCK")
    is_same = comm == program[:15] and abs((booted - started) - uptime) <= UPTIME_SECONDS
    return pid if is_same else None


def _arguments(pid: int, unit: str | None, root: Path) -> tuple[str, ...] | None:
    """Return the words after the program's name, from the process or else from the unit that has started it.

    A server replaces its command line by a title such as `redis-server *:6379`: one word, padded with NUL.
    """
    try:
        words = (_proc(root, pid) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
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
    lines = (_text(_proc(root, pid) / "status") or "").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _ids(status: Mapping[str, str], name: str, *, effective: bool) -> int | None:
    words = status.get(name, "").split()
    return int(words[1 if effective else 0]) if len(words) > 1 else None


# --- Configuration files ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Directive:
    """One line of a configuration file. `words` starts with its name in small letters. `line` counts from 1.

    An option of the command line has the line 0.
    """

    file: str
    line: int
    words: tuple[str, ...]

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.line else "the command line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The main configuration file with its includes, in the order in which a start reads them.

    `unread` names each file or pattern that could not be read, with the reason. With any, a missing line is unknown.
    """

    file: str
    directives: tuple[Directive, ...] = ()
    files: tuple[str, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)

    def all(self, name: str) -> list[Directive]:
        return [each for each in self.directives if each.words[0] == name]

    def last(self, name: str) -> str | None:
        """Return the first value of the last line with this name, which is the one that counts."""
        found = [each.words[1] for each in self.all(name) if len(each.words) > 1]
        return found[-1] if found else None


def configuration(file: str, root: Path = ROOT) -> Configuration:
    """Read the configuration file `file`, as INFO names it, and all its includes."""
    files: list[str] = []
    unread: dict[str, str] = {}
    lines = _read(file, root, None, DEEPEST_INCLUDE, files, unread)
    directives = tuple(islice(lines, MOST_LINES))
    if next(lines, None) is not None:
        unread[file] = f"more than {MOST_LINES} lines"
    return Configuration(file=file, directives=directives, files=tuple(files), unread=unread)


def from_arguments(arguments: tuple[str, ...]) -> tuple[Directive, ...]:
    """Return the options of a command line, such as `--port 0`, as lines. They count after those of the file."""
    lines: list[list[str]] = []
    for word in arguments:
        if word.startswith("--"):
            lines.append([word[2:].lower()])
        elif lines:
            lines[-1].append(word)
    return tuple(Directive(file="command line", line=0, words=tuple(words)) for words in lines)


def split_words(line: str) -> tuple[str, ...] | None:
    """Return the words of a configuration line as the server splits them. None if its quotes are not balanced.

    A word may go on after its quotes, as in Valkey 9. Redis does not start with such a line.
    """
    words = []
    rest = line.strip(" \t\r\n")
    while rest:
        match = _WORD.match(rest)
        if not match:
            return None
        words.append("".join(_unquoted(each[0]) for each in _PART.finditer(match[0])))
        rest = rest[match.end() :].lstrip(_SPACES)
    return tuple(words)


_SPACES = " \t\r\n\v\f"
_PART = re.compile(r"""[^\s"']++|"(?:\\.|[^"\\])*+"|'(?:\\'|[^'])*+'""")
_WORD = re.compile(rf"(?:{_PART.pattern})++(?!\S)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "a": "\a"}


def _unquoted(part: str) -> str:
    match part[0]:
        case "'":
            return part[1:-1].replace("\\'", "'")
        case '"':
            return re.sub(r"\\(x[0-9a-fA-F]{2}|.)", _unescaped, part[1:-1])
        case _:
            return part


def _unescaped(found: "re.Match[str]") -> str:
    return chr(int(found[1][1:], 16)) if len(found[1]) == 3 else _ESCAPES.get(found[1], found[1])


def _read(
    file: str, root: Path, directory: str | None, depth: int, files: list[str], unread: dict[str, str]
) -> Iterator[Directive]:
    """Yield the lines of a file and its includes. `directory` is the one that an earlier line `dir` has set."""
    if len(files) >= MOST_FILES:
        unread[file] = f"more than {MOST_FILES} files"
        return
    try:
        with open_regular(on_host(root, file)) as opened:
            content = opened.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # a NUL in the path
        unread[file] = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return
    if len(content) > MOST_BYTES:
        unread[file] = f"more than {MOST_BYTES} bytes"
        return
    text = content.decode(errors="surrogateescape").replace("\r\n", "\n")
    files.append(file)
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.strip().startswith("#"):
            continue
        words = split_words(line)
        if not words:
            unread[f"{file}:{number}"] = "unbalanced quotes"
            continue
        directive = Directive(file=file, line=number, words=(words[0].lower(), *words[1:]))
        yield directive
        if directive.words[0] == "dir" and len(words) > 1 and words[1].startswith("/"):
            directory = words[1]
        if directive.words[0] == "include" and len(words) > 1:
            for included in _included(words[1], root, directory, unread):
                if depth == 0:
                    unread[included] = "too many levels of includes"
                else:
                    yield from _read(included, root, directory, depth - 1, files, unread)


def _included(pattern: str, root: Path, directory: str | None, unread: dict[str, str]) -> list[str]:
    """Return the files of an `include` line. The server takes a pattern from 7.0 on, and reads the matches in order."""
    if not pattern.startswith("/"):
        if directory is None:  # relative to the directory in which the server was started
            unread[pattern] = "a relative path"
            return []
        pattern = f"{directory.rstrip('/')}/{pattern}"
    if not any(each in pattern for each in "*?["):
        return [pattern]
    base = str(root).rstrip("/")
    parent = on_host(root, pattern.rpartition("/")[0] or "/")
    if parent.is_dir() and not os.access(parent, os.R_OK | os.X_OK):
        unread[pattern] = "Permission denied"
    found = iglob(f"{escape(base)}{pattern}")  # noqa: PTH207 - as glob(3): `*` matches no name that starts with a dot
    return sorted(each.removeprefix(base) for each in islice(found, MOST_FILES + 1))


# --- systemd ----------------------------------------------------------------------------------------------------------


def unit_settings(unit: str, root: Path = ROOT) -> dict[str, str] | None:
    """Return the settings of `UNIT_SETTINGS` that the service has. None if the unit is not found.

    systemd itself is asked if it runs here. Otherwise the unit's files are read, with their drop-ins.
    """
    if root == ROOT and Path("/run/systemd/system").is_dir() and (shown := _shown(unit)):
        return shown
    return _from_files(unit, root)


def forbids_execution(settings: Mapping[str, str], path: str) -> bool:
    """Return True if `NoExecPaths` applies to `path`: the longest listed path above it decides, systemd.exec(5)."""
    no, yes = (_longest(settings.get(name, ""), path) for name in ("NoExecPaths", "ExecPaths"))
    return no > yes


def forbids_writing(settings: Mapping[str, str], path: str) -> bool:
    """Return True if the unit makes `path` read-only for its processes."""
    if _longest(settings.get("ReadWritePaths", ""), path) > _longest(settings.get("ReadOnlyPaths", ""), path):
        return False
    match settings.get("ProtectSystem", "no"):
        case "strict":
            protected = "/"
        case "full":
            protected = "/usr /boot /efi /etc"
        case "yes" | "true" | "1" | "on":
            protected = "/usr /boot /efi"
        case _:
            protected = ""
    return max(_longest(protected, path), _longest(settings.get("ReadOnlyPaths", ""), path)) >= 0


def _longest(paths: str, path: str) -> int:
    """Return the length of the longest of `paths` that is `path` or above it, in parts; -1 if there is none."""
    above = [PurePosixPath(each.lstrip("-+")) for each in paths.split()]
    return max((len(each.parts) for each in above if PurePosixPath(path).is_relative_to(each)), default=-1)


def _shown(unit: str) -> dict[str, str] | None:
    words = ["systemctl", "show", f"--property={','.join((*UNIT_SETTINGS, 'LoadState'))}", "--", unit]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program, and the unit's name after `--`
            words, capture_output=True, text=True, timeout=SYSTEMCTL_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    pairs = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if pairs.pop("LoadState", "") != "loaded":
        return None
    return {key: value for key, value in pairs.items() if value}


def _from_files(unit: str, root: Path) -> dict[str, str] | None:
    name, at, instance = unit.removesuffix(".service").partition("@")
    template = f"{name}@.service" if at else unit
    directories = [on_host(root, each) for each in UNIT_DIRECTORIES]
    names = dict.fromkeys((unit, template))
    fragment = next((path for each in names for path in (d / each for d in directories) if path.is_file()), None)
    if fragment is None:
        return None
    drop_ins: dict[str, Path] = {}
    for directory in directories:
        for each in ("service", template, unit):
            for path in (directory / f"{each}.d").glob("*.conf"):
                drop_ins.setdefault(path.name, path)
    settings: dict[str, str] = {}
    for path in (fragment, *(drop_ins[each] for each in sorted(drop_ins))):
        for key, value in _service_lines(path):
            if key not in UNIT_SETTINGS:
                continue
            expanded = value.replace("%i", instance).replace("%n", unit).replace("%p", name)
            if key in LIST_SETTINGS and expanded:
                expanded = f"{settings.get(key, '')} {expanded}".strip()
            settings[key] = expanded
    return {key: value for key, value in settings.items() if value}


def _service_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the settings in the section [Service] of a unit's file."""
    section = ""
    text = re.sub(r"\\\n\s*", " ", _text(path) or "")
    for line in (each.strip() for each in text.splitlines()):
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and line[0] not in "#;":
            key, value = line.split("=", 1)
            yield key.strip(), value.strip()


# --- Mounts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """The mount that a path is on. Two processes see the same directory if `device` and `inner` are equal.

    `inner` is the path inside the file system. `options` are those of the mount, such as `noexec` and `ro`.
    """

    point: str
    device: str
    inner: str
    options: frozenset[str]


def mount_of(path: str, pid: int | str = "self", root: Path = ROOT) -> Mount | None:
    """Return the mount of `path` as the process sees it: proc(5), /proc/<pid>/mountinfo."""
    found = None
    for line in (_text(_proc(root, pid) / "mountinfo") or "").splitlines():
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


# --- Mandatory access control -----------------------------------------------------------------------------------------


def selinux_enforces(root: Path = ROOT) -> bool | None:
    """Return True if SELinux denies what its policy does not allow; None if SELinux is not active."""
    text = _text(root / "sys/fs/selinux/enforce")
    return None if text is None else text.strip() == "1"


def selinux_label(path: str, root: Path = ROOT) -> str | None:
    """Return the SELinux context of a file, such as `system_u:object_r:lib_t:s0`."""
    try:
        return os.getxattr(on_host(root, path), "security.selinux").rstrip(b"\0").decode()
    except (OSError, UnicodeDecodeError):
        return None


def apparmor_is_active(root: Path = ROOT) -> bool | None:
    file = root / "sys/module/apparmor/parameters/enabled"
    text = _text(file)
    return text.strip() == "Y" if text is not None else None if file.exists() else False


def security_context(pid: int, root: Path = ROOT) -> str | None:
    """Return the SELinux context of the process, or its AppArmor profile with the mode; None if it cannot be read."""
    text = _text(_proc(root, pid) / "attr/current")
    return text.rstrip("\0\n") if text else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def _link(path: Path) -> str | None:
    try:
        return str(path.readlink())
    except OSError:
        return None
