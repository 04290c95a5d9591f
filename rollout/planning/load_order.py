"""The order in which servers must load their modules when they start."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from rollout.models import NodeModule, Operation
from rollout.planning.catalogue import ModuleVersion, module_versions


class LoadOrders:
    """The load orders of nodes, by what they have and what `operations` install or remove; three queries, however many
    there are.

    `platforms`: by node, those whose builds fit it, the closest first.
    """

    def __init__(self, operations: Iterable[Operation], platforms: Mapping[str, Sequence[str]]) -> None:
        self._platforms = platforms
        self._on: dict[str, set[tuple[str, int]]] = {}
        rows = NodeModule.objects.filter(node__in=platforms).values_list(
            "node", "module_name", "version", "content_sha256"
        )
        #: The content of each version, by node and module.
        self._contents: dict[tuple[str, str], dict[int | None, str]] = {}
        for node, name, version, content in rows:
            self._contents.setdefault((node, name), {})[version] = content
        of_operations = [(each.node, each.module_name, each.version) for each in operations]
        for node, module_name, version in [*(row[:3] for row in rows), *of_operations]:
            self._on.setdefault(node, set()).add((module_name, version))
        self._modules = module_versions(set().union(*self._on.values()))

    def module(self, operation: Operation) -> ModuleVersion:
        return self._modules[operation.module_name, operation.version]

    def contents_on_node(self, operation: Operation) -> tuple[str, ...]:
        """Return the `content_sha256` of each version that its node has and the operation may unload: its own, and the one
        that it undoes."""
        found = self._contents.get((operation.node, operation.module_name), {})
        return tuple(content for each in (operation.version, operation.undoes) if (content := found.get(each)))

    def contents_of_module(self, operation: Operation) -> tuple[str, ...]:
        """Return the `content_sha256` of each version of the operation's module that its node has."""
        return tuple(filter(None, self._contents.get((operation.node, operation.module_name), {}).values()))

    def of(self, node: str) -> tuple[str, ...]:
        """Return the names of the node's modules that others need or that need others, each after those that it needs."""
        keys = sorted(self._on.get(node, ()))
        return in_order((name, self._modules[name, version].needs(self._platforms[node])) for name, version in keys)


def in_order(needs: Iterable[tuple[str, Collection[str]]]) -> tuple[str, ...]:
    """Return the names that need or are needed, each after those that it needs; empty if they need each other in a circle."""
    found: dict[str, set[str]] = {}
    for name, needed in needs:
        found.setdefault(name, set()).update(needed)
    known = {name: sorted(needed & found.keys() - {name}) for name, needed in sorted(found.items())}
    related = {name: needed for name, needed in known.items() if needed}
    try:
        return tuple(TopologicalSorter(related).static_order())
    except CycleError:
        return ()
