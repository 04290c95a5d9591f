"""What travels over the broker between the control plane and the agents: JSON, one dataclass per message.

Delivery is at least once and in no order. `Command` goes to `queue_for(node)` as the Celery task `EXECUTE`;
`Report` goes to `REPORTS`, `Heartbeat` to `HEARTBEATS`, both as plain messages.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

# Exported again: the agent knows packages by their manifest only, and imports no other app.
from artifacts_app.manifest import Member as Member  # noqa: PLC0414 - marks it as exported
from artifacts_app.manifest import content_digest as content_digest  # noqa: PLC0414 - likewise
from modules_app.operating_systems import operating_system as operating_system  # noqa: PLC0414 - likewise

#: What agents say ends in columns and stream names: it is bounded here, where it comes in.
Name = Annotated[str, Meta(pattern=r"\A(?!\.{1,2}\Z)[A-Za-z0-9_.-]{1,128}\Z")]
#: What a database stores: no NUL, and no half of a character.
_STORABLE = r"\A[^\x00\ud800-\udfff]*\Z"
Digest = Annotated[str, Meta(pattern=_STORABLE, max_length=64)]
Word = Annotated[str, Meta(pattern=_STORABLE, max_length=32)]
Host = Annotated[str, Meta(pattern=_STORABLE, max_length=255)]
Label = Annotated[str, Meta(pattern=_STORABLE, max_length=255)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 2)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
#: Unix time in seconds, by the sender's clock.
Moment = Annotated[float, Meta(ge=0, le=1e11)]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]

#: The Celery task that every agent registers; its only keyword argument is `command`, a `Command` as JSON.
EXECUTE = "modfleet.execute"
#: Queue of the reports, read by the control workers.
REPORTS = "control"
#: Queue of the heartbeats, read by the control workers; a heartbeat expires after one interval.
HEARTBEATS = "control.beats"


def queue_for(node: str) -> str:
    """Name of the queue that the agent of `node` consumes."""
    return f"node.{node}"


def cancel_queue_for(node: str) -> str:
    """Name of the queue on which the agent of `node` hears that a command is to be given up, while it works on it."""
    return f"cancel.{node}"


class Action(StrEnum):
    INSTALL = "install"
    REMOVE = "remove"


class Activation(StrEnum):
    """How far an installation goes: in place on disk, or also loaded into the running server and probed."""

    FILES = "files"
    LOAD = "load"


class Phase(StrEnum):
    """Phase of an operation: what one rollout does to one node."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    FETCHING = "fetching"
    VERIFYING = "verifying"
    INSTALLING = "installing"
    LOADING = "loading"
    PROBING = "probing"
    SETTLING = "settling"
    REMOVING = "removing"
    CANCELING = "canceling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELED = "canceled"
    SKIPPED = "skipped"
    ROLLED_BACK = "rolled_back"

    @property
    def is_final(self) -> bool:
        return self in FINAL_PHASES


FINAL_PHASES = frozenset(
    {Phase.SUCCEEDED, Phase.FAILED, Phase.TIMED_OUT, Phase.CANCELED, Phase.SKIPPED, Phase.ROLLED_BACK}
)
RUNNING_PHASES = frozenset(
    {
        Phase.FETCHING,
        Phase.VERIFYING,
        Phase.INSTALLING,
        Phase.LOADING,
        Phase.PROBING,
        Phase.SETTLING,
        Phase.REMOVING,
        Phase.CANCELING,
    }
)


#: What an agent says of an operation. Into the other phases the control plane alone brings it.
REPORTED_PHASES = (RUNNING_PHASES | FINAL_PHASES) - {Phase.CANCELING, Phase.TIMED_OUT, Phase.ROLLED_BACK}


class Reason(StrEnum):
    """Why an operation, a rollout or a node is in its phase."""

    ALREADY_INSTALLED = "already_installed"
    NOT_INSTALLED = "not_installed"
    INCOMPATIBLE_ARCH = "incompatible_arch"
    INCOMPATIBLE_OS = "incompatible_os"
    INCOMPATIBLE_REDIS_VERSION = "incompatible_redis_version"
    MISSING_DEPENDENCY = "missing_dependency"
    NODE_DRAINING = "node_draining"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    FETCH_FAILED = "fetch_failed"
    DISK_FULL = "disk_full"
    IO_ERROR = "io_error"
    LOAD_FAILED = "load_failed"
    PROBE_FAILED = "probe_failed"
    MODULE_COMMAND_DISABLED = "module_command_disabled"
    MODULE_NOT_OURS = "module_not_ours"
    UNLOAD_REFUSED = "unload_refused"
    SERVER_UNREACHABLE = "server_unreachable"
    SERVER_CRASHED = "server_crashed"
    STALE_GENERATION = "stale_generation"
    CLOCK_SKEW = "clock_skew"
    AGENT_ERROR = "agent_error"
    INVENTORY_MISMATCH = "inventory_mismatch"
    NODE_DECOMMISSIONED = "node_decommissioned"
    NODE_UNREACHABLE = "node_unreachable"
    NODE_DEADLINE = "node_deadline"
    ERROR_THRESHOLD = "error_threshold"
    PROGRESS_DEADLINE = "progress_deadline"
    NEWER_ROLLOUT = "newer_rollout"
    MANUAL = "manual"


#: What an agent gives as a reason. The control plane alone knows of the others.
REPORTED_REASONS = frozenset(
    {
        Reason.ALREADY_INSTALLED,
        Reason.NOT_INSTALLED,
        Reason.CHECKSUM_MISMATCH,
        Reason.FETCH_FAILED,
        Reason.DISK_FULL,
        Reason.IO_ERROR,
        Reason.LOAD_FAILED,
        Reason.PROBE_FAILED,
        Reason.MODULE_COMMAND_DISABLED,
        Reason.MODULE_NOT_OURS,
        Reason.UNLOAD_REFUSED,
        Reason.SERVER_UNREACHABLE,
        Reason.SERVER_CRASHED,
        Reason.STALE_GENERATION,
        Reason.CLOCK_SKEW,
        Reason.AGENT_ERROR,
        Reason.NODE_DEADLINE,
        Reason.MANUAL,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """Where a build's package is fetched from, and everything needed to check it. `size` is in bytes."""

    url: str
    size: int
    package_sha256: str
    content_sha256: str
    module_file: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One operation for one node. `package` is None exactly when `action` is remove.

    `generation` grows with each new intent for (node, module), `attempt` with each retry of one intent.
    `expires` is Unix time in seconds: later than that the agent drops the command without an answer. `sent_at` is when
    it was published, by the same clock; None from a control plane that does not say.
    `deadline_seconds` bounds the work on the node. The same command on `cancel_queue_for(node)` asks to give it up:
    the answer is a final report, `canceled` if the node is as it was before.
    """

    rollout: str
    node: str
    module_name: str
    version: int
    action: Action
    activation: Activation
    generation: int
    attempt: int
    expires: float
    deadline_seconds: float
    sent_at: float | None = None
    package: Package | None = None
    command_line_args: str = ""
    commands: tuple[str, ...] = ()
    #: The version that an operation had brought which this one takes back: once the rest has succeeded, its files are
    #: gone; if it is `version` itself, it is not loaded any more.
    undoes: int | None = None
    #: How long the server has to run after the probe before the load counts as a success; within `deadline_seconds`.
    settle_seconds: float = 0.0
    #: Module names, each after those that it needs. A server loads its modules in this order when it starts.
    load_order: tuple[str, ...] = ()
    #: Whether the module declares data types: a server that has keys of them does not start without the module.
    has_types: bool = False
    #: The request that it follows from, for the lines of the agent's log.
    correlation_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledModule:
    """One module version on a node's disk. `content_sha256` is read from the disk, not remembered."""

    module_name: Name
    version: Count
    content_sha256: Digest
    loaded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All that Modfleet installed on a node, at one look.

    `incarnation` is new at each start of the agent, and `counter` grows with each look of an incarnation: they order
    the looks. An agent that does not know them (empty, 0) is ordered by `sequence`, which follows its clock; agents
    still send that for older control planes.
    """

    sequence: Number
    modules: Annotated[tuple[InstalledModule, ...], Meta(max_length=1000)] = ()
    incarnation: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.-]{0,64}\Z")] = ""
    counter: Number = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the agent says of one operation. A final report carries the inventory after it.

    The same report may arrive more than once. `seconds` is how long the attempt took on the node, None before its end;
    `swap_seconds` is how long the server answered no client while it replaced one version by another, None if it did not.
    """

    rollout: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.-]{1,32}\Z")]
    node: Name
    module_name: Name
    generation: Count
    attempt: Count
    phase: Phase
    reason: Reason | None = None
    message: str = ""
    seconds: Seconds | None = None
    swap_seconds: Seconds | None = None
    inventory: Inventory | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProfile:
    """What an agent knows of its node. `platform` is `<os>/<machine>` as in `linux/x86_64`.

    `operating_system` is such as `rhel9`, empty if the node or its agent does not say. `server` is `valkey` or `redis`,
    empty while the server cannot be reached; `role` is `master`, `replica` or empty. `other_modules` names those that the
    server has loaded and Modfleet did not bring, as those that are built in.
    """

    platform: Annotated[str, Meta(pattern=_STORABLE, max_length=64)]
    operating_system: Word = ""
    server: Word = ""
    server_version: Word = ""
    role: Annotated[str, Meta(pattern=_STORABLE, max_length=16)] = ""
    api_hosts: Annotated[tuple[Host, ...], Meta(max_length=64)] = ()
    labels: Annotated[dict[Label, Label], Meta(max_length=64)] = field(default_factory=dict)
    other_modules: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Sent at the start (`hello`) and at every interval. `generations`: newest generation journaled per module.

    `interval_seconds` is how long the control plane waits for the next one; silent for three of them is offline.
    `sent_at` is the node's clock.
    """

    node: Name
    hello: bool
    interval_seconds: Annotated[float, Meta(gt=0, le=3600)]
    profile: NodeProfile
    inventory: Inventory
    generations: Annotated[dict[Name, Count], Meta(max_length=1000)] = field(default_factory=dict)
    sent_at: Moment | None = None


Message = TypeVar("Message", Command, Report, Heartbeat)


def to_json(message: Command | Report | Heartbeat) -> dict[str, Any]:
    """`message` as plain JSON values."""
    built: dict[str, Any] = msgspec.to_builtins(message)
    return built


def from_json(kind: type[Message], body: Mapping[str, Any]) -> Message:
    """`body` checked and typed. Raises: `msgspec.ValidationError`, whatever is wrong."""
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError:
        raise
    except Exception as error:  # a lone surrogate, or nesting without end: what a stranger sends has no end
        raise msgspec.ValidationError(repr(error)) from error
