"""A plan as JSON, with the bytes that it moves and its predicted duration."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import msgspec

from rollout.planning.plan import Plan, PlannedNode
from rollout.queries.rollouts import measured_seconds

#: The newest measured operations that a prediction counts, at most.
MEASURED = 200


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON."""
    strategy, count = plan.request.strategy, len(plan.nodes)
    seconds = [_predicted_seconds(each) for each in (*plan.before, plan)]
    return {
        "plan_hash": plan.hash,
        "action": plan.request.action,
        "module_name": plan.request.module_name,
        "version": plan.request.version,
        "activation": plan.request.activation,
        "total": plan.total,
        "strategy": msgspec.to_builtins(strategy),
        "waves": [_wave_document(plan, nodes) for nodes in plan.waves()],
        "skipped": [{"node": each.name, "reason": each.reason, "message": each.message} for each in plan.skipped],
        "warnings": [{"node": each.name, "reason": each.reason, "message": each.message} for each in plan.warnings],
        "learned": plan.learned,
        "lost_options": [{"node": each.name, "options": list(each.options)} for each in plan.lost_options],
        "min_healthy": strategy.kept_healthy(count),
        "max_failures": strategy.tolerated(count),
        "bytes": _bytes(plan.nodes),
        "predicted_seconds": _sum(seconds),
        "dependencies": [_dependency_document(each) for each in plan.before],
    }


def _wave_document(plan: Plan, nodes: Sequence[PlannedNode]) -> dict[str, Any]:
    strategy = plan.request.strategy
    return {
        "wave": nodes[0].wave,
        "nodes": [_node_document(each) for each in nodes],
        "total": len(nodes),
        "max_parallel": strategy.parallel(len(plan.nodes)),
        "max_failures": strategy.tolerated(len(nodes)),
        "bytes": _bytes(nodes),
    }


def _node_document(node: PlannedNode) -> dict[str, Any]:
    return {
        "node": node.name,
        "bytes": node.size,
        "expected": node.expected,
        "shard": node.shard or None,
        "role": node.role or None,
    }


def _dependency_document(plan: Plan) -> dict[str, Any]:
    return {
        "module_name": plan.request.module_name,
        "version": plan.request.version,
        "nodes": [each.name for each in plan.nodes],
        "joined": list(plan.joined),
        "bytes": _bytes(plan.nodes),
        "predicted_seconds": _sum([_predicted_seconds(plan)]),
    }


def _bytes(nodes: Sequence[PlannedNode]) -> int:
    return sum(each.size for each in nodes)


def _predicted_seconds(plan: Plan) -> float | None:
    """Return the predicted duration, None if nothing like it was ever measured. Joined rollouts are not counted."""
    if not plan.nodes:
        return 0.0
    measured = measured_seconds(plan.request.action, plan.request.module_name, limit=MEASURED)
    if not measured:
        return None
    strategy = plan.request.strategy
    parallel = strategy.parallel(len(plan.nodes))
    changing = [sum(each.expected is None for each in nodes) for nodes in plan.waves()]
    rounds = sum(math.ceil(count / parallel) for count in changing)
    return rounds * fmean(measured) + len(changing) * strategy.soak_seconds


def _sum(seconds: Sequence[float | None]) -> float | None:
    known = [each for each in seconds if each is not None]
    return round(sum(known), 1) if len(known) == len(seconds) else None
