"""What a module needs on each node before it is loaded there, and what needs it before it goes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from rollout.domain.errors import DependencyCycleError, MissingDependencyError, ModuleNeededError
from rollout.models import Node
from rollout.planning.catalogue import ModuleVersion, module_versions, newest_of
from rollout.planning.observed import REACH, Observed
from rollout.queries.modules import other_modules_on, some_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """A module that some nodes lack. `nodes` get it by a rollout of its own; `joined` rollouts bring it to others.
    `needs`: names of those that come before it."""

    module: ModuleVersion
    nodes: tuple[Node, ...]
    joined: tuple[str, ...]
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """`needs`: names of those that the module itself lists and that some node lacks. `before`: all that come before
    it, each after what it needs. `missing`: what a node cannot get, in words, by node."""

    needs: tuple[str, ...]
    before: tuple[Dependency, ...]
    missing: Mapping[str, str]


def dependencies_of(module: ModuleVersion, nodes: Sequence[Node], observed: Observed) -> Dependencies:
    """What must be loaded on the nodes before the module is. Raises: `DependencyCycleError`, `MissingDependencyError`."""
    search = _Search(module.module_name, observed)
    search.look_at(module, nodes)
    needs = {name: tuple(sorted(needed)) for name, needed in search.needed_by.items()}
    places = {node.name: place for place, node in enumerate(nodes) if node.name not in search.missing}
    before = []
    for name in _in_order(needs):
        if name == module.module_name:
            continue
        lacking = [node for node in search.lacking.get(name, ()) if node.name in places]
        joined = {uid for node, uid in search.joined.get(name, {}).items() if node in places}
        if lacking or joined:
            before.append(
                Dependency(
                    module=search.versions[name],
                    nodes=tuple(sorted(lacking, key=lambda node: places[node.name])),
                    joined=tuple(sorted(joined)),
                    needs=needs.get(name, ()),
                )
            )
    return Dependencies(needs=needs.get(module.module_name, ()), before=tuple(before), missing=search.missing)


class _Search:
    """Follows what is needed from module to module; a node asks for each of them once."""

    def __init__(self, root: str, observed: Observed) -> None:
        self._root = root
        self._observed = observed
        self._newest: dict[str, ModuleVersion | None] = {}
        self.versions: dict[str, ModuleVersion] = {}
        self.needed_by: dict[str, set[str]] = {}
        #: Nodes that are to get it, by module.
        self.lacking: dict[str, list[Node]] = {}
        #: Rollouts that are bringing it, by module and node.
        self.joined: dict[str, dict[str, str]] = {}
        self.missing: dict[str, str] = {}
        self._asked: set[tuple[str, str]] = set()

    def look_at(self, module: ModuleVersion, nodes: Sequence[Node]) -> None:
        needs = {platforms: module.needs(platforms) for platforms in {node.fitting_platforms for node in nodes}}
        for name in sorted(set().union(*needs.values())):
            lacking = self._lacking(name, [n for n in nodes if name in needs[n.fitting_platforms]])
            if not lacking:
                continue
            needed = self._known(name)
            if needed is None or not needed.builds:
                self._cannot_have(name, module, lacking)
                continue
            self.needed_by.setdefault(module.module_name, set()).add(name)
            self._ask_for(needed, lacking)

    def _cannot_have(self, name: str, module: ModuleVersion, lacking: Sequence[Node]) -> None:
        """There is no package of `name`. A person is told; the reconciler leaves these nodes for later."""
        needs = f"{module.module_name} {module.version} needs {name}, of which there is no package"
        if not self._observed.yields:
            where = some_of([node.name for node in lacking])
            raise MissingDependencyError(
                f"{needs}, and which is not loaded on {where}. Upload a package of {name} first."
            )
        for node in lacking:
            self.missing.setdefault(node.name, f"{needs}. Upload it first.")

    def _known(self, name: str) -> ModuleVersion | None:
        if name not in self._newest:
            self._newest[name] = newest_of(name)
        return self._newest[name]

    def _lacking(self, name: str, nodes: Iterable[Node]) -> list[Node]:
        """Also those to which it is being brought."""
        observed = self._observed
        return [
            node
            for node in nodes
            if name not in node.other_modules
            and (observed.is_coming(name, node.name) or not observed.is_to_stay_loaded(name, node.name))
        ]

    def _ask_for(self, module: ModuleVersion, nodes: Sequence[Node]) -> None:
        name = module.module_name
        if name == self._root:
            return  # a cycle: there is nothing to ask for, and the order will show it
        self.versions[name] = module
        getting = []
        for node in nodes:
            if (name, node.name) in self._asked:
                continue
            self._asked.add((name, node.name))
            if uid := self._observed.bringing(name, node.name):
                self.joined.setdefault(name, {})[node.name] = uid
            elif skip := module.reason_to_skip(node):
                self.missing.setdefault(node.name, f"{name} {module.version} must be there first: {skip[1]}")
            else:
                getting.append(node)
        self.lacking.setdefault(name, []).extend(getting)
        self.look_at(module, getting)


def _in_order(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Raises: `DependencyCycleError`."""
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise DependencyCycleError(f"None can be first: {' needs '.join(reversed(error.args[1]))}.") from error


def refuse_if_needed(module_name: str, version: int, nodes: Sequence[Node], observed: Observed) -> None:
    """Raises: `ModuleNeededError` if a module that lists this one would lose it: on nodes where another version of it
    reaches as far, it does not."""
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
