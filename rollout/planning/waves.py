"""Puts the nodes of one module into waves."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from rollout.domain.errors import InvalidRolloutError
from rollout.domain.node.state import NodePhase
from rollout.domain.placement.commands import Skip
from rollout.domain.request import RolloutRequest
from rollout.domain.strategy import Strategy, rounded_up
from rollout.domain.words import counted
from rollout.messages import Action, Reason, Way
from rollout.models import Node
from rollout.planning.catalogue import ModuleVersion
from rollout.planning.observed import REACH, Observed
from rollout.planning.plan import Plan, PlannedNode, PlannedRestart, SkippedNode
from rollout.planning.shards import ShardOrder, refuse_without_domain


def plan_waves(
    request: RolloutRequest,
    module: ModuleVersion,
    chosen: Sequence[Node],
    skips: Mapping[str, Skip],
    observed: Observed,
    restarts: Mapping[str, PlannedRestart] = MappingProxyType({}),
) -> Plan:
    """Return the plan of one module: waves filled in the order of `chosen`, except for the canary and the order of shards.
    `restarts`: those of the nodes that are restarted.

    Raises: `InvalidRolloutError` if `min_healthy` leaves no node to work on, or a node has no failure domain.
    """
    included = [node for node in chosen if node.name not in skips]
    strategy = _fitting(request, len(included))
    refuse_without_domain(strategy.domain, included)
    expected = {node.name: _expected(request, module, node, observed) for node in included}
    order = ShardOrder(request, included, observed.shards, restarts)
    ordered = canary_first(included, rounded_up(strategy.canary, len(included)), unchanged=expected, order=order)
    waves = [wave for wave, size in enumerate(strategy.wave_sizes(len(included))) for _ in range(size)]
    return Plan(
        request=replace(request, strategy=strategy),
        nodes=tuple(
            PlannedNode(
                name=node.name,
                wave=wave,
                content_sha256=module.content_sha256(node),
                size=_bytes_to_move(module, node, observed),
                expected=expected[node.name],
                shard=order.shard(node.name),
                role=order.role(node.name),
                way=Way.RESTART if node.name in restarts else Way.LOAD,
                restart=restarts.get(node.name),
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
    """Return the strategy for `count` nodes. A rollout that follows from another one has fewer nodes than its
    `min_healthy` was chosen for: it keeps all of them but one."""
    strategy = request.strategy
    if not count or strategy.kept_healthy(count) < count:
        return strategy
    if request.is_needed or request.retry_of:
        return replace(strategy, min_healthy=count - 1)
    raise InvalidRolloutError(
        f"strategy.min_healthy: keeps {strategy.kept_healthy(count)} of {counted(count, 'node')} untouched; at least 1 must "
        "be free to change."
    )


def _expected(request: RolloutRequest, module: ModuleVersion, node: Node, observed: Observed) -> Reason | None:
    """Return why nothing is expected to change on the node, None if the node will change."""
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


def canary_first(
    included: Sequence[Node], size: int, *, unchanged: Mapping[str, Reason | None], order: ShardOrder
) -> list[Node]:
    """Return the nodes with the canary first, each node after those of its shard that come before it.

    The canary prefers nodes that are online and will change, then other nodes that are online: only they show if the
    module works. Among them it prefers replicas.
    """

    def rank(node: Node) -> tuple[int, bool]:
        usable = (0 if unchanged[node.name] is None else 1) if node.phase == NodePhase.ONLINE else 2
        return usable, order.role(node.name) != "replica"

    ranked = sorted(included, key=rank)
    alone = [node for node in ranked if all(unchanged[each] is not None for each in order.first(node.name))]
    candidates = order.sorted([*alone, *ranked])
    useful = max((place for place, node in enumerate(candidates, 1) if rank(node)[0] == 0), default=0)
    # Up to the last one that shows something: a replica that has the module already need not come first.
    candidates[:useful] = sorted(candidates[:useful], key=lambda node: unchanged[node.name] is not None)
    canary = candidates[:size]
    names = {node.name for node in canary}
    return [*canary, *(node for node in order.sorted(included) if node.name not in names)]
