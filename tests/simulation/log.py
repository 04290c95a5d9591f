"""The log of the simulated control plane, and the states and rows that are made of it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from eventstore import Decider, Metadata, begun_by, person
from rollout.domain.fleet.decider import FLEET
from rollout.domain.fleet.events import FleetEvent, FleetFrozen, FleetThawed
from rollout.domain.node.decider import NODE
from rollout.domain.node.state import NodeState
from rollout.domain.placement.commands import (
    PlacementCommand,
)
from rollout.domain.placement.decider import PLACEMENT
from rollout.domain.placement.events import OperationScheduled, PlacementForgotten
from rollout.domain.placement.state import PlacementState
from rollout.domain.rollout.decider import ROLLOUT
from rollout.domain.rollout.events import RolloutStarted
from rollout.domain.rollout.state import RolloutState
from rollout.models import FleetFreeze, Liveness, Operation
from rollout.projections.counters import operation_key
from rollout.projections.nodes import NodeFold
from rollout.projections.rollouts import RolloutFold
from tests.simulation.snapshot import Rows

PlacementDecider = Decider[PlacementState, PlacementCommand]
#: Who asked for what is told in the log itself, and not played here.
ALICE = begun_by(person("alice"), correlation_id="r1")


@dataclass(frozen=True, slots=True)
class Recorded:
    position: int
    recorded_at: datetime
    stream: str
    event: Any
    event_id: uuid.UUID
    metadata: Metadata = ALICE
    shown_actor: str = "alice"
    actor: str = ALICE.actor


class Folded:
    """States and rows, made from nothing but the log."""

    def __init__(self, placement: PlacementDecider = PLACEMENT) -> None:
        self._placement = placement
        self.nodes: dict[str, NodeState] = {}
        self.placements: dict[tuple[str, str], PlacementState] = {}
        self.rollouts: dict[str, RolloutState] = {}
        self.fleet = FLEET.initial
        self.of_rollouts = RolloutFold({}, {})
        self.of_nodes = NodeFold({}, [], [])
        self.rows = Rows(
            rollouts=self.of_rollouts.rollouts,
            operations=self.of_rollouts.operations,
            nodes=self.of_nodes.nodes,
            modules=self.of_nodes._modules.rows,
            placements=self.placements,
            freeze=None,
            former=self.of_rollouts.former,
            members={},
            heard=self.heard,
            servers=self.known_server,
            restarting_at=self.restarting_at,
        )

    def restarting_at(self, name: str) -> datetime | None:
        """Return when the node has last said that it restarts its server."""
        raise NotImplementedError

    def heard(self, name: str) -> Liveness:
        """Return when the node was last heard."""
        raise NotImplementedError

    def known_server(self, name: str) -> Mapping[str, Any]:
        """Return the newest state that the node has reported of its server, as JSON."""
        raise NotImplementedError

    def apply(self, recorded: Recorded) -> None:
        event = recorded.event
        told: Any = recorded  # all that a fold reads of a `RecordedEvent`
        match recorded.stream.partition(":")[0]:
            case "placement":
                key = event.node, event.module_name
                self.placements[key] = self._placement.evolve(self.placements.get(key, PLACEMENT.initial), event)
                self.of_nodes.apply(told)
                if isinstance(event, PlacementForgotten):
                    return
                is_new = isinstance(event, OperationScheduled) and not self.operation(event.rollout, event.node)
                self.of_rollouts.apply(told)
                if is_new:
                    self.rows.index(self.known_operation(event.rollout, event.node))
            case "node":
                self.nodes[event.node] = NODE.evolve(self.nodes.get(event.node, NODE.initial), event)
                self.of_nodes.apply(told)
                self.of_nodes.finished_nodes()
            case "fleet":
                self.fleet = FLEET.evolve(self.fleet, event)
                self._freeze(event, recorded.recorded_at)
            case "rollout":
                self.rollouts[event.rollout] = ROLLOUT.evolve(self.rollouts.get(event.rollout, ROLLOUT.initial), event)
                self.of_rollouts.apply(told)

    def _freeze(self, event: FleetEvent, now: datetime) -> None:
        if isinstance(event, FleetFrozen):
            self.rows.freeze = FleetFreeze(frozen=True, reason=event.reason, actor="alice", frozen_at=now)
        elif isinstance(event, FleetThawed):
            assert self.rows.freeze
            self.rows.freeze.frozen, self.rows.freeze.thawed_at = False, now

    def operation(self, uid: str, node: str) -> Operation | None:
        return self.rows.operations.get(operation_key(uid, node))

    def known_operation(self, uid: str, node: str) -> Operation:
        return self.rows.operations[operation_key(uid, node)]

    def started(self, uid: str) -> RolloutStarted:
        started = self.rollouts[uid].started
        assert started
        return started
