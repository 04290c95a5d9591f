"""The state of one node, and how each event changes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from rollout.domain.node.events import (
    NodeActivated,
    NodeCameBack,
    NodeDecommissioned,
    NodeDrained,
    NodeDrifted,
    NodeDriftEnded,
    NodeEvent,
    NodeForgotten,
    NodeInventoryChanged,
    NodeJoined,
    NodeLabelled,
    NodeProfileChanged,
    NodeWentOffline,
)
from rollout.messages import InstalledModule, NodeProfile

#: A node's clock is reported as wrong if it differs from the database's by more than this, seconds.
LARGEST_SKEW = 30.0


class NodePhase(StrEnum):
    ONLINE = "online"
    OFFLINE = "offline"
    DRAINING = "draining"
    DECOMMISSIONED = "decommissioned"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """`profile` is None until the node joins. `sequence`: the number of the newest recorded inventory, -1 before the first.

    `labels`: those that an operator set. `drifts`: drifts that have not ended, by module and version: what was observed,
    and the digest of the files.
    """

    profile: NodeProfile | None = None
    online: bool = False
    draining: bool = False
    decommissioned: bool = False
    sequence: int = -1
    modules: tuple[InstalledModule, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    drifts: Mapping[tuple[str, int], tuple[str, str]] = field(default_factory=dict)

    @property
    def phase(self) -> NodePhase:
        if self.decommissioned:
            return NodePhase.DECOMMISSIONED
        if not self.online:
            return NodePhase.OFFLINE
        return NodePhase.DRAINING if self.draining else NodePhase.ONLINE


def evolve(state: NodeState, event: NodeEvent) -> NodeState:
    match event:
        case NodeJoined():
            return NodeState(profile=event.profile, online=True, sequence=state.sequence, modules=state.modules)
        case NodeProfileChanged():
            return replace(state, profile=event.profile)
        case NodeInventoryChanged():
            return replace(state, sequence=event.sequence, modules=event.modules)
        case NodeLabelled():
            return replace(state, labels=event.labels)
        case NodeWentOffline():
            return replace(state, online=False)
        case NodeCameBack():
            return replace(state, online=True)
        case NodeDrained():
            return replace(state, draining=True)
        case NodeActivated():
            return replace(state, draining=False)
        case NodeDecommissioned():
            return replace(state, decommissioned=True, online=False)
        case NodeForgotten():
            return replace(state, online=False, sequence=-1, modules=())
        case NodeDrifted():
            key = (event.module_name, event.version)
            return replace(state, drifts={**state.drifts, key: (event.observed, event.content_sha256)})
        case NodeDriftEnded():
            key = (event.module_name, event.version)
            return replace(state, drifts={each: drift for each, drift in state.drifts.items() if each != key})
