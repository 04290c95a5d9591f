"""A plan as JSON, with the bytes that it moves and its predicted duration."""

import math
from collections.abc import Collection, Sequence
from itertools import chain, groupby
from operator import attrgetter
from statistics import fmean
from typing import Any

import msgspec

from eventstore import snapshot
from rollout.messages import activation_in_one_word
from rollout.models import ShardMember
from rollout.planning.plan import Plan, PlannedNode
from rollout.planning.shards import RELATED
from rollout.queries.ignored_replicas import ignored_documents, ignored_replicas
from rollout.queries.node_documents import shard_nodes
from rollout.queries.rollouts import measured_seconds

#: The newest measured operations that a prediction counts, at most.
MEASURED = 200
#: A plan names so many shards.
MOST_SHARDS = 100


@snapshot()
def plan_document(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON."""
    strategy, count = plan.request.strategy, len(plan.nodes)
    seconds = [_predicted_seconds(each) for each in (*plan.before, plan)]
    shards = _shards(frozenset(plan.names))
    return {
        "plan_hash": plan.hash,
        "action": plan.request.action,
        "module_name": plan.request.module_name,
        "version": plan.request.version,
        "activation": activation_in_one_word(plan.request.activation, plan.request.ways),
        "may_interrupt": plan.request.may_interrupt,
        "may_discard_data": plan.request.may_discard_data,
        "failback": plan.request.failback,
        "total": plan.total,
        "strategy": msgspec.to_builtins(strategy),
        "waves": [_wave_document(plan, nodes) for nodes in plan.waves()],
        "skipped": [{"node": each.name, "reason": each.reason, "message": each.message} for each in plan.skipped],
        "warnings": [{"node": each.name, "reason": each.reason, "message": each.message} for each in plan.warnings],
        "learned": plan.learned,
        "irreversible": list(plan.irreversible),
        "lost_options": [{"node": each.name, "options": list(each.options)} for each in plan.lost_options],
        "shards": _shard_documents(shards[:MOST_SHARDS]),
        "shard_count": len(shards),
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
        "way": node.way,
        "restart": msgspec.to_builtins(node.restart),
    }


def _shards(names: Collection[str]) -> list[list[ShardMember]]:
    """Return the shards of these nodes, each with all its members from its top down. Servers that share their data with no
    other one are in none. First those that have a replica without an agent, then by name. One query."""
    rows = ShardMember.objects.filter(RELATED).defer("facts", "replication", "migrations")
    found = groupby(rows.order_by("shard", "depth", "node"), key=attrgetter("shard"))
    shards = (list(members) for _, members in found)
    concerned = (members for members in shards if any(each.node in names for each in members))
    return sorted(concerned, key=lambda members: not any(each.unmanaged or each.ignored for each in members))


def _shard_documents(shards: Sequence[Sequence[ShardMember]]) -> list[dict[str, Any]]:
    """Four queries, none without a shard."""
    if not shards:
        return []
    nodes = {each["name"]: each for each in shard_nodes(chain.from_iterable(shards))}
    addresses = {*chain.from_iterable(each.ignored for each in chain.from_iterable(shards))}
    ignored = ignored_documents(ignored_replicas().filter(address__in=addresses).order_by("address"))
    return [
        {
            "shard": members[0].shard,
            "nodes": [nodes[each.node] for each in members],
            "ignored_replicas": [
                replica for replica in ignored if any(replica["address"] in each.ignored for each in members)
            ],
        }
        for members in shards
    ]


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
