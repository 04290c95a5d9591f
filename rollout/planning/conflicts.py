"""Finds nodes on which another module already has a command of the same name: the server would refuse to load both."""

from collections.abc import Sequence

from rollout.domain.placement.commands import Skip
from rollout.messages import Activation, Reason
from rollout.models import Node
from rollout.planning.catalogue import ModuleVersion, module_versions
from rollout.planning.observed import Observed
from rollout.queries.modules import other_modules_on


def skips_for_taken_commands(module: ModuleVersion, nodes: Sequence[Node], observed: Observed) -> dict[str, Skip]:
    """Return the nodes that have loaded another module with a command of this one, or are about to load it. At most four
    queries. The server itself refuses what module.json does not declare."""
    commands = {node.name: module.commands(node.fitting_platforms) for node in nodes}
    if not any(commands.values()):
        return {}
    others = [
        (node, name, version)
        for node, name, version, activation in other_modules_on(observed.nodes, module.module_name)
        if commands.get(node) and activation == Activation.LOAD
    ]
    platforms = {node.name: node.fitting_platforms for node in nodes}
    known = module_versions({(name, version) for _, name, version in others}) if others else {}
    skips: dict[str, Skip] = {}
    for node, name, version in others:
        if taken := sorted(commands[node] & known[name, version].commands(platforms[node])):
            words = f"{node} has loaded {name} {version}, which also has {', '.join(taken)}. Remove {name} there first."
            skips.setdefault(node, (Reason.COMMAND_NAME_TAKEN, words))
    return skips
