"""What an adoption would do with the line of a module that Modfleet did not install."""

from collections.abc import Sequence
from dataclasses import dataclass

from rollout.agent.inspection.start_lines import LoadLine, StartLines
from rollout.agent.node.persistence import Persistence


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOver:
    """The line of a module that Modfleet did not install. `place` and `line` are empty if there is none.

    `obstacle`: why no line of Modfleet can take its place, empty if one can. `by_person`: a person or a tool must write it.
    """

    place: str
    line: LoadLine | None
    obstacle: str
    by_person: bool


def take_over(persistence: Persistence, start: StartLines, name: str, path: str) -> TakeOver:
    """Return what an adoption of the module `name` at `path` would do with its line. `start`: the lines as they are written.

    An adoption that was not finished has left a line that loads the module from the module store.
    """
    store = persistence.store.server_root / name
    lines = [each for each in start.lines if each.path == path or each.is_below(store)]
    return TakeOver(
        place=lines[0].place if lines else "",
        line=lines[0] if lines else None,
        obstacle=_obstacle(persistence, start, lines),
        by_person=persistence.is_external or any(not persistence.may_replace(each.file) for each in lines),
    )


def _obstacle(persistence: Persistence, start: StartLines, lines: Sequence[LoadLine]) -> str:
    if persistence.is_observer:
        return "Modfleet writes no line on this node: it only observes."
    if start.problem:
        return f"It is not known which lines load it: {start.problem} `modfleet agent doctor` says how to let the agent read."
    if len(lines) > 1:
        return f"More than one line loads it: {' and '.join(each.place for each in lines)}."
    if persistence.is_external:
        return ""
    if not lines:
        if persistence.owner == "include":
            return ""
        return "No line loads it, and CONFIG REWRITE would write its foreign path. Restart the server without it."
    (line,) = lines
    if not line.file:
        return "The line is on the server's command line. Remove it there, and restart the server."
    if line.file != start.main and not persistence.is_ours(line):
        return f"The line is in {line.file}. Modfleet changes only its own file and the main file {start.main}."
    return ""
