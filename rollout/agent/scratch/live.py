"""The live server, as far as a scratch server has to be like it."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rollout.agent.inspection.host_files import ROOT
from rollout.agent.inspection.mounts import sees_same
from rollout.agent.inspection.process import Process, read_process, server_pid
from rollout.agent.scratch.confinement import Confinement, confinement_of
from rollout.agent.scratch.server import UnavailableError
from rollout.agent.server.observation import product
from rollout.agent.settings import AgentSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveServer:
    """`program`: on disk, as the agent sees it. `product`: such as `redis 7.0.15`. `process` is None if it is not visible.

    `config_file` is empty if the server was started without one. `running`: the program of the process, which may have been
    replaced on disk since its start; None if the agent cannot read it.
    """

    program: Path
    running: Path | None = None
    product: str
    config_file: str
    process: Process | None
    confinement: Confinement


def live_server(settings: AgentSettings, info: Mapping[str, str]) -> LiveServer:
    """Return the live server whose INFO this is. Raises: `UnavailableError` if its program is not known."""
    pid = server_pid(settings.server_url, info)
    process = None if pid is None else read_process(pid)
    return LiveServer(
        program=settings.server_binary or _program(info, process),
        running=None if settings.server_binary else _running(process),
        product=" ".join(product(info)),
        config_file=info.get("config_file", ""),
        process=process,
        confinement=confinement_of(settings, process),
    )


def _running(process: Process | None) -> Path | None:
    """Return the program of a process whose file was replaced or deleted on disk."""
    if process is None or not (process.executable or "").endswith(" (deleted)"):
        return None
    path = Path(f"/proc/{process.pid}/exe")
    return path if os.access(path, os.R_OK) else None


def _program(info: Mapping[str, str], process: Process | None) -> Path:
    named = info.get("executable", "")
    advice = "Set MODFLEET_SERVER_BINARY to the same program of the agent's host."
    if not named.startswith("/"):
        raise UnavailableError(f"The server does not name its program. {advice}")
    if process and sees_same("/", "/", process.pid, ROOT) is False:
        raise UnavailableError(f"The server runs in another container than the agent. {advice}")
    # A server that a shell found in PATH names a file in its working directory that does not exist. Not the target of
    # /proc/<pid>/exe: Debian's redis-server is a link to redis-check-rdb, which looks at the name that it was started by.
    found = named if Path(named).is_file() else shutil.which(Path(named).name)
    if not found:
        raise UnavailableError(f"The server's program {named} is not visible to the agent. {advice}")
    return Path(found)
