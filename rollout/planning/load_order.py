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
        self._contents: dict[tuple[str, str, int | None], str] = {
            (node, name, version): content for node, name, version, content in rows
        }
        of_operations = [(each.node, each.module_name, each.version) for each in operations]
        for node, module_name, version in [*(row[:3] for row in rows), *of_operations]:
            self._on.setdefault(node, set()).add((module_name, version))
        self._modules = module_versions(set().union(*self._on.values()))

    def module(self, operation: Operation) -> ModuleVersion:
        return self._modules[operation.module_name, operation.version]

    def contents_on_node(self, operation: Operation) -> tuple[str, ...]:
        """Return the `content_sha256` of each version that its node has and the operation may unload: its own, and the one
        that it undoes."""
        versions = (operation.version, operation.undoes)
        keys = ((operation.node, operation.module_name, version) for version in versions)
        return tuple(content for key in keys if (content := self._contents.get(key)))

    def contents_of_module(self, operation: Operation) -> tuple[str, ...]:
        """Return the `content_sha256` of each version of the operation's module that its node has."""
        return tuple(
            content
            for (node, name, _), content in self._contents.items()
            if (node, name) == (operation.node, operation.module_name) and content
        )

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
