"""A line of the server's configuration file that CONFIG REWRITE by another hand has written while the agent held a parameter."""

from rollout.agent.failure import Failure
from rollout.agent.inspection.configuration import Directive, read_configuration
from rollout.agent.inspection.host_files import ROOT
from rollout.agent.inspection.start_lines import LoadLine
from rollout.agent.module_files.main_file import change_lines
from rollout.agent.node.persistence import Persistence

#: Names of older servers, which new ones still read.
FORMER_NAMES = {"replica-priority": "slave-priority", "cluster-replica-no-failover": "cluster-slave-no-failover"}


def correct_line(persistence: Persistence, name: str, ours: str, value: str) -> str:
    """Make the next start of the server read `value` instead of `ours`. Return what a person must do, empty if nothing."""
    try:
        if (line := _line(persistence, name, ours)) and not persistence.is_external:
            if persistence.owner == "rewrite":
                persistence.rewrite()
            else:
                as_words = LoadLine(file=line.file, place=line.place, path=line.words[1], args=line.words[2:])
                change_lines(persistence.on_agent(line.file), {as_words: f"{name} {value}"})
            line = _line(persistence, name, ours)
    except (Failure, OSError) as error:
        return f"The next start of the server may read `{name} {ours}`: write `{name} {value}` into its configuration. {error}"
    return f"Write `{name} {value}` into {line.place}." if line else ""


def _line(persistence: Persistence, name: str, ours: str) -> Directive | None:
    """Return the line that counts, if it has our value."""
    if not (main := persistence.read().main):
        return None
    found = read_configuration(main, persistence.reader.view or ROOT)
    names = {name, FORMER_NAMES[name]}
    lines = [each for each in found.directives if each.words[0] in names]
    return lines[-1] if lines and lines[-1].words[1:] == (ours,) else None
