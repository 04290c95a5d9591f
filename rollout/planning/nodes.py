"""Chooses the nodes of a request, and finds those to skip."""

from collections.abc import Iterable

from rollout.domain.errors import InvalidRolloutError, NoMatchError, NoNodesError, UnknownNodeError
from rollout.domain.placement.commands import Skip
from rollout.domain.request import RolloutRequest
from rollout.domain.selector import select
from rollout.messages import Action, Reason
from rollout.models import Node
from rollout.planning.catalogue import ModuleVersion
from rollout.queries.nodes import node_rows


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


def skips_of(request: RolloutRequest, module: ModuleVersion, nodes: Iterable[Node]) -> dict[str, Skip]:
    """Return why nodes are skipped, by node: draining, or no build for them."""
    return {node.name: skip for node in nodes if (skip := _reason_to_skip(request, module, node))}


def _reason_to_skip(request: RolloutRequest, module: ModuleVersion, node: Node) -> Skip | None:
    if node.draining:
        return Reason.NODE_DRAINING, f"{node.name} is draining: activate it, and start another rollout for it."
    return module.reason_to_skip(node) if request.action == Action.INSTALL else None
