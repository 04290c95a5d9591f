"""Finds the modules that need another one, before it is removed."""

from collections.abc import Sequence

from rollout.domain.errors import ModuleNeededError
from rollout.domain.words import some_of
from rollout.models import Node
from rollout.planning.catalogue import module_versions
from rollout.planning.observed import REACH, Observed
from rollout.queries.modules import other_modules_on


def refuse_if_needed(module_name: str, version: int, nodes: Sequence[Node], observed: Observed) -> None:
    """Raise `ModuleNeededError` if a module on one of the nodes needs this one, and no other version of this one there
    reaches as far."""
    platforms = {node.name: node.fitting_platforms for node in nodes}
    others = [each for each in other_modules_on(observed.nodes, module_name) if each[0] in platforms]
    known = module_versions({(name, its_version) for _, name, its_version, _ in others})
    losing: dict[str, list[str]] = {}
    for node, name, its_version, activation in others:
        if module_name not in known[name, its_version].needs(platforms[node]):
            continue
        after = observed.reach(module_name, node, without=version)
        if observed.reach(module_name, node) >= REACH[activation] > after:
            losing.setdefault(f"{name} {its_version}", []).append(node)
    if losing:
        needing, names = next(iter(losing.items()))
        raise ModuleNeededError(f"{needing} needs {module_name} on {some_of(names)}. Remove it there first.")
