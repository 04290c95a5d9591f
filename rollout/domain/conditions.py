"""What decisions about rollouts read beside the streams that they append to: event types for `append(unless=...)`.

No type that reports append, directly or by what `advance` does about them, for those are added all the time: not what
operations went through, what was released, what a node has. Where such a change matters, the decision names the stream
of the placement.
"""

from artifacts_app.events import ArtifactDeleted, ArtifactUploaded
from modules_app.events import ModuleDeleted, ModuleRegistered
from rollout.domain.node.events import (
    NodeActivated,
    NodeDecommissioned,
    NodeDrained,
    NodeJoined,
    NodeLabelled,
    NodeProfileChanged,
    NodeWentOffline,
)
from rollout.domain.rollout.events import NodesRetried, RollbackStarted, RolloutStarted

#: One of them comes with every operation that is scheduled.
SCHEDULING: tuple[type, ...] = (RolloutStarted, RollbackStarted, NodesRetried)
#: What a plan is made from: the nodes and what they run, what there is to install, what is under way.
PLANNING: tuple[type, ...] = (
    *SCHEDULING,
    ArtifactUploaded,
    ArtifactDeleted,
    ModuleRegistered,
    ModuleDeleted,
    NodeJoined,
    NodeProfileChanged,
    NodeLabelled,
    NodeDrained,
    NodeActivated,
    NodeDecommissioned,
)
#: What makes a node have or need a module version: a node that joins again may have it on its disk.
USING: tuple[type, ...] = (*SCHEDULING, NodeJoined)
#: What keeps a node from getting anything.
LEAVING: tuple[type, ...] = (NodeDrained, NodeWentOffline, NodeDecommissioned)
