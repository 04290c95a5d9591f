"""How much processor time the parts of a cluster take, by what Linux counts of their processes."""

import os
from collections import defaultdict
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
#: By the beginning of a process's name in `run/`, in the order in which they are shown.
PARTS = {
    "nodes": "agents",
    "worker": "control worker",
    "relay": "relay",
    "api": "API",
    "broker": "broker, server",
    "server": "broker, server",
}


def seconds_of(run: Path) -> dict[str, float]:
    """By part, the seconds that the processes named in the folder `run` have taken, with their children."""
    sessions = {int(file.read_text()): _part(file.stem) for file in run.glob("*.pid")}
    taken: dict[str, float] = defaultdict(float)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # After the name, which may hold anything: state, parent, group, session, ... (proc(5)).
            words = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if (session := int(words[3])) in sessions:
            taken[sessions[session]] += sum(map(int, words[11:15])) / TICKS
    return taken


def _part(name: str) -> str:
    return next(part for beginning, part in PARTS.items() if name.startswith(beginning))
