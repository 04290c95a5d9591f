"""Plans the modules that must be loaded on the nodes before another one is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter

from rollout.domain.errors import DependencyCycleError, MissingDependencyError
from rollout.domain.placement.commands import Skip
from rollout.domain.request import RolloutRequest
from rollout.domain.strategy import Gate
from rollout.domain.words import some_of
from rollout.messages import Action, Reason
from rollout.models import Node
from rollout.planning.catalogue import ModuleVersion, newest_of
from rollout.planning.observed import Observed
from rollout.planning.plan import Plan
from rollout.planning.waves import plan_waves


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """`needs`: names of the modules that the module itself lists and that a node lacks. `before`: a plan for each module
    that comes before it, in the order in which they start. `skips`: nodes that cannot get one of them."""

    needs: tuple[str, ...] = ()
    before: tuple[Plan, ...] = ()
    skips: Mapping[str, Skip] = field(default_factory=dict)


def dependencies_of(
    request: RolloutRequest, module: ModuleVersion, nodes: Sequence[Node], observed: Observed
) -> Dependencies:
    """Return what must be loaded on the nodes before `module`. Raises: `DependencyCycleError`, `MissingDependencyError`."""
    search = _Search(module.module_name, observed)
    search.visit(module, nodes)
    needs = {name: tuple(sorted(needed)) for name, needed in search.needed_by.items()}
    places = {node.name: place for place, node in enumerate(nodes) if node.name not in search.skips}
    before = []
    for name in _in_order(needs):
        if name == module.module_name:
            continue
        lacking = [node for node in search.lacking.get(name, ()) if node.name in places]
        joined = {uid for node, uid in search.joined.get(name, {}).items() if node in places}
        if lacking or joined:
            lacking.sort(key=lambda node: places[node.name])
            plan = _plan_of(request, search.versions[name], lacking, observed)
            before.append(replace(plan, needs=needs.get(name, ()), joined=tuple(sorted(joined))))
    return Dependencies(needs=needs.get(module.module_name, ()), before=tuple(before), skips=search.skips)


def _plan_of(request: RolloutRequest, module: ModuleVersion, nodes: Sequence[Node], observed: Observed) -> Plan:
    """Return the plan that loads a needed module, by the strategy of the request but without its gate."""
    needed = RolloutRequest(
        action=Action.INSTALL,
        module_name=module.module_name,
        version=module.version,
        nodes=tuple(node.name for node in nodes),
        strategy=replace(request.strategy, gate=Gate.NONE),
        supersede=request.supersede,
        origin=request.origin,
        is_needed=True,
        yields=request.yields,
    )
    return plan_waves(needed, module, nodes, {}, observed)


class _Search:
    """Walks from module to the modules it needs. Each node requires each of them once."""

    def __init__(self, root: str, observed: Observed) -> None:
        self._root = root
        self._observed = observed
        self._newest: dict[str, ModuleVersion | None] = {}
        self.versions: dict[str, ModuleVersion] = {}
        self.needed_by: dict[str, set[str]] = {}
        #: Nodes that get it by a rollout of its own, by module.
        self.lacking: dict[str, list[Node]] = {}
        #: Rollouts in progress that bring it, by module and node.
        self.joined: dict[str, dict[str, str]] = {}
        self.skips: dict[str, Skip] = {}
        self._required: set[tuple[str, str]] = set()

    def visit(self, module: ModuleVersion, nodes: Sequence[Node]) -> None:
        needs = {platforms: module.needs(platforms) for platforms in {node.fitting_platforms for node in nodes}}
        for name in sorted(set().union(*needs.values())):
            lacking = self._lacking(name, [n for n in nodes if name in needs[n.fitting_platforms]])
            if not lacking:
                continue
            needed = self._newest_of(name)
            if needed is None or not needed.builds:
                self._skip_for_lack_of(name, module, lacking)
                continue
            self.needed_by.setdefault(module.module_name, set()).add(name)
            self._require(needed, lacking)

    def _lacking(self, name: str, nodes: Iterable[Node]) -> list[Node]:
        """Return the nodes on which the module is not loaded yet, also if a rollout in progress loads it there."""
        observed = self._observed
        return [
            node
            for node in nodes
            if name not in node.other_modules
            and (observed.is_coming(name, node.name) or not observed.stays_loaded(name, node.name))
        ]

    def _newest_of(self, name: str) -> ModuleVersion | None:
        if name not in self._newest:
            self._newest[name] = newest_of(name)
        return self._newest[name]

    def _skip_for_lack_of(self, name: str, module: ModuleVersion, lacking: Sequence[Node]) -> None:
        """There is no package of `name`. A person gets an error; the reconciler skips these nodes for now."""
        needs = f"{module.module_name} {module.version} needs {name}"
        if not self._observed.yields:
            where = some_of([node.name for node in lacking])
            raise MissingDependencyError(
                f"{needs}, which has no package and is not loaded on {where}. Upload a package of {name} first."
            )
        for node in lacking:
            self._skip(node, f"{needs}, which has no package. Upload a package of {name} first.")

    def _require(self, module: ModuleVersion, nodes: Sequence[Node]) -> None:
        name = module.module_name
        if name == self._root:
            return  # a cycle: `_in_order` raises
        self.versions[name] = module
        getting = []
        for node in nodes:
            if (name, node.name) in self._required:
                continue
            self._required.add((name, node.name))
            if uid := self._observed.bringing(name, node.name):
                self.joined.setdefault(name, {})[node.name] = uid
            elif skip := module.reason_to_skip(node):
                self._skip(node, f"{name} {module.version} must be loaded first: {skip[1]}")
            else:
                getting.append(node)
        self.lacking.setdefault(name, []).extend(getting)
        self.visit(module, getting)

    def _skip(self, node: Node, message: str) -> None:
        self.skips.setdefault(node.name, (Reason.MISSING_DEPENDENCY, message))


def _in_order(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names, each after those that it needs. Raises: `DependencyCycleError`."""
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise DependencyCycleError(f"Modules need each other: {' needs '.join(reversed(error.args[1]))}.") from error
