"""Chooses the nodes of a request, and finds those to skip."""

from collections.abc import Collection, Mapping

from rollout.domain.errors import InvalidRolloutError, NoMatchError, NoNodesError, UnknownNodeError
from rollout.domain.placement.commands import Skip
from rollout.domain.request import RolloutRequest
from rollout.domain.selector import select
from rollout.messages import FORMER_CAPABILITIES, Action, Capability, Reason
from rollout.models import Liveness, Node
from rollout.planning.catalogue import ModuleVersion
from rollout.queries.nodes import node_rows
from rollout.signing import PROTOCOLS


def chosen_nodes(request: RolloutRequest) -> list[Node]:
    """Return the nodes that the request is about, in its order: those selected or named, or the whole fleet.

    Raises: `NoMatchError`, `NoNodesError`, `UnknownNodeError`, `InvalidRolloutError`.
    """
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


def skips_of(request: RolloutRequest, module: ModuleVersion, nodes: Collection[Node]) -> dict[str, Skip]:
    """Return why nodes are skipped, by node: draining, an agent that is too old, or no build for them. One query."""
    needed = Capability.REMOVE if request.action == Action.REMOVE else Capability(request.activation)
    unable = unable_to(needed, [node.name for node in nodes] if request.named else None)
    return {node.name: skip for node in nodes if (skip := _reason_to_skip(request, module, node, unable))}


def warnings_of(module: ModuleVersion, nodes: Collection[Node]) -> dict[str, Skip]:
    """Return what speaks against the module on a node, but does not exclude it, by node; empty for a
    removal."""
    return {node.name: warning for node in nodes if (warning := module.warning(node))}


def _reason_to_skip(
    request: RolloutRequest, module: ModuleVersion, node: Node, unable: Mapping[str, Skip]
) -> Skip | None:
    if node.draining:
        return Reason.NODE_DRAINING, f"{node.name} is draining: activate it, and start another rollout for it."
    if node.name in unable:
        return unable[node.name]
    return module.reason_to_skip(node) if request.action == Action.INSTALL else None


def unable_to(needed: Capability, names: Collection[str] | None) -> dict[str, Skip]:
    """Return by node why its agent cannot carry out such an operation; `names` None: of all nodes. Agents that can, and nodes
    that were never heard, are left out."""
    rows = Liveness.objects.all() if names is None else Liveness.objects.filter(node__in=names)
    return {
        node: _why_unable(node, protocol, capabilities)
        for node, protocol, capabilities in rows.values_list("node", "protocol", "capabilities")
        if protocol not in PROTOCOLS
        or needed not in (capabilities if protocol else capabilities or FORMER_CAPABILITIES)
    }


def _why_unable(node: str, protocol: int, capabilities: Collection[str]) -> Skip:
    if protocol in PROTOCOLS and not capabilities:
        return Reason.OBSERVE_ONLY, f"The agent of {node} only observes: run `modfleet agent install --add load` there."
    upgrade = f"pip install --upgrade modfleet, then systemctl restart modfleet-agent@{node}"
    return (
        Reason.AGENT_TOO_OLD,
        f"The agent of {node} is too old for this. Upgrade it: {upgrade}. Then start another rollout for it.",
    )
