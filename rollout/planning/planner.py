"""Turns a request into a plan, and a plan into what is appended to start it. Reads; writes nothing."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from eventstore import Append, load_state, snapshot
from rollout.decider.node import NodePhase
from rollout.decider.placement import Schedule
from rollout.decider.rollout import ROLLOUT, RolloutState, Start
from rollout.errors import (
    InvalidRolloutError,
    NoMatchError,
    NoNodesError,
    RolloutInProgressError,
    UnknownNodeError,
)
from rollout.events import RolloutFollowed, RolloutStarted, rollout_stream
from rollout.messages import Action, Activation, Reason
from rollout.models import Node
from rollout.placements import caused_changes
from rollout.planning.catalogue import ModuleVersion, Skip, version_to_install
from rollout.planning.dependencies import Dependency, dependencies_of, refuse_if_needed
from rollout.planning.observed import REACH, Observed
from rollout.planning.plan import Plan, PlannedNode, SkippedNode
from rollout.planning.selection import select
from rollout.requests import RolloutRequest
from rollout.selectors import known_generations, nodes
from rollout.strategy import Gate, Strategy, rounded_up


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
    fleet = nodes().defer("api_hosts")
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


# --- What is appended -------------------------------------------------------------------------------------------------


def appends_of(plan: Plan, uid: str) -> list[Append]:
    """What starts the plan as the rollout `uid`, and before it a rollout for each module that it needs."""
    before = [(each, uuid.uuid4().hex if each.nodes else "") for each in plan.before]
    bringing = {each.request.module_name: (*each.joined, *([own] if own else [])) for each, own in before}
    rollouts = [*((each, own) for each, own in before if own), (plan, uid)]
    generations = known_generations(plan.names if plan.request.named else None)
    # First the rollouts, then their nodes: a projection folds the events in their order.
    started = [_started(each, own, bringing) for each, own in rollouts]
    causes = [each.leads_to for each in started]
    schedules = [
        (schedule, cause)
        for (each, own), cause in zip(rollouts, causes, strict=True)
        for schedule in _schedules(each, own, generations)
    ]
    former = plan.request.retry_of
    following = [followed(former, by=uid).with_metadata(causes[-1])] if former else []
    return [*started, *following, *caused_changes(schedules)]


def followed(uid: str, *, by: str, is_rollback: bool = False) -> Append:
    """What the stream of a rollout that has ended gets when the rollout `by` is started to follow it."""
    event = RolloutFollowed(rollout=uid, follower=by, is_rollback=is_rollback)
    return load_state(rollout_stream(uid), ROLLOUT).append([event])


def _started(plan: Plan, uid: str, bringing: Mapping[str, Collection[str]]) -> Append:
    request = plan.request
    started = RolloutStarted(
        rollout=uid,
        action=request.action,
        module_name=request.module_name,
        version=request.version,
        activation=request.activation,
        total=plan.total,
        waves=plan.wave_sizes,
        named=request.named,
        strategy=request.strategy,
        origin=request.origin,
        needs=tuple(each for name in plan.needs for each in bringing.get(name, ())),
        retry_of=request.retry_of,
        purge=request.purge,
    )
    return Append(rollout_stream(uid), 0, ROLLOUT.decide(RolloutState(), Start(started=started)))


def _schedules(plan: Plan, uid: str, generations: Mapping[str, Mapping[str, int]]) -> list[Schedule]:
    """The skipped ones come last, in no wave."""
    places = [(each.name, each.wave, each.content_sha256, None) for each in plan.nodes]
    skips = [(each.name, -1, each.content_sha256, (each.reason, each.message)) for each in plan.skipped]
    request = plan.request
    return [
        Schedule(
            rollout=uid,
            node=name,
            module_name=request.module_name,
            version=request.version,
            action=request.action,
            activation=request.activation,
            content_sha256=content_sha256,
            ordinal=ordinal,
            wave=wave,
            known_generation=generations.get(name, {}).get(request.module_name, 0),
            undoes=request.undoes,
            supersede=request.supersede,
            yields=request.yields,
            skip=skip,
        )
        for ordinal, (name, wave, content_sha256, skip) in enumerate([*places, *skips])
    ]
