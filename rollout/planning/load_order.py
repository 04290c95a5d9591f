"""In which order the servers of some nodes have to load their modules when they start."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from rollout.models import NodeModule, Operation
from rollout.planning.catalogue import ModuleVersion, module_versions


class LoadOrders:
    """Of the nodes of `operations`, and of what these bring or take away; three queries, however many they are.

    `platforms`: those whose builds fit each node, the closest first.
    """

    def __init__(self, operations: Iterable[Operation], platforms: Mapping[str, Sequence[str]]) -> None:
        self._platforms = platforms
        self._on: dict[str, set[tuple[str, int]]] = {}
        rows = NodeModule.objects.filter(node__in=platforms).values_list("node", "module_name", "version")
        of_operations = [(each.node, each.module_name, each.version) for each in operations]
        for node, module_name, version in [*rows, *of_operations]:
            self._on.setdefault(node, set()).add((module_name, version))
        self._modules = module_versions(set().union(*self._on.values()))

    def module(self, operation: Operation) -> ModuleVersion:
        return self._modules[operation.module_name, operation.version]

    def of(self, node: str) -> tuple[str, ...]:
        """Names of the node's modules that need each other, each after those that it needs; of no others."""
        keys = sorted(self._on.get(node, ()))
        return in_order((name, self._modules[name, version].needs(self._platforms[node])) for name, version in keys)


def in_order(needs: Iterable[tuple[str, Collection[str]]]) -> tuple[str, ...]:
    """Names that need each other, in order; empty when none can be first."""
    found: dict[str, set[str]] = {}
    for name, needed in needs:
        found.setdefault(name, set()).update(needed)
    known = {name: sorted(needed & found.keys() - {name}) for name, needed in sorted(found.items())}
    related = {name: needed for name, needed in known.items() if needed}
    try:
        return tuple(TopologicalSorter(related).static_order())
    except CycleError:
        return ()
