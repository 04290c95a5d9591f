"""What people ask for: rollouts started, aborted and retried; nodes labelled, drained, taken out.

Everything here may be repeated. `advance`, `intake` and `clock` do what follows from it.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace

from artifacts_app.selectors import builds
from eventstore.store import Append, append
from eventstore.transact import load_state, retry_on_conflict, transact
from rollout import selectors
from rollout.advance import advance_all
from rollout.decider.node import NODE, ActivateNode, DecommissionNode, DrainNode, LabelNode, NodePhase
from rollout.decider.placement import Schedule
from rollout.decider.rollout import ROLLOUT, RolloutState, Start
from rollout.errors import (
    InvalidRolloutError,
    NoNodesError,
    UnknownNodeError,
)
from rollout.events import RolloutStarted, node_stream, rollout_stream
from rollout.messages import Action, Reason
from rollout.models import Liveness, Node
from rollout.placements import end_of_gone, placement_changes
from rollout.requests import RolloutRequest


def start_rollout(request: RolloutRequest) -> str:
    """The uid of the new rollout, of which every node is scheduled; nothing has been sent to any node yet.

    Raises: `RolloutError`, `artifacts_app.errors.ArtifactNotFoundError`.
    """
    uid = uuid.uuid4().hex

    @retry_on_conflict
    def attempt() -> None:
        append(*_start(uid, request))

    attempt()
    return uid


def _start(uid: str, request: RolloutRequest) -> list[Append]:
    nodes = _chosen_nodes(request)
    schedules = _schedules(uid, request, nodes)
    sizes = request.strategy.wave_sizes(sum(each.skip is None for each in schedules))
    numbers = iter([wave for wave, size in enumerate(sizes) for _ in range(size)])
    schedules = [replace(each, wave=next(numbers) if each.skip is None else -1) for each in schedules]
    started = RolloutStarted(
        rollout=uid,
        action=request.action,
        module_name=request.module_name,
        version=request.version,
        activation=request.activation,
        total=len(nodes),
        waves=sizes,
        named=request.nodes is not None,
        strategy=request.strategy,
        origin=request.origin,
        retry_of=request.retry_of,
        purge=request.purge,
    )
    # First of the rollout, then of its nodes: a projection folds the events in their order.
    new = Append(rollout_stream(uid), 0, ROLLOUT.decide(RolloutState(), Start(started=started)))
    return [new, *placement_changes(schedules)]


def _chosen_nodes(request: RolloutRequest) -> list[Node]:
    if request.nodes is None:
        nodes = list(Node.objects.exclude(phase=NodePhase.DECOMMISSIONED).order_by("name"))
        if not nodes and not request.may_be_empty:
            raise NoNodesError
        return nodes
    found = Node.objects.exclude(phase=NodePhase.DECOMMISSIONED).in_bulk(list(request.nodes))
    if unknown := sorted(set(request.nodes) - found.keys()):
        raise UnknownNodeError(f"The fleet has no node {', '.join(unknown)}. GET /v2/nodes lists them.")
    if not found:
        raise InvalidRolloutError("nodes: must name at least one node, or be left out for all")
    return [found[name] for name in dict.fromkeys(request.nodes)]


def _schedules(uid: str, request: RolloutRequest, nodes: Sequence[Node]) -> list[Schedule]:
    content: dict[str, str] = {}
    if request.action == Action.INSTALL:
        content = {each.platform: each.content_sha256 for each in builds(request.module_name, request.version)}
    known = dict(Liveness.objects.filter(node__in=[each.name for each in nodes]).values_list("node", "generations"))
    return [
        Schedule(
            rollout=uid,
            node=node.name,
            module_name=request.module_name,
            version=request.version,
            action=request.action,
            activation=request.activation,
            content_sha256=content.get(node.platform, ""),
            ordinal=ordinal,
            known_generation=known.get(node.name, {}).get(request.module_name, 0),
            supersede=request.supersede,
            skip=_reason_to_skip(request, node, content),
        )
        for ordinal, node in enumerate(nodes)
    ]


def _reason_to_skip(request: RolloutRequest, node: Node, content: Mapping[str, str]) -> tuple[Reason, str] | None:
    if node.draining:
        return Reason.NODE_DRAINING, f"{node.name} is draining: activate it, and start another rollout for it."
    if request.action == Action.INSTALL and node.platform not in content:
        there = ", ".join(sorted(content))
        return Reason.INCOMPATIBLE_ARCH, f"{node.name} is {node.platform}; there are builds for {there}."
    return None


def label_node(name: str, labels: dict[str, str]) -> None:
    """Raises: `NodeNotFoundError`, `NodePhaseError`."""
    transact(node_stream(name), NODE, LabelNode(node=name, labels=labels))


def drain_node(name: str) -> None:
    """It gets nothing new. Raises: `NodeNotFoundError`, `NodePhaseError`."""
    transact(node_stream(name), NODE, DrainNode(node=name))


def activate_node(name: str) -> None:
    """Raises: `NodeNotFoundError`, `NodePhaseError`."""
    transact(node_stream(name), NODE, ActivateNode(node=name))
    advance_all(selectors.unfinished_rollouts_of(name))


def decommission_node(name: str) -> None:
    """It leaves the fleet, and every rollout that still counts on it goes on without it. Raises: `NodeNotFoundError`."""
    rollouts = selectors.unfinished_rollouts_of(name)
    _decommission(name)
    advance_all(rollouts)


@retry_on_conflict
def _decommission(name: str) -> None:
    loaded = load_state(node_stream(name), NODE)
    events = NODE.decide(loaded.state, DecommissionNode(node=name))
    ends = placement_changes(end_of_gone(each) for each in selectors.unfinished_operations_of(name))
    append(loaded.append(events), *ends)
