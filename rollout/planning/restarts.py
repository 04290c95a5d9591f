"""Finds the nodes that come to load a version only by a restart of their server, and those that must not be restarted."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rollout.domain.placement.commands import Skip
from rollout.domain.request import RolloutRequest
from rollout.domain.restarts import Permission, failover_before, full_sync_expected, seconds_away
from rollout.messages import Action, Activation, Capability, FindingStatus, Reason, Ways
from rollout.models import Node, NodeFacts, ShardMember
from rollout.planning.catalogue import ModuleVersion
from rollout.planning.nodes import unable_to
from rollout.planning.observed import Observed
from rollout.planning.plan import PlannedRestart
from rollout.queries.learned import build_facts
from rollout.queries.restarts import deciding, refused_restarts


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarts:
    """`planned`: by node. `skips`: the nodes that need a restart and must not be restarted."""

    planned: Mapping[str, PlannedRestart] = field(default_factory=dict)
    skips: Mapping[str, Skip] = field(default_factory=dict)


def restarts_of(request: RolloutRequest, module: ModuleVersion, nodes: Sequence[Node], observed: Observed) -> Restarts:
    """Return the restarts of a rollout. At most six queries, four of them only if a server needs a restart."""
    if request.activation != Activation.LOAD or request.adopt:
        return Restarts()
    is_removal = request.action == Action.REMOVE
    changing = [node for node in nodes if _has_it(request, module, node, observed) is is_removal]
    needed = {node.name for node in changing}
    if request.ways != Ways.RESTART:
        needed &= _with_types(request, changing, observed) | _stock_servers(needed)
    if not needed:
        return Restarts()
    if request.ways == Ways.LOAD:
        words = "needs a restart for this change, which this rollout does not make. Start one with the activation auto or restart."
        return Restarts(skips={name: (Reason.RESTART_REQUIRED, f"{name} {words}") for name in sorted(needed)})
    permission = Permission(may_interrupt=request.may_interrupt, may_discard_data=request.may_discard_data)
    members = {each.node: each for each in observed.shards.members()}
    # One way for a shard: the order of its copies depends on it.
    shards = {members[name].shard for name in needed if name in members}
    needed |= {node.name for node in changing if node.name in members and members[node.name].shard in shards}
    servers = _servers(deciding(needed, members))
    skips = unable_to(Capability.RESTART, needed)
    judged = needed - skips.keys() - _not_known_now(needed, members, servers)
    skips |= refused_restarts(sorted(judged), members, servers, permission)
    planned = {
        name: PlannedRestart(
            away_seconds=seconds_away(servers[name]),
            failover=failover_before(servers[name]),
            full_sync_expected=full_sync_expected(servers[name]),
        )
        for name in needed - skips.keys()
    }
    return Restarts(planned=planned, skips=skips)


def _not_known_now(
    nodes: Collection[str], members: Mapping[str, ShardMember], servers: Mapping[str, Mapping[str, Any]]
) -> set[str]:
    """Return the nodes whose server or its master cannot be used now, such as in the middle of a restart. Their release waits until
    it is known whether the server may be restarted."""
    masters = {name: members[name].master if name in members else "" for name in nodes}
    return {
        name for name, master in masters.items() if any(servers.get(each, {}).get("problem") for each in (name, master))
    }


def _has_it(request: RolloutRequest, module: ModuleVersion, node: Node, observed: Observed) -> bool:
    """Return True if the server has loaded the version; for an installation, only if the build is the same."""
    row = observed.version(request.module_name, request.version, node.name)
    if row is None or row.observed != Activation.LOAD:
        return False
    return request.action == Action.REMOVE or row.content_sha256 == module.content_sha256(node)


def _with_types(request: RolloutRequest, nodes: Sequence[Node], observed: Observed) -> set[str]:
    """Return the nodes whose loaded build of the module has data types: no server unloads it.

    A build that should be loaded counts too: a server that is being restarted may have it a moment later.
    """
    loaded = {
        node.name: row.content_sha256
        for node in nodes
        for row in observed.versions(request.module_name, node.name)
        if Activation.LOAD in {row.observed, row.desired}
    }
    facts = build_facts(loaded.values())
    return {name for name, content in loaded.items() if content in facts and facts[content].has_types}


def _stock_servers(names: Collection[str]) -> set[str]:
    """Return the nodes whose server refuses MODULE LOAD."""
    return {*NodeFacts.objects.filter(refuses_load=True).values_list("node", flat=True)} & {*names}


def _servers(names: Collection[str]) -> Mapping[str, Mapping[str, Any]]:
    """Return the newest `messages.ServerState` of each node, as JSON, with `failover_problem`: why its agent's doctor has found that no
    replica can become the master."""
    rows = NodeFacts.objects.filter(node__in=names).values_list("node", "server", "doctor")
    return {node: server | {"failover_problem": _failover_problem(doctor or ())} for node, server, doctor in rows}


def _failover_problem(findings: Iterable[Mapping[str, Any]]) -> str:
    return next(
        (each["fix"] for each in findings if each["check"] == "failover" and each["status"] == FindingStatus.WARN), ""
    )
