"""Turns a request into a plan. Reads; writes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from eventstore import snapshot
from rollout.domain.errors import (
    InvalidRolloutError,
    NoMatchError,
    NoNodesError,
    RolloutInProgressError,
    UnknownNodeError,
)
from rollout.domain.node.state import NodePhase
from rollout.domain.placement.commands import Skip
from rollout.domain.request import RolloutRequest
from rollout.domain.selector import select
from rollout.domain.strategy import Gate, Strategy, rounded_up
from rollout.messages import Action, Activation, Reason
from rollout.models import Node
from rollout.planning.catalogue import ModuleVersion, version_to_install
from rollout.planning.dependencies import Dependency, dependencies_of, refuse_if_needed
from rollout.planning.observed import REACH, Observed
from rollout.planning.plan import Plan, PlannedNode, SkippedNode
from rollout.queries.nodes import node_rows


@snapshot()
def plan_of(request: RolloutRequest) -> Plan:
    """What the request would do to the fleet as it is at one moment, in a constant number of queries for each module it involves.

    Raises: `RolloutError`, `artifacts_app.errors.ArtifactNotFoundError`.
    """
    chosen = _chosen_nodes(request)
    observed = Observed([node.name for node in chosen] if request.named else None, yields=request.yields)
    module = ModuleVersion(module_name=request.module_name, version=request.version, builds={})
    if request.action == Action.INSTALL:
        module = version_to_install(request.module_name, request.version)
    skips = {node.name: skip for node in chosen if (skip := _reason_to_skip(request, module, node))}
    going = [node for node in chosen if node.name not in skips]
    if request.action == Action.REMOVE:
        refuse_if_needed(request.module_name, request.version, going, observed)
    if request.action == Action.REMOVE or request.activation == Activation.FILES:
        plan = _planned(request, module, chosen, skips, observed)
    else:
        found = dependencies_of(module, going, observed)
        skips |= {name: (Reason.MISSING_DEPENDENCY, message) for name, message in found.missing.items()}
        before = tuple(_planned_before(request, each, observed) for each in found.before)
        plan = replace(_planned(request, module, chosen, skips, observed), needs=found.needs, before=before)
    if not request.supersede:
        for each in (*plan.before, plan):
            _refuse_overlap(each, observed)
    return plan


def _chosen_nodes(request: RolloutRequest) -> list[Node]:
    fleet = node_rows().defer("api_hosts")
    if request.selector is not None:
        if not (matching := select(request.selector, fleet)):
            raise NoMatchError
        return matching
    if request.nodes is None:
        if not fleet and not request.may_be_empty:
            raise NoNodesError
        return list(fleet)
    found = {node.name: node for node in fleet.filter(name__in=request.nodes)}
    if unknown := sorted(set(request.nodes) - found.keys()):
        raise UnknownNodeError(f"The fleet has no node {', '.join(unknown)}. GET /v2/nodes lists them.")
    if not found:
        raise InvalidRolloutError("nodes: must name at least one node, or be left out for all")
    return [found[name] for name in dict.fromkeys(request.nodes)]


def _reason_to_skip(request: RolloutRequest, module: ModuleVersion, node: Node) -> Skip | None:
    if node.draining:
        return Reason.NODE_DRAINING, f"{node.name} is draining: activate it, and start another rollout for it."
    return module.reason_to_skip(node) if request.action == Action.INSTALL else None


def _refuse_overlap(plan: Plan, observed: Observed) -> None:
    """The streams of the placements refuse it too, but only once it is started."""
    for name in plan.names:
        if other := observed.blocking(plan.request.module_name, name):
            raise RolloutInProgressError(other.rollout, name)


def _planned(
    request: RolloutRequest,
    module: ModuleVersion,
    chosen: Sequence[Node],
    skips: Mapping[str, Skip],
    observed: Observed,
) -> Plan:
    """Waves filled in the order of `chosen`, but for the canary."""
    going = [node for node in chosen if node.name not in skips]
    strategy = _fitting(request, len(going))
    expected = {node.name: _expected(request, module, node, observed) for node in going}
    ordered = _canary_first(going, rounded_up(strategy.canary, len(going)), unchanged=expected)
    waves = [wave for wave, size in enumerate(strategy.wave_sizes(len(going))) for _ in range(size)]
    return Plan(
        request=replace(request, strategy=strategy),
        nodes=tuple(
            PlannedNode(
                name=node.name,
                wave=wave,
                content_sha256=module.content_sha256(node),
                size=_bytes_to_move(module, node, observed),
                expected=expected[node.name],
            )
            for node, wave in zip(ordered, waves, strict=True)
        ),
        skipped=tuple(
            SkippedNode(
                name=node.name,
                content_sha256=module.content_sha256(node),
                reason=skips[node.name][0],
                message=skips[node.name][1],
            )
            for node in chosen
            if node.name in skips
        ),
    )


def _fitting(request: RolloutRequest, count: int) -> Strategy:
    """The strategy for so many nodes. A person is told that `min_healthy` leaves none to work on; in a rollout that
    follows from another one it was said about more nodes, and keeps as many of these as it can."""
    strategy = request.strategy
    if not count or strategy.kept_healthy(count) < count:
        return strategy
    if request.is_needed or request.retry_of:
        return replace(strategy, min_healthy=count - 1)
    raise InvalidRolloutError(
        f"strategy.min_healthy: keeps {strategy.kept_healthy(count)} of {count} nodes untouched, which leaves none to "
        "work on."
    )


def _expected(request: RolloutRequest, module: ModuleVersion, node: Node, observed: Observed) -> Reason | None:
    row = observed.version(request.module_name, request.version, node.name)
    reach = REACH[row.observed] if row else 0
    if request.action == Action.REMOVE:
        return None if reach else Reason.NOT_INSTALLED
    if row and row.content_sha256 == module.content_sha256(node) and reach >= REACH[request.activation]:
        return Reason.ALREADY_INSTALLED
    return None


def _bytes_to_move(module: ModuleVersion, node: Node, observed: Observed) -> int:
    build = module.build_for(node.fitting_platforms)
    if build is None:  # a removal
        return 0
    row = observed.version(module.module_name, module.version, node.name)
    return 0 if row and row.content_sha256 == build.content_sha256 else build.size


def _canary_first(going: Sequence[Node], size: int, *, unchanged: Mapping[str, Reason | None]) -> list[Node]:
    """The canary is to tell something: nodes that are online and will change, then others online, then the rest."""

    def rank(node: Node) -> int:
        if node.phase != NodePhase.ONLINE:
            return 2
        return 0 if unchanged[node.name] is None else 1

    canary = sorted(going, key=rank)[:size]
    names = {node.name for node in canary}
    return [*canary, *(node for node in going if node.name not in names)]


def _planned_before(request: RolloutRequest, dependency: Dependency, observed: Observed) -> Plan:
    module = dependency.module
    needed = RolloutRequest(
        action=Action.INSTALL,
        module_name=module.module_name,
        version=module.version,
        nodes=tuple(node.name for node in dependency.nodes),
        strategy=replace(request.strategy, gate=Gate.NONE),
        supersede=request.supersede,
        origin=request.origin,
        is_needed=True,
        yields=request.yields,
    )
    plan = _planned(needed, module, dependency.nodes, {}, observed)
    return replace(plan, needs=dependency.needs, joined=dependency.joined)
