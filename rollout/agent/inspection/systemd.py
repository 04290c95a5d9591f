"""The settings of the server's systemd service, and what they forbid."""

import math
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from rollout.agent.inspection.host_files import ROOT, on_host, read_text

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
#: How long a start and a stop may take. `systemctl show` calls them TimeoutStartUSec and TimeoutStopUSec.
TIMEOUTS = ("TimeoutStartSec", "TimeoutStopSec")
#: systemd's own limit of a start and of a stop, seconds: DefaultTimeoutStartSec.
DEFAULT_TIMEOUT = 90.0
_UNITS = {
    "us": 1e-6,
    "usec": 1e-6,
    "ms": 1e-3,
    "msec": 1e-3,
    "": 1,
    "s": 1,
    "sec": 1,
    "second": 1,
    "seconds": 1,
    "m": 60,
    "min": 60,
    "minute": 60,
    "minutes": 60,
    "h": 3600,
    "hr": 3600,
    "hour": 3600,
    "hours": 3600,
    "d": 86400,
    "day": 86400,
    "days": 86400,
    "w": 604800,
    "week": 604800,
    "weeks": 604800,
}
#: Limits of resources, by their names in getrlimit(2).
LIMITS = {f"Limit{each}": f"RLIMIT_{each}" for each in ("AS", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "STACK")}
#: Settings that only systemd itself can give to a process.
OTHER_SANDBOX_SETTINGS = (
    "AppArmorProfile",
    "LockPersonality",
    "MemoryHigh",
    "MemoryMax",
    "PrivateDevices",
    "RestrictAddressFamilies",
    "RestrictFileSystems",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "RootDirectory",
    "RootImage",
    "SELinuxContext",
    "SystemCallArchitectures",
    "SystemCallFilter",
)
UNIT_SETTINGS = (
    *LIST_SETTINGS,
    "User",
    "Group",
    "Restart",
    *TIMEOUTS,
    "UMask",
    "ProtectSystem",
    "ProtectHome",
    "PrivateTmp",
    "MemoryDenyWriteExecute",
    *OTHER_SANDBOX_SETTINGS,
    *LIMITS,
)


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


def is_on(value: str) -> bool:
    """Return True if this value of a setting has an effect: it is neither empty, `no`, nor no limit."""
    return value.strip() not in {"", "no", "false", "off", "0", "infinity", "~", "[not set]"}


def listed_paths(value: str) -> list[str]:
    """Return the paths of a setting such as `ExecPaths`, without the signs before them."""
    return [each.lstrip("-+") for each in value.split()]


def size_of(value: str) -> int | None:
    """Return the hard limit that a setting such as `LimitNOFILE` gives, None if it gives none: systemd.exec(5)."""
    found = re.fullmatch(r"(\d+)([KMGT]?)", value.rpartition(":")[2].strip())
    return int(found[1]) * 1024 ** " KMGT".index(found[2] or " ") if found else None


def time_limit(settings: Mapping[str, str], name: str) -> float:
    """Return the limit of `TIMEOUTS` that the unit has, seconds, `inf` for none. Unreadable is as systemd's default."""
    value = settings.get(name, "").strip()
    if value in {"infinity", "0"}:
        return math.inf
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]*)\s*", value)
    if not parts or any(unit not in _UNITS for _, unit in parts):
        return DEFAULT_TIMEOUT
    return sum(float(count) * _UNITS[unit] for count, unit in parts)


def _longest(paths: str, path: str) -> int:
    """Return the length of the longest of `paths` that is `path` or above it, in parts; -1 if there is none."""
    above = [PurePosixPath(each) for each in listed_paths(paths)]
    return max((len(each.parts) for each in above if PurePosixPath(path).is_relative_to(each)), default=-1)


def _shown(unit: str) -> dict[str, str] | None:
    words = ["systemctl", "show", f"--property={','.join((*map(_shown_name, UNIT_SETTINGS), 'LoadState'))}", "--", unit]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program, and the unit's name after `--`
            words, capture_output=True, text=True, timeout=SYSTEMCTL_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    pairs = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if pairs.pop("LoadState", "") != "loaded":
        return None
    for name in TIMEOUTS:
        pairs[name] = pairs.pop(_shown_name(name), "")
    return {key: value for key, value in pairs.items() if value}


def _shown_name(setting: str) -> str:
    """Return the name by which `systemctl show` prints a setting: it prints times in microseconds, or in words."""
    return setting.replace("Sec", "USec") if setting in TIMEOUTS else setting


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
    text = re.sub(r"\\\n\s*", " ", read_text(path) or "")
    for line in (each.strip() for each in text.splitlines()):
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and line[0] not in "#;":
            key, value = line.split("=", 1)
            yield key.strip(), value.strip()
