"""The tables of nodes and rollouts. `projections` alone writes them, except those of `bookkeeping`."""

from rollout.models.bookkeeping import (
    Dispatch,
    DroppedMessages,
    Liveness,
    NodeFacts,
    RolloutWake,
    ScratchSuccess,
    ServerLog,
    ShardMember,
)
from rollout.models.fleet import ClusterTarget, FleetFreeze, IgnoredReplica
from rollout.models.join_tokens import JoinToken
from rollout.models.nodes import Node, NodeModule, Placement
from rollout.models.rollouts import Caused, Operation, Rollout, TimelineEntry

__all__ = [
    "Caused",
    "ClusterTarget",
    "Dispatch",
    "DroppedMessages",
    "FleetFreeze",
    "IgnoredReplica",
    "JoinToken",
    "Liveness",
    "Node",
    "NodeFacts",
    "NodeModule",
    "Operation",
    "Placement",
    "Rollout",
    "RolloutWake",
    "ScratchSuccess",
    "ServerLog",
    "ShardMember",
    "TimelineEntry",
]
