"""Events of `placement:<node>:<module>`: the operations on one module of one node."""

from dataclasses import dataclass

from eventstore import event
from rollout.messages import Action, Activation, Phase, Reason


def placement_stream(node: str, module: str) -> str:
    return f"placement:{node}:{module}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One version of a module on a node. `content_sha256` is that of the build."""

    version: int
    activation: Activation
    content_sha256: str


@event("operation.scheduled.v1")
class OperationScheduled:
    """`content_sha256` is that of the build the node is to have, empty for a removal. `behind`: an older operation
    that had started is waited for. `ordinal` is the node's place in the rollout, `wave` the wave it is in, both from 0;
    one that is skipped from the start is in no wave, -1. `rollback`: it gives back what was there before the rollout
    changed it, and `undoes` is the version which that had brought and which is to be gone, if any. `delay_seconds`: not
    to be released sooner than that from now. `yields`: any rollout of a person takes its place."""

    rollout: str
    node: str
    module_name: str
    version: int
    action: Action
    activation: Activation
    content_sha256: str
    generation: int
    attempt: int
    ordinal: int
    wave: int = 0
    behind: bool = False
    rollback: bool = False
    undoes: int | None = None
    delay_seconds: float = 0.0
    yields: bool = False


@event("operation.released.v1")
class OperationReleased:
    """From here on the node's desired state is what this operation brings about. `before`: the versions of the module
    that the node has: what the last success left, or where there was none, what its inventory shows. None in older logs
    where there was one."""

    rollout: str
    node: str
    module_name: str
    version: int
    action: Action
    activation: Activation
    content_sha256: str
    undoes: int | None = None
    before: tuple[Target, ...] | None = None


@event("operation.cancel_requested.v1")
class OperationCancelRequested:
    """The node is asked to give it up, and to put back what it has changed; it answers with the operation's end."""

    rollout: str
    node: str
    module_name: str


@event("operation.given_back.v1")
class OperationGivenBack:
    """The node went offline before it started: released again when it is back."""

    rollout: str
    node: str
    module_name: str


@event("operation.progressed.v1")
class OperationProgressed:
    rollout: str
    node: str
    module_name: str
    phase: Phase


@event("operation.finished.v1")
class OperationFinished:
    """`seconds` is how long the node worked on it, None if it never said; `swap_seconds` is how long its server answered
    no client while it replaced one version by another, None if it did not. `answered`: the node has said so; None in
    older logs, which do not say."""

    rollout: str
    node: str
    module_name: str
    phase: Phase
    reason: Reason | None = None
    message: str = ""
    seconds: float | None = None
    swap_seconds: float | None = None
    answered: bool | None = None


@event("operation.reported_late.v1")
class OperationReportedLate:
    """The node's answer to an operation that had ended without it. The outcome stays as it is. Each phase once for an
    attempt; `skipped` twice, if it is a success once."""

    rollout: str
    node: str
    module_name: str
    phase: Phase
    reason: Reason | None = None
    message: str = ""


@event("report.rejected.v1")
class ReportRejected:
    """A report of an operation that was never asked for, one that says what no agent says, or one that could not be
    recorded. At most 10 for a module on a node between two operations that are scheduled there."""

    rollout: str
    node: str
    module_name: str
    generation: int
    attempt: int
    phase: Phase
    why: str


@event("placement.forgotten.v1")
class PlacementForgotten:
    """The node has left the fleet: nothing is wanted of the module there, and what was there is not known any more."""

    node: str
    module_name: str


PlacementEvent = (
    OperationScheduled
    | OperationReleased
    | OperationCancelRequested
    | OperationGivenBack
    | OperationProgressed
    | OperationFinished
    | OperationReportedLate
    | ReportRejected
    | PlacementForgotten
)
