"""Events of `placement:<node>:<module>`: the operations on one module of one node."""

from dataclasses import dataclass, fields
from typing import Any

from eventstore import event
from rollout.messages import Action, Activation, Phase, Reason, Replication, Restart, ServerHealth, Way, WayBack


def placement_stream(node: str, module: str) -> str:
    return f"placement:{node}:{module}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One version of a module on a node. `content_sha256` is the digest of the build's files."""

    version: int
    activation: Activation
    content_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What a rollout does with the module on one node. The command, the event and the state of an operation share it."""

    rollout: str
    version: int
    action: Action
    activation: Activation
    #: The digest of the build, empty for a removal.
    content_sha256: str
    #: Grows with each new operation on this module of the node, from 1; a node refuses an older one. 0: not scheduled yet.
    generation: int = 0
    #: The number of the attempt, from 1. A retry keeps the generation.
    attempt: int = 1
    #: The node's place in the rollout, from 0.
    ordinal: int
    #: The node's wave, from 0. -1: the node is skipped from the start.
    wave: int = 0
    #: The operation restores what the node had before the rollout changed it.
    rollback: bool = False
    #: A version that the operation removes in addition, if any.
    undoes: int | None = None
    #: The reconciler asked for the operation, or it fails back, so any rollout of a person supersedes it.
    yields: bool = False
    #: How the server comes to load or unload the module.
    way: Way = Way.LOAD
    #: The node that becomes the master again. The operation changes no module, so it leaves the desired state as it is.
    fails_back_to: str = ""

    @property
    def changes_server(self) -> bool:
        """Return True if the operation may load or unload the module, and not only put files in place."""
        is_loading = self.action == Action.INSTALL and self.activation == Activation.LOAD
        return is_loading or self.action == Action.REMOVE or self.undoes is not None

    def values(self) -> dict[str, Any]:
        """Return the shared fields, to build another class of the same intent from them."""
        return {each.name: getattr(self, each.name) for each in fields(Intent)}


@event("operation.scheduled.v1")
class OperationScheduled(Intent):
    """A rollout asked for an operation on the node, or for another attempt of one."""

    node: str
    module_name: str
    #: Grows with each new operation on this module of the node, from 1; a node refuses an older one.
    generation: int
    #: The number of the attempt, from 1. A retry keeps the generation.
    attempt: int
    #: An older operation has started and must end first.
    behind: bool = False
    #: The shortest wait until the release, seconds.
    delay_seconds: float = 0.0


@event("operation.released.v1")
class OperationReleased:
    """The operation was handed to its node. From now on the node's desired state is the operation's result.

    `before`: the versions of the module that the node had, from the last success, or from the node's inventory if nothing
    has succeeded there. It is null in older logs if there was a success. `undoes`: a version that the operation removes in
    addition, if any. `expects`: the server's place in its shard, null if the operation does not change the server, and in
    older logs."""

    rollout: str
    node: str
    module_name: str
    version: int
    action: Action
    activation: Activation
    content_sha256: str
    undoes: int | None = None
    before: tuple[Target, ...] | None = None
    expects: Replication | None = None


@event("operation.waiting.v1")
class OperationWaiting:
    """The scheduled operation cannot be released, because of its server or of the other servers of its shard.

    `message` completes "It waits for". Recorded once for each reason, and again with the duration while the wait lasts."""

    rollout: str
    node: str
    module_name: str
    reason: Reason
    message: str


@event("operation.cancel_requested.v1")
class OperationCancelRequested:
    """The node was asked to stop the operation and to undo its changes. The node's report ends the operation."""

    rollout: str
    node: str
    module_name: str


@event("operation.given_back.v1")
class OperationGivenBack:
    """The operation is scheduled again: its node went offline before it started the operation, or its agent returned it
    before it changed the server.

    `reason` and `message`: why the agent returned it; null and empty if the node went offline."""

    rollout: str
    node: str
    module_name: str
    reason: Reason | None = None
    message: str = ""


@event("operation.progressed.v1")
class OperationProgressed:
    """The node reported a later phase of the operation that is not final, or what happened in the phase.

    `reason` is then `server_hangs` or `server_restarted`. Each reason is recorded once for an attempt."""

    rollout: str
    node: str
    module_name: str
    phase: Phase
    reason: Reason | None = None
    message: str = ""


@event("operation.finished.v1")
class OperationFinished:
    """The operation's attempt ended. `phase` is final.

    `seconds`: how long the node worked, null if the node did not report it. `swap_seconds`: how long the node's server
    answered no client while it replaced one version by another, null if it replaced none. `answered`: the node reported
    this end; null in older logs. `health`: the server before the load and after it has settled, null if the operation loaded
    nothing. `restart`: of the server, by the operation; null if there was none. `way_back`: if the former version can read what
    the new one writes; null if no version with data types has taken the place of another one."""

    rollout: str
    node: str
    module_name: str
    phase: Phase
    reason: Reason | None = None
    message: str = ""
    seconds: float | None = None
    swap_seconds: float | None = None
    answered: bool | None = None
    health: ServerHealth | None = None
    restart: Restart | None = None
    way_back: WayBack | None = None


@event("operation.reported_late.v1")
class OperationReportedLate:
    """The node reported an end after the operation had ended. The recorded outcome stays.

    Each phase is recorded once for an attempt; `skipped` twice at most: once as a success, once as a failure."""

    rollout: str
    node: str
    module_name: str
    phase: Phase
    reason: Reason | None = None
    message: str = ""


@event("report.rejected.v1")
class ReportRejected:
    """A report was not applied: it fits no operation, contains a value that no agent sends, or could not be recorded.

    `why` is a message for people. At most 10 are recorded for a module on a node between two scheduled operations."""

    rollout: str
    node: str
    module_name: str
    generation: int
    attempt: int
    phase: Phase
    why: str


@event("placement.forgotten.v1")
class PlacementForgotten:
    """The node left the fleet. The module has no desired state there any more, and its actual state is unknown."""

    node: str
    module_name: str


PlacementEvent = (
    OperationScheduled
    | OperationReleased
    | OperationWaiting
    | OperationCancelRequested
    | OperationGivenBack
    | OperationProgressed
    | OperationFinished
    | OperationReportedLate
    | ReportRejected
    | PlacementForgotten
)
