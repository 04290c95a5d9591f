"""What a scratch server may see and use: its user, bubblewrap, and limits of its resources."""

import functools
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rollout.agent.inspection.process import Process
from rollout.agent.settings import AgentSettings

#: Files that a scratch server may write, bytes each: its log and an empty RDB.
LARGEST_FILE = 64_000_000
MOST_OPEN_FILES = 1024
#: How long bubblewrap may take to show that it works here, seconds.
TRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """`user`: uid, gid and groups of the scratch server, None for the agent's. `hidden`: directories and files with the
    agent's secrets, which bubblewrap hides. `shown`: files and directories that are seen nevertheless. `is_asked_for`: a
    person has named the program. `differences`: what is not as it is for the live server."""

    user: tuple[int, int, tuple[int, ...]] | None = None
    bubblewrap: str = ""
    hidden: tuple[Path, ...] = ()
    shown: tuple[Path, ...] = ()
    megabytes: int = 1024
    is_asked_for: bool = False
    differences: tuple[str, ...] = field(default=(), compare=False)

    @property
    def is_apart(self) -> bool:
        """Return True if the scratch server cannot read the agent's secrets, and may execute what others own."""
        return self.user is not None or bool(self.bubblewrap)

    def showing(self, paths: Iterable[str | Path]) -> "Confinement":
        """Return the same, but these files are seen, wherever they are."""
        return replace(self, shown=(*self.shown, *map(Path, paths)))

    def trusts(self, path: Path) -> bool:
        """Return True if the agent may execute the file: the agent's user could otherwise run what another user wrote."""
        if self.is_apart or self.is_asked_for:
            return True
        found = path.stat()
        return found.st_uid in {0, os.geteuid()} and not found.st_mode & 0o022

    def words(self, program: Path, directory: Path, arguments: Sequence[str]) -> list[str]:
        """Return the command line of the server."""
        if not self.bubblewrap:
            return [str(program), *arguments]
        return [
            *(self.bubblewrap, "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev"),
            *("--proc", "/proc", "--tmpfs", "/tmp"),  # noqa: S108 - a directory of its own
            *(word for each in self.hidden for word in _hide(each)),
            *(word for each in (*self.shown, program) for word in ("--ro-bind-try", str(each), str(each))),
            *("--bind", str(directory), str(directory), "--chdir", str(directory)),
            *("--", str(program), *arguments),
        ]

    def resources(self, seconds: float) -> dict[str, int]:
        """Return the limits of getrlimit(2) for a program that may run for so long."""
        return {
            "RLIMIT_CORE": 0,
            "RLIMIT_CPU": int(seconds) + 1,
            "RLIMIT_DATA": self.megabytes * 1_000_000,
            "RLIMIT_FSIZE": LARGEST_FILE,
            "RLIMIT_NOFILE": MOST_OPEN_FILES,
        }


def confinement_of(settings: AgentSettings, process: Process | None) -> Confinement:
    """Return how the agent's scratch servers are confined. `process`: the live server's, None if it is not known."""
    user, bubblewrap = _user(process), ""
    if user is None and (found := shutil.which("bwrap")) and _works(found):
        bubblewrap = found
    secrets = [settings.journal_dir]
    for each in (settings.identity_file, settings.server_password_file, settings.server_key):
        secrets += [each] if each else []
    if settings.identity_file:  # the settings from the control plane are next to it
        secrets.append(settings.identity_file.parent)
    return Confinement(
        user=user,
        bubblewrap=bubblewrap,
        hidden=tuple(sorted({each.resolve() for each in secrets if each.exists()})),
        shown=(settings.modules_dir.resolve(),),
        megabytes=settings.scratch_megabytes,
        differences=tuple(_differences(settings, process, user)),
    )


def scratch_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a scratch server gets of the agent's environment: nothing that may be a secret."""
    return {name: environ[name] for name in ("PATH", "LANG") if name in environ}


def _hide(path: Path) -> tuple[str, ...]:
    return ("--tmpfs", str(path)) if path.is_dir() else ("--ro-bind", os.devnull, str(path))


def _user(process: Process | None) -> tuple[int, int, tuple[int, ...]] | None:
    """Return the live server's user, if the agent may become it."""
    if os.geteuid() != 0 or process is None or not process.uid or process.gid is None:
        return None
    return process.uid, process.gid, process.groups or ()


def _differences(
    settings: AgentSettings, process: Process | None, user: tuple[int, int, tuple[int, ...]] | None
) -> list[str]:
    found = [f"memory: at most {settings.scratch_megabytes} MB", "configuration: only modules and their settings"]
    if process is None:
        found.append("user: the agent's; the server's process is not visible")
    elif user is None and process.uid != os.geteuid():
        found.append(f"user: the agent's, not uid {process.uid}")
    if process and process.unit:
        found.append(f"sandbox: the agent's, not that of {process.unit}")
    return found


@functools.cache
def _works(bubblewrap: str) -> bool:
    words = [bubblewrap, "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    try:
        return subprocess.run(words, capture_output=True, timeout=TRY_SECONDS, check=False).returncode == 0  # noqa: S603 - fixed words
    except (OSError, subprocess.SubprocessError):
        return False
