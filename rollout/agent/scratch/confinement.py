"""What a scratch server may see and use: its user, its namespaces, the sandbox of the server's unit, and limits.

An agent that can create namespaces gives the scratch server those of `namespaces`. Otherwise bubblewrap may work: some
systems allow it to create namespaces, and no other program. Both are used with the filter of the `barrier`. Without
namespaces, the scratch server is behind the whole barrier.
"""

import ctypes
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rollout.agent.inspection.process import Process
from rollout.agent.inspection.systemd import (
    LIMITS,
    OTHER_SANDBOX_SETTINGS,
    forbids_execution,
    is_on,
    listed_paths,
    size_of,
    unit_settings,
)
from rollout.agent.scratch.barrier import BUBBLEWRAP_FILTER
from rollout.agent.settings import AgentSettings

#: Files that a scratch server may write, bytes each: its log and an empty RDB.
LARGEST_FILE = 64_000_000
MOST_OPEN_FILES = 1024
#: How long namespaces or bubblewrap may take to show that they work here, seconds.
TRY_SECONDS = 5.0
#: Parts of the barrier: Landlock, and the filter of system calls. With namespaces, only the filter is needed.
BARRIER, CALLS = frozenset({"files", "calls"}), frozenset({"calls"})
#: Directories for temporary files, terminals, and those of all agents of the host.
HIDDEN = ("/tmp", "/var/tmp", "/dev/shm", "/dev/pts", "/var/lib/modfleet-agent", "/etc/modfleet")  # noqa: S108 - they are hidden
HOMES = ("/home", "/root", "/run/user")
#: prctl(2).
PR_GET_MDWE = 66


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """`user`: uid, gid and groups of the scratch server, None for the agent's. `is_isolated`: it gets namespaces of its own.
    `barred`: the parts of the barrier that it is behind: `files`, `calls`. `hidden`: directories and files that it does not
    see, such as the agent's secrets. `shown`: files and directories that are seen nevertheless. `unit` and `settings`: the
    server's systemd unit. `modules`: the directory of modules as the agent and as the server sees it. `is_asked_for`: a person
    has named the program. `differences`: what is not as it is for the live server."""

    user: tuple[int, int, tuple[int, ...]] | None = None
    is_isolated: bool = False
    bubblewrap: str = ""
    barred: frozenset[str] = frozenset()
    hidden: tuple[Path, ...] = ()
    shown: tuple[Path, ...] = ()
    megabytes: int = 1024
    unit: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    modules: tuple[Path, Path] | None = None
    is_asked_for: bool = False
    differences: tuple[str, ...] = field(default=(), compare=False)

    @property
    def is_apart(self) -> bool:
        """Return True if the scratch server cannot read the agent's secrets, and may execute what others own."""
        return self.user is not None or self.is_isolated or bool(self.bubblewrap) or self.barred == BARRIER

    def showing(self, paths: Iterable[str | Path]) -> "Confinement":
        """Return the same, but these files are seen, wherever they are."""
        return replace(self, shown=(*self.shown, *map(Path, paths)))

    def trusts(self, path: Path) -> bool:
        """Return True if the agent may execute the file: the agent's user could otherwise run what another user wrote."""
        if self.is_apart or self.is_asked_for:
            return True
        found = path.stat()
        return found.st_uid in {0, os.geteuid()} and not found.st_mode & 0o022

    def forbids(self, path: str | Path) -> bool:
        """Return True if the server's unit forbids it to execute this file, which has a path as the agent sees it."""
        seen = Path(path)
        if self.modules and seen.is_relative_to(self.modules[0]):
            seen = self.modules[1] / seen.relative_to(self.modules[0])
        return forbids_execution(self.settings, str(seen))

    def words(self, program: Path, directory: Path, arguments: Sequence[str]) -> list[str]:
        """Return the command line of the server."""
        if self.is_isolated or not self.bubblewrap:
            return [str(program), *arguments]
        return [
            *(self.bubblewrap, "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev"),
            *("--proc", "/proc", "--tmpfs", "/tmp"),  # noqa: S108 - a directory of its own
            *(word for each in self.hidden for word in _hide(each)),
            *(word for each in (*self.shown, program) for word in ("--ro-bind-try", str(each), str(each))),
            *("--bind", str(directory), str(directory), "--chdir", str(directory)),
            *(("--seccomp", str(BUBBLEWRAP_FILTER)) if self.barred else ()),
            *("--", str(program), *arguments),
        ]

    def view(self, program: Path) -> dict[str, Any] | None:
        """Return what `keeper` mounts for the server, None without namespaces of its own."""
        if not self.is_isolated:
            return None
        # Also by their own names: a link may be in a directory that is hidden.
        shown = {name: not self.forbids(each) for each in self.shown for name in _names_of(each)}
        executable: dict[str, bool] = {}
        if barred := listed_paths(self.settings.get("NoExecPaths", "")):
            executable |= dict.fromkeys(map(os.path.realpath, barred), False)
            allowed = listed_paths(self.settings.get("ExecPaths", ""))
            executable |= dict.fromkeys(map(os.path.realpath, allowed), True)
        return {
            "new_user": self.user is None,
            "executable": dict(sorted(executable.items(), key=lambda each: each[0].count("/"))),
            "hidden": self._all_hidden(),
            "shown": shown | dict.fromkeys(_names_of(program), True),
        }

    def barrier(self, program: Path, directory: str, own: str) -> dict[str, Any] | None:
        """Return what `barrier` lets the server reach, None if it is behind none. It writes into `own`, in `directory`."""
        if not self.barred:
            return None
        shown = [directory, *(name for each in (*self.shown, program) for name in _names_of(each))]
        return {
            "own": own,
            "hidden": self._all_hidden(),
            "shown": shown,
            "namespaces": self.is_isolated or bool(self.bubblewrap),
            **{each: each in self.barred for each in BARRIER},
        }

    def _all_hidden(self) -> list[str]:
        hidden: list[str | Path] = [*HIDDEN, *self.hidden, *listed_paths(self.settings.get("InaccessiblePaths", ""))]
        if is_on(self.settings.get("ProtectHome", "")) and self.settings["ProtectHome"] != "read-only":
            hidden += HOMES
        return sorted({os.path.realpath(each) for each in hidden})

    @property
    def denies_write_execute(self) -> bool:
        """Return True if memory of the server can never become executable."""
        return is_on(self.settings.get("MemoryDenyWriteExecute", "")) and _knows_write_execute()

    def resources(self, seconds: float) -> dict[str, int]:
        """Return the limits of getrlimit(2) for a program that may run for so long."""
        sizes = {name: size_of(self.settings.get(setting, "")) for setting, name in LIMITS.items()}
        limits = {name: size for name, size in sizes.items() if size is not None}
        return limits | {
            "RLIMIT_CORE": 0,
            "RLIMIT_CPU": int(seconds) + 1,
            "RLIMIT_DATA": min(self.megabytes * 1_000_000, limits.get("RLIMIT_DATA", sys.maxsize)),
            "RLIMIT_FSIZE": min(LARGEST_FILE, limits.get("RLIMIT_FSIZE", sys.maxsize)),
            "RLIMIT_NOFILE": limits.get("RLIMIT_NOFILE", MOST_OPEN_FILES),
        }


def confinement_of(settings: AgentSettings, process: Process | None) -> Confinement:
    """Return how the agent's scratch servers are confined. `process`: the live server's, None if it is not known."""
    secrets = [settings.journal_dir]
    for each in (settings.identity_file, settings.server_password_file, settings.server_key):
        secrets += [each] if each else []
    if settings.identity_file:  # the settings from the control plane are next to it
        secrets.append(settings.identity_file.parent)
    unit = (process and process.unit) or ""
    made = Confinement(
        user=_user(process),
        hidden=tuple(sorted({each.resolve() for each in secrets if each.exists()})),
        shown=(settings.modules_dir.resolve(),),
        megabytes=settings.scratch_megabytes,
        unit=unit,
        settings=(unit_settings(unit) if unit else None) or {},
        modules=(settings.modules_dir.resolve(), settings.server_modules_dir or settings.modules_dir),
    )
    made = kept_apart(made)
    return replace(made, differences=tuple(_differences(made, process)))


def kept_apart(made: Confinement) -> Confinement:
    """Return the same with the isolation that works here: namespaces, else bubblewrap, else the whole barrier."""
    if _namespaces_work(made.user is None):
        return replace(made, is_isolated=True, barred=_barrier() & CALLS)
    if made.user is None and (found := shutil.which("bwrap")) and _works(found):
        return replace(made, bubblewrap=found, barred=_barrier() & CALLS)
    return replace(made, barred=_barrier())


def scratch_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a scratch server gets of the agent's environment: nothing that may be a secret."""
    return {name: environ[name] for name in ("PATH", "LANG") if name in environ}


def _names_of(path: Path) -> tuple[str, str]:
    return os.path.realpath(path), os.path.abspath(path)  # noqa: PTH100 - without `..`, and with its links


def _hide(path: Path) -> tuple[str, ...]:
    return ("--tmpfs", str(path)) if path.is_dir() else ("--ro-bind", os.devnull, str(path))


def _user(process: Process | None) -> tuple[int, int, tuple[int, ...]] | None:
    """Return the live server's user, if the agent may become it."""
    if os.geteuid() != 0 or process is None or not process.uid or process.gid is None:
        return None
    return process.uid, process.gid, process.groups or ()


def _differences(made: Confinement, process: Process | None) -> Iterable[str]:
    yield f"memory: at most {made.megabytes} MB"
    yield "configuration: only modules and their settings"
    yield "environment: only PATH and LANG"
    if process is None:
        yield "user: the agent's; the server's process is not visible"
    elif made.user is None and process.uid != os.geteuid():
        yield f"user: the agent's, not uid {process.uid}"
    if made.is_isolated or made.bubblewrap:
        yield "files: read-only, but for its own directory"
        yield "network: only loopback, of its own"
        if not made.barred:
            yield "isolation: no filter of system calls; it can hold up others that open or lock a file of its user"
    else:
        yield from _unisolated(made)
    if made.unit and not made.settings:
        yield f"sandbox: the agent's; the settings of {made.unit} are not known"
    lost = list(OTHER_SANDBOX_SETTINGS)
    if not made.is_isolated:
        lost += ["NoExecPaths", "InaccessiblePaths", "PrivateTmp", "ProtectHome", "ProtectSystem", "ReadOnlyPaths"]
    if not made.denies_write_execute:
        lost.append("MemoryDenyWriteExecute")
    for each in sorted(lost):
        if is_on(made.settings.get(each, "")):
            yield f"sandbox: {each} of {made.unit}"


def _unisolated(made: Confinement) -> Iterable[str]:
    """Yield what is not kept from a scratch server without namespaces."""
    if not made.barred:
        yield "isolation: none; it sees the files, the processes and the network that its user sees"
        return
    yield "isolation: no namespaces; it sees the names and arguments of the host's processes"
    if "files" in made.barred:
        yield "files: read-only, but for its own directory"
    else:
        yield "files: it can read and change what its user can, such as the agent's secrets"
    if "calls" in made.barred:
        yield "network: none"
        yield "processes: it can send signals only to itself"
    else:
        yield "network: the host's; it can talk to the live server"
        yield "processes: it can end those of its user"


def _knows_write_execute() -> bool:
    answer: int = ctypes.CDLL(None).prctl(PR_GET_MDWE, 0, 0, 0, 0)
    return answer >= 0


def keeper_words(*arguments: str) -> list[str]:
    """Return the command line of the keeper. It imports neither from its directory, PYTHONPATH nor site-packages, except the
    project itself."""
    place = str(Path(__file__).parents[3])
    code = f"import sys; sys.path.append({place!r}); from rollout.agent.scratch import keeper; keeper.run(sys.argv[1:])"
    return [sys.executable, "-I", "-S", "-c", code, *arguments]


@functools.cache
def _namespaces_work(new_user: bool) -> bool:
    """Return True if the keeper can give namespaces to a server here."""
    view = {"new_user": new_user, "executable": {}, "hidden": [], "shown": {}}
    return _is_tried({"view": view, "barrier": None})


@functools.cache
def _barrier() -> frozenset[str]:
    """Return the parts of the barrier that work here."""
    tried = {
        each: {
            "own": "/var",
            "hidden": [],
            "shown": [],
            "namespaces": False,
            **{part: part == each for part in BARRIER},
        }
        for each in BARRIER
    }
    return frozenset(each for each, barrier in tried.items() if _is_tried({"view": None, "barrier": barrier}))


def _is_tried(limits: dict[str, Any]) -> bool:
    """Return True if the keeper can start a program so."""
    words = keeper_words(json.dumps(limits))
    try:
        return subprocess.run(words, capture_output=True, timeout=TRY_SECONDS, check=False, cwd="/").returncode == 0  # noqa: S603 - our own program
    except (OSError, subprocess.SubprocessError):
        return False


@functools.cache
def _works(bubblewrap: str) -> bool:
    words = [bubblewrap, "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    try:
        return subprocess.run(words, capture_output=True, timeout=TRY_SECONDS, check=False).returncode == 0  # noqa: S603 - fixed words
    except (OSError, subprocess.SubprocessError):
        return False
