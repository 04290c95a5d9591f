"""Append conditions of decisions about rollouts: event types for `append(unless=...)`.

A decision that has read more than its own streams is made again if one of these events was added since. Reports of nodes
add events all the time, directly or through `advance`. So no type here follows from a report: no progress of operations,
no releases, no inventories. Where such a change matters, the decision names the stream of the placement.
"""

from artifacts_app.events import ArtifactDeleted, ArtifactUploaded
from modules_app.events import ModuleDeleted, ModuleRegistered
from rollout.domain.fleet.events import ReplicaIgnored, ReplicaUnignored
from rollout.domain.node.events import (
    NodeActivated,
    NodeAddressSet,
    NodeDecommissioned,
    NodeDegraded,
    NodeDrained,
    NodeJoined,
    NodeLabelled,
    NodeProfileChanged,
    NodeRevoked,
    NodeWentOffline,
)
from rollout.domain.rollout.events import NodesRetried, RollbackStarted, RolloutStarted

#: Each append that schedules operations contains one of these.
SCHEDULING: tuple[type, ...] = (RolloutStarted, RollbackStarted, NodesRetried)
#: All that a plan depends on: the nodes, their profiles and replicas, the modules and artifacts, the operations in progress.
PLANNING: tuple[type, ...] = (
    *SCHEDULING,
    ArtifactUploaded,
    ArtifactDeleted,
    ModuleRegistered,
    ModuleDeleted,
    NodeJoined,
    NodeProfileChanged,
    NodeLabelled,
    NodeAddressSet,
    NodeDrained,
    NodeActivated,
    NodeDecommissioned,
    ReplicaIgnored,
    ReplicaUnignored,
)
#: After these, a node may have or need a module version. A node that joins again may have it on its disk.
USING: tuple[type, ...] = (*SCHEDULING, NodeJoined)
#: After these, nothing is released to a node.
LEAVING: tuple[type, ...] = (NodeDrained, NodeWentOffline, NodeDegraded, NodeRevoked, NodeDecommissioned)
