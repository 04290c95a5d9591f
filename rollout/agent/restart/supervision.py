"""How the server is restarted, and what starts it again."""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rollout.agent.inspection.host_files import ROOT
from rollout.agent.inspection.process import server_pid, unit_of
from rollout.agent.inspection.systemd import TIMEOUTS, time_limit, unit_settings
from rollout.agent.server.texts import number
from rollout.agent.settings import AgentSettings, RestartWay

#: SHUTDOWN ends the server with the exit status 0: systemd.service(5), the table of `Restart=`.
RESTARTING = frozenset({"always", "on-success"})
#: How fast a server surely writes and reads its data, bytes per second. A busy disk or a data type of a module is slow.
BYTES_PER_SECOND = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """`unit`: the systemd service that the server belongs to, empty if none is seen. `problem`: why the agent must not restart
    the server, one sentence, empty if it may; `fix`: what to do about it.
    """

    way: RestartWay
    unit: str = ""
    problem: str = ""
    fix: str = ""

    @property
    def refusal(self) -> str:
        """Return the problem with what to do, empty if there is none."""
        return f"{self.problem} {self.fix}".strip()


def supervision_of(settings: AgentSettings, info: Mapping[str, str], root: Path = ROOT) -> Supervision:
    """Return how the server is restarted. `info`: the sections `server` and `memory` of INFO."""
    pid = server_pid(settings.server_url, info, root)
    unit = settings.server_unit or (unit_of(pid, root) if pid else None) or ""
    values = unit_settings(unit, root) if unit else None
    return supervision(settings, unit, values, used_bytes=number(info.get("used_memory")) or 0)


def supervision(
    settings: AgentSettings, unit: str, values: Mapping[str, str] | None, *, used_bytes: int = 0
) -> Supervision:
    """Return the same from what is known about the unit. `values`: its settings, None if they are not known."""
    way = settings.restart or "shutdown"
    problem, fix = _problem(settings, way, unit, values, used_bytes) or ("", "")
    return Supervision(way=way, unit=unit, problem=problem, fix=fix)


def _problem(
    settings: AgentSettings, way: RestartWay, unit: str, values: Mapping[str, str] | None, used_bytes: int
) -> tuple[str, str] | None:
    if way == "none":
        return "The agent's settings say that this server is never restarted: MODFLEET_RESTART=none.", ""
    if found := _missing_program(settings, way):
        return found
    if way == "external":
        return None
    if settings.access != "restart":
        words = f"modfleet agent install --name {settings.node} --add restart, or set MODFLEET_ACCESS=restart"
        return "The agent may not restart the server.", f"{words}, and give its user the rights in docs/howto/doctor.md"
    if way == "systemd" and not unit:
        return "No systemd service of the server is seen, but MODFLEET_RESTART is systemd.", "Set MODFLEET_SERVER_UNIT."
    if way == "shutdown" and (found := _stays_down(settings, unit, values)):
        return found
    return None if values is None else _is_too_slow(unit, values, used_bytes)


def _missing_program(settings: AgentSettings, way: RestartWay) -> tuple[str, str] | None:
    """A restart whose last command cannot run would leave the server down, or out of its load balancer."""
    commands = {"PRE_COMMAND": settings.pre_command, "POST_COMMAND": settings.post_command}
    if way == "command":
        commands["RESTART_COMMAND"] = settings.restart_command
    for name, words in commands.items():
        if words and shutil.which(words[0]) is None:
            return (
                f"MODFLEET_{name}: {words[0]} is no program that the agent can run.",
                "Correct its path, or its mode.",
            )
    return None


def _stays_down(settings: AgentSettings, unit: str, values: Mapping[str, str] | None) -> tuple[str, str] | None:
    if values is None:
        if settings.restart:
            return None
        return (
            "It is not known what would start the server again after SHUTDOWN.",
            "If something does, set MODFLEET_RESTART=shutdown. Otherwise see docs/howto/restarts.md.",
        )
    if (restart := values.get("Restart", "no")) in RESTARTING:
        return None
    return (
        f"{unit} has Restart={restart}, so systemd would not start the server again after SHUTDOWN.",
        "Set Restart=always in the unit, or MODFLEET_RESTART=systemd for the agent.",
    )


def _is_too_slow(unit: str, values: Mapping[str, str], used_bytes: int) -> tuple[str, str] | None:
    """Return why systemd could kill a server of this size while it starts or stops."""
    needed = used_bytes / BYTES_PER_SECOND
    limits = {name: time_limit(values, name) for name in TIMEOUTS}
    name, limit = min(limits.items(), key=lambda each: each[1])
    if limit >= needed:
        return None
    size = f"{math.ceil(needed)} s for {used_bytes / 1e9:.3g} GB of data"
    words = f"{unit} has {name}={limit:g}, but the server may need {size}: systemd would kill it."
    return words, f"Set {name}=infinity in the unit."
