"""The messages between the control plane and the agents, over the broker: JSON, one dataclass per message.

Delivery is at least once and in no order. A `Command` goes to `queue_for(node)` as the Celery task `EXECUTE`. `Reports` go
to `REPORTS`, a `Heartbeat` goes to `HEARTBEATS`, both as plain messages. Between a node that has joined and its control
plane, each message is in an envelope (`rollout.signing`). Other nodes send each `Report` alone, and get each `Command`
without an envelope.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

# Exported again: the agent uses only the manifest of a package, and imports no other app.
from artifacts_app.manifest import Member as Member  # noqa: PLC0414 - marks it as exported
from artifacts_app.manifest import content_digest as content_digest  # noqa: PLC0414 - likewise
from modules_app.operating_systems import operating_system as operating_system  # noqa: PLC0414 - likewise

#: Fields of messages end in columns and stream names, so they have limits.
Name = Annotated[str, Meta(pattern=r"\A(?!\.{1,2}\Z)[A-Za-z0-9_.-]{1,128}\Z")]
#: Text that a database can store: no NUL, and no half of a surrogate pair.
_STORABLE = r"\A[^\x00\ud800-\udfff]*\Z"
Digest = Annotated[str, Meta(pattern=_STORABLE, max_length=64)]
Word = Annotated[str, Meta(pattern=_STORABLE, max_length=32)]
Host = Annotated[str, Meta(pattern=_STORABLE, max_length=255)]
Label = Annotated[str, Meta(pattern=_STORABLE, max_length=255)]
#: The most lines of the server's log in a report, and the most characters of each.
MOST_LOG_LINES = 20
LONGEST_LOG_LINE = 300
LogLine = Annotated[str, Meta(pattern=_STORABLE, max_length=LONGEST_LOG_LINE)]
#: `host:port`.
Address = Annotated[str, Meta(pattern=_STORABLE, max_length=264)]
#: A path, or another short text that a server reports.
Fact = Annotated[str, Meta(pattern=_STORABLE, max_length=256)]
Sentences = Annotated[str, Meta(pattern=_STORABLE, max_length=1000)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 2)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
#: Unix time in seconds, by the sender's clock.
Moment = Annotated[float, Meta(ge=0, le=1e11)]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Microseconds = Annotated[float, Meta(ge=0, le=1e12)]

#: The Celery task that every agent registers. Its keyword argument is `signed`, the envelope of a `Command`; for a node that
#: has not joined it is `command`, a `Command` as JSON.
EXECUTE = "modfleet.execute"
#: Queue of the reports, read by the control workers.
REPORTS = "control"
#: Queue of the heartbeats, read by the control workers; a heartbeat expires after one interval.
HEARTBEATS = "control.beats"


def queue_for(node: str) -> str:
    """Return the name of the queue that the agent of `node` consumes."""
    return f"node.{node}"


def cancel_queue_for(node: str) -> str:
    """Return the name of the queue from which the agent of `node` receives cancels, also during an operation."""
    return f"cancel.{node}"


class Action(StrEnum):
    INSTALL = "install"
    REMOVE = "remove"


class Activation(StrEnum):
    """How far an installation goes: files on disk only, or also loaded into the running server and probed."""

    FILES = "files"
    LOAD = "load"


class FailedCalls(StrEnum):
    """What happens if a larger share of the calls of a module's commands fails than before."""

    WARN = "warn"
    STOP = "stop"


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


#: The phases that an agent reports. Only the control plane sets the others. `scheduled` returns the operation.
REPORTED_PHASES = (RUNNING_PHASES | FINAL_PHASES | {Phase.SCHEDULED}) - {
    Phase.CANCELING,
    Phase.TIMED_OUT,
    Phase.ROLLED_BACK,
}


class Reason(StrEnum):
    """Why an operation, a rollout or a node is in its phase."""

    ALREADY_INSTALLED = "already_installed"
    NOT_INSTALLED = "not_installed"
    INCOMPATIBLE_ARCH = "incompatible_arch"
    INCOMPATIBLE_OS = "incompatible_os"
    INCOMPATIBLE_REDIS_VERSION = "incompatible_redis_version"
    BUNDLED = "bundled"
    UNMANAGED_REPLICA = "unmanaged_replica"
    UNMANAGED_MASTER = "unmanaged_master"
    REPLICA_LACKS_MODULE = "replica_lacks_module"
    MASTER_HAS_MODULE = "master_has_module"
    ROLE_CHANGED = "role_changed"
    SERVER_NOT_READY = "server_not_ready"
    BACKUP_RUNNING = "backup_running"
    MISSING_DEPENDENCY = "missing_dependency"
    NODE_DRAINING = "node_draining"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    FETCH_FAILED = "fetch_failed"
    DISK_FULL = "disk_full"
    IO_ERROR = "io_error"
    LOAD_FAILED = "load_failed"
    FILE_NOT_EXECUTABLE = "file_not_executable"
    FILE_NOT_READABLE = "file_not_readable"
    FILE_NOT_FOUND = "file_not_found"
    EXECUTION_FORBIDDEN = "execution_forbidden"
    MISSING_LIBRARY = "missing_library"
    UNDEFINED_SYMBOL = "undefined_symbol"
    INCOMPATIBLE_SERVER = "incompatible_server"
    COMMAND_NAME_TAKEN = "command_name_taken"
    SCRATCH_LOAD_FAILED = "scratch_load_failed"
    SCRATCH_HUNG = "scratch_hung"
    SCRATCH_UNAVAILABLE = "scratch_unavailable"
    OPTIONS_LOST = "options_lost"
    PROBE_FAILED = "probe_failed"
    MODULE_COMMAND_DISABLED = "module_command_disabled"
    MODULE_NOT_OURS = "module_not_ours"
    NOTHING_TO_ADOPT = "nothing_to_adopt"
    PERMISSION_DENIED = "permission_denied"
    PERSISTENCE_FAILED = "persistence_failed"
    PERSISTENCE_CONFLICT = "persistence_conflict"
    EXTERNAL_CONFIGURATION = "external_configuration"
    UNLOAD_REFUSED = "unload_refused"
    EXPORTS_DATA_TYPES = "exports_data_types"
    MODULE_BUSY = "module_busy"
    USED_BY_MODULE = "used_by_module"
    ACL_REFERENCES_MODULE = "acl_references_module"
    DATA_IN_USE = "data_in_use"
    IN_USE = "in_use"
    AUX_DATA = "aux_data"
    AOF_REWRITE_FAILED = "aof_rewrite_failed"
    UNLOADED_BY_HAND = "unloaded_by_hand"
    SERVER_UNREACHABLE = "server_unreachable"
    SERVER_CRASHED = "server_crashed"
    SERVER_RESTARTED = "server_restarted"
    SERVER_HANGS = "server_hangs"
    LINK_DOWN = "link_down"
    ERROR_REPLIES = "error_replies"
    FAILED_CALLS = "failed_calls"
    STALE_GENERATION = "stale_generation"
    CLOCK_SKEW = "clock_skew"
    AGENT_ERROR = "agent_error"
    INVENTORY_MISMATCH = "inventory_mismatch"
    AGENT_TOO_OLD = "agent_too_old"
    OBSERVE_ONLY = "observe_only"
    NODE_DECOMMISSIONED = "node_decommissioned"
    NODE_UNREACHABLE = "node_unreachable"
    NODE_DEADLINE = "node_deadline"
    ERROR_THRESHOLD = "error_threshold"
    PROGRESS_DEADLINE = "progress_deadline"
    NEWER_ROLLOUT = "newer_rollout"
    MANUAL = "manual"

    @classmethod
    def _missing_(cls, value: object) -> "Reason | None":
        """Return the reason that had this name in older logs, rows and agents."""
        return cls.ACL_REFERENCES_MODULE if value == "named_in_acl" else None


#: Reasons that older control planes do not know, each with the one that they are sent instead.
BROADER = {
    Reason.FILE_NOT_EXECUTABLE: Reason.LOAD_FAILED,
    Reason.FILE_NOT_READABLE: Reason.LOAD_FAILED,
    Reason.FILE_NOT_FOUND: Reason.LOAD_FAILED,
    Reason.EXECUTION_FORBIDDEN: Reason.LOAD_FAILED,
    Reason.MISSING_LIBRARY: Reason.LOAD_FAILED,
    Reason.UNDEFINED_SYMBOL: Reason.LOAD_FAILED,
    Reason.INCOMPATIBLE_SERVER: Reason.LOAD_FAILED,
    Reason.COMMAND_NAME_TAKEN: Reason.LOAD_FAILED,
    Reason.SCRATCH_LOAD_FAILED: Reason.LOAD_FAILED,
    Reason.SCRATCH_HUNG: Reason.LOAD_FAILED,
    Reason.SCRATCH_UNAVAILABLE: Reason.LOAD_FAILED,
    Reason.OPTIONS_LOST: Reason.LOAD_FAILED,
    Reason.PERMISSION_DENIED: Reason.LOAD_FAILED,
    Reason.NOTHING_TO_ADOPT: Reason.MODULE_NOT_OURS,
    Reason.PERSISTENCE_FAILED: Reason.IO_ERROR,
    Reason.PERSISTENCE_CONFLICT: Reason.IO_ERROR,
    Reason.EXTERNAL_CONFIGURATION: Reason.LOAD_FAILED,
    Reason.OBSERVE_ONLY: Reason.AGENT_ERROR,
    Reason.EXPORTS_DATA_TYPES: Reason.UNLOAD_REFUSED,
    Reason.MODULE_BUSY: Reason.UNLOAD_REFUSED,
    Reason.USED_BY_MODULE: Reason.UNLOAD_REFUSED,
    Reason.ACL_REFERENCES_MODULE: Reason.UNLOAD_REFUSED,
    Reason.DATA_IN_USE: Reason.UNLOAD_REFUSED,
    Reason.IN_USE: Reason.UNLOAD_REFUSED,
    Reason.AUX_DATA: Reason.UNLOAD_REFUSED,
    Reason.AOF_REWRITE_FAILED: Reason.UNLOAD_REFUSED,
    Reason.SERVER_RESTARTED: Reason.SERVER_UNREACHABLE,
    Reason.SERVER_HANGS: Reason.NODE_DEADLINE,
    Reason.LINK_DOWN: Reason.PROBE_FAILED,
    Reason.ERROR_REPLIES: Reason.PROBE_FAILED,
    Reason.FAILED_CALLS: Reason.PROBE_FAILED,
}
#: The reasons that an agent reports. Only the control plane sets the others.
REPORTED_REASONS = frozenset(
    {
        *BROADER,
        Reason.ALREADY_INSTALLED,
        Reason.NOT_INSTALLED,
        Reason.ROLE_CHANGED,
        Reason.SERVER_NOT_READY,
        Reason.BACKUP_RUNNING,
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


#: Why an agent returns an operation before it changes the server: it is released again later, and that is no failure.
RETURNING = frozenset({Reason.ROLE_CHANGED, Reason.SERVER_NOT_READY, Reason.BACKUP_RUNNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """Where to fetch a build's package, and all that is needed to check it. `size` is in bytes."""

    url: str
    size: int
    package_sha256: str
    content_sha256: str
    module_file: str
    members: tuple[Member, ...]


#: The most replicas of a server that messages name.
MOST_REPLICAS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Replication:
    """The place of a server in its shard, by its own INFO. Two are equal while nothing has changed.

    `role` is `master` or `replica`, empty if it is not known. `master`, for a replica: `host:port`. `replicas`: the
    `host:port` of each, sorted, without clients that only copy the data; the first `MOST_REPLICAS`.
    """

    role: Word = ""
    master: Address = ""
    replicas: Annotated[tuple[Address, ...], Meta(max_length=MOST_REPLICAS)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One operation for one node. `package` is None exactly when `action` is remove.

    `generation` grows with each new intent for (node, module), `attempt` with each retry of one intent.
    `expires` is Unix time in seconds: after it, the agent drops the command without an answer. `sent_at` is when it was
    published, by the same clock; None from an older control plane.
    `deadline_seconds` limits the time of the operation on the node. The same command on `cancel_queue_for(node)` cancels
    the operation: the answer is a final report, `canceled` if the node is as it was before.
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
    #: The module's arguments. None from an older control plane, which sends only `command_line_args`.
    args: tuple[str, ...] | None = None
    #: The same as one text, for older agents: they split it as a shell does it.
    command_line_args: str = ""
    #: The module's arguments in a scratch server. None: the same.
    scratch_args: str | None = None
    #: The keys (`scratch_key`) of loads in scratch servers that have succeeded on any node or for the package, and for each
    #: of them its `ScratchLoad.source`.
    scratch_done: tuple[str, ...] = ()
    scratch_sources: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    #: The version that the undone operation has installed. Its files are deleted once all else has succeeded. If it is
    #: `version` itself, the files stay and the module is unloaded.
    undoes: int | None = None
    #: How long the server must run after the probe before the load counts as a success; part of `deadline_seconds`.
    settle_seconds: float = 0.0
    #: Module names, each after those that it needs. A server loads its modules in this order when it starts.
    load_order: tuple[str, ...] = ()
    #: True if the module declares data types, or a scratch server has seen some: a server with keys of these types does not
    #: start without the module.
    has_types: bool = False
    #: The request that led to the command, for the agent's log.
    correlation_id: str = ""
    #: The start of the agent that must carry it out: another one drops it. Empty in a command without an envelope.
    incarnation: str = ""
    #: Grows with each release of one attempt: an agent that has returned the operation carries it out again only after
    #: another release. 0 from an older control plane.
    release: int = 0
    #: The server's place in its shard when the operation was released. If it differs just before the agent changes the
    #: server, the agent returns the operation. None: not checked.
    expects: Replication | None = None
    #: Take over the module that the server has loaded from another path, if its file is that of the package: without a load.
    adopt: bool = False
    #: Unload the module even if its commands were called in the last 10 minutes.
    even_if_used: bool = False
    #: False: no person has started the operation. If the server has loaded the module by now, it is not unloaded.
    may_unload: bool = True
    #: The module writes auxiliary data, so that a server does not load its own RDB file without the module: as scratch
    #: servers have seen on any node, for the build that this node has. None: not known.
    aux_data: bool | None = None
    #: An upgrade that would lose an option of the former build fails before the swap: no plan that a person has accepted has
    #: listed it. `options`: names of the new build's options, as scratch servers have seen on any node. None: not known.
    keep_options: bool = False
    options: tuple[str, ...] | None = None
    #: `stop`: the operation fails if, while the server settles, more than twice the share of calls fails.
    failed_calls: FailedCalls = FailedCalls.WARN


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledModule:
    """One module version on a node's disk. `content_sha256` is computed from the files on disk."""

    module_name: Name
    version: Count
    content_sha256: Digest
    loaded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All that Modfleet has installed on a node, at one moment.

    `incarnation` is new at each start of the agent, and `counter` grows with each inventory of an incarnation: they order
    the inventories. Those of an older agent (empty, 0) are ordered by `sequence`, which follows its clock. Agents still
    send `sequence` for older control planes.
    """

    sequence: Number
    modules: Annotated[tuple[InstalledModule, ...], Meta(max_length=1000)] = ()
    incarnation: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.-]{0,64}\Z")] = ""
    counter: Number = 0


def scratch_key(*, content_sha256: str, server: str, args: Sequence[str], platform: str) -> str:
    """Return the name of all loads of the same bytes into the same server, such as `redis 7.0.15`, with the same arguments,
    on the same platform."""
    return sha256(msgspec.json.encode([content_sha256, server, args, platform])).hexdigest()


def any_known(answers: Iterable[bool | None]) -> bool | None:
    """Return True if one answer is True, None if no answer is known, and else False."""
    known = {each for each in answers if each is not None}
    return True in known if known else None


#: The most texts of each kind in a `ScratchLoad`.
MOST_SCRATCH_FACTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ScratchLoad:
    """What a load of the module in a scratch server has shown. None: not known.

    `has_types`: the module exports data types. `aux_data`: a server with an RDB of the module does not start without the
    module, even if the RDB has no key. `options`: names of its settings in CONFIG GET. `differences`: what was not as it
    is for the live server. `problem`: why the load failed, empty if it succeeded. `source`: empty if the node has tried it
    itself; else `package`, or the node that has.
    """

    key: Digest
    has_types: bool | None = None
    aux_data: bool | None = None
    commands: Annotated[tuple[Fact, ...], Meta(max_length=MOST_SCRATCH_FACTS)] = ()
    options: Annotated[tuple[Fact, ...], Meta(max_length=MOST_SCRATCH_FACTS)] = ()
    differences: Annotated[tuple[Fact, ...], Meta(max_length=MOST_SCRATCH_FACTS)] = ()
    problem: Sentences = ""
    source: Fact = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics:
    """Statistics of a server at one moment. None: not known, or the module has no commands.

    `calls`: calls of the module's commands since it was loaded, with those that were rejected. `failed_calls`: those of
    them that failed or were rejected. `p99_usec`: the highest 99th percentile of the latency of its commands, in
    microseconds. `used_memory` is in bytes. `evicted_keys` and `rejected_connections` count from the start of the server.
    """

    calls: Number | None = None
    failed_calls: Number | None = None
    p99_usec: Microseconds | None = None
    used_memory: Number | None = None
    evicted_keys: Number | None = None
    rejected_connections: Number | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerHealth:
    """The server of a node just before a load, and after it has settled. `after` is None if it never answered again.

    `restarts`: how often the server was restarted while it settled. `run_id` and `unexpected_error_replies` are of `after`.
    """

    before: ServerStatistics
    after: ServerStatistics | None = None
    restarts: Count = 0
    run_id: Digest = ""
    unexpected_error_replies: Number | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The state of one operation, from the agent. A final report has the inventory after the operation.

    The same report may arrive more than once. `seconds` is how long the attempt took on the node, None before its end.
    `swap_seconds` is how long the server answered no client while one version replaced another, None without a swap.
    `server_log` are lines that the server logged during an operation that failed: redacted, and left out of `repr`.
    The phase `scheduled` returns the operation: the node is as it was before, and the reason says why it must wait.
    `release`: that of the command, 0 from an older agent. `health`: None before the end, and if the server loaded nothing.
    A report that is not final has a reason if something happened in its phase: `server_hangs`, `server_restarted`, or
    `external_configuration` while a person must act.
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
    server_log: Annotated[tuple[LogLine, ...], Meta(max_length=MOST_LOG_LINES)] = field(default=(), repr=False)
    release: Count = 0
    health: ServerHealth | None = None
    #: The load in a scratch server before the live one loaded the module. None: there was none.
    scratch: ScratchLoad | None = None

    @property
    def is_last(self) -> bool:
        """Return True if the agent does nothing more for this release of the operation."""
        return self.phase.is_final or self.phase is Phase.SCHEDULED


class FindingStatus(StrEnum):
    """Result of one check of the doctor. `unknown`: the agent may not see the fact, and does not guess it."""

    PASS = "pass"  # noqa: S105 - not a password
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of `modfleet agent doctor`. `check` is a stable name such as `server_socket`. `fix` says what to do."""

    check: Word
    status: FindingStatus
    message: Sentences
    fix: Sentences = ""


class ServerProblem(StrEnum):
    """Why a node's server cannot be used."""

    SERVER_UNREACHABLE = "server_unreachable"
    SERVER_SILENT = "server_silent"
    SERVER_LOADING = "server_loading"
    SERVER_REFUSES = "server_refuses"
    SERVER_TOO_OLD = "server_too_old"


class WouldStart(StrEnum):
    """Result of the start check: if the server's program on disk would start with all its modules."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A replica of the node's server. `lag_bytes`: by how much its replication offset is behind."""

    address: Address
    state: Word = ""
    lag_bytes: Number | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerModule:
    """One entry of MODULE LIST. `ours`: Modfleet installed it. `path` is empty for a module that is built in. `bundled`: it is
    built in, or comes with the server's package.

    `recent_calls`: calls of its commands in the last 10 minutes, None if it is not known. `most_called`: the command with
    the most of them. `clients`: names of clients whose last command was one of them, the newest first.

    Of a module that is neither ours nor bundled: `sha256` of the loaded file, empty if it is not known; `line`: the place of
    the line that loads it at the next start, empty if there is none; `obstacle`: why it cannot be adopted, empty if it can;
    `by_person`: a person or a tool must change the line, while the adoption waits.
    `adopted_from`: Modfleet has adopted it, and the server still runs it from this path, until its next start.
    """

    name: Fact
    version: int
    path: Fact = ""
    args: Fact = ""
    ours: bool = False
    bundled: bool = False
    recent_calls: Number | None = None
    most_called: Fact = ""
    clients: Annotated[tuple[Fact, ...], Meta(max_length=8)] = ()
    sha256: Digest = ""
    line: Fact = ""
    obstacle: Fact = ""
    by_person: bool = False
    adopted_from: Fact = ""


#: The most names of a server, and the most pairs of servers between which slots migrate, that a heartbeat has.
MOST_ADDRESSES = 16
MOST_MIGRATIONS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotMigration:
    """Slots that migrate between two servers of a cluster.

    `slots`: such as `93 100-110`; a long list is cut. `source` and `target`: `host:port`, or the node id if the cluster
    knows no address. `atomic`: Valkey moves all of them at once (CLUSTER MIGRATESLOTS).
    """

    slots: Fact
    source: Address
    target: Address
    atomic: bool = False


#: The newest changes of the configuration that a heartbeat names.
MOST_CONFIGURATION_CHANGES = 4


class ChangeKind(StrEnum):
    """`outside`: another hand changed the server's configuration. `resolved`: the agent removed a line of its own, because
    another line loads the same module."""

    OUTSIDE = "outside"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationChange:
    """A change of the lines that the next start of the server reads. `id` is random, `at` by the node's clock."""

    id: Digest
    kind: ChangeKind
    at: Moment
    message: Sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """What the agent has seen of its server for one heartbeat. None, or empty: not known.

    `problem` says why the server cannot be used; it is a `ServerProblem`, or one of a newer agent. `master`, for a replica:
    `host:port`. `migrating_slots`: slots that are on their way to or from this server. `include_seen`: the server's
    configuration includes the agent's file. `would_start`: a `WouldStart`, with its reason unless it is `yes`. Of `replicas`
    and `modules`, only the first ones are sent.

    `addresses`: each `host:port` by which other servers may know this one. A loopback address is a name only for servers
    on the same host. `node_id`, `master_node_id` and `replica_node_ids` are those of the cluster. `backups`: clients that
    only copy the data, such as `redis-cli --rdb`. `sentinels`: Sentinels that watch the server. `migrations`: of slots of
    this shard, as far as this server knows. `replication` is the part that `Command.expects` repeats.
    `persistence` is the owner of the lines that a start loads: `include`, `rewrite` or `external`. `to_do`: what that owner
    must change, if the agent may not. `configuration_changes`: the newest ones, in order.
    """

    problem: Word = ""
    message: Sentences = ""
    run_id: Digest = ""
    uptime_seconds: Number | None = None
    role: Word = ""
    master: Address = ""
    link_status: Word = ""
    replicas: Annotated[tuple[Replica, ...], Meta(max_length=MOST_REPLICAS)] = ()
    replica_count: Number | None = None
    loading: bool | None = None
    async_loading: bool | None = None
    aof_enabled: bool | None = None
    aof_last_write_status: Word = ""
    rdb_last_bgsave_status: Word = ""
    save_points: Fact | None = None
    cluster_enabled: bool | None = None
    cluster_state: Word = ""
    migrating_slots: Number | None = None
    unexpected_error_replies: Number | None = None
    used_memory: Number | None = None
    max_memory: Number | None = None
    enable_module_command: Word = ""
    include_seen: bool | None = None
    #: What says that the process before this one crashed: a line of the server's log or of its unit. Empty: nothing does.
    crash: Sentences = ""
    #: How long the link of a replica to its master has been down, seconds.
    link_down_seconds: Number | None = None
    would_start: Word = ""
    would_start_reason: Sentences = ""
    modules: Annotated[tuple[ServerModule, ...], Meta(max_length=64)] = ()
    module_count: Number | None = None
    addresses: Annotated[tuple[Address, ...], Meta(max_length=MOST_ADDRESSES)] = ()
    network: Digest = ""
    node_id: Digest = ""
    master_node_id: Digest = ""
    replica_node_ids: Annotated[tuple[Digest, ...], Meta(max_length=MOST_REPLICAS)] = ()
    backups: Number | None = None
    sentinels: Number | None = None
    master_sync_in_progress: bool | None = None
    migrations: Annotated[tuple[SlotMigration, ...], Meta(max_length=MOST_MIGRATIONS)] | None = None
    replication: Replication | None = None
    persistence: Word = ""
    to_do: Sentences = ""
    configuration_changes: Annotated[tuple[ConfigurationChange, ...], Meta(max_length=MOST_CONFIGURATION_CHANGES)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """Reports of one node, in order."""

    reports: Annotated[tuple[Report, ...], Meta(min_length=1, max_length=1000)]


class Capability(StrEnum):
    """What an agent can do. A node gets only operations that its agent is able to carry out."""

    FILES = "files"
    LOAD = "load"
    REMOVE = "remove"
    UNDO = "undo"
    #: It compares the role of its server with the command before it changes the server.
    CHECK_ROLE = "check_role"


#: Of agents that are too old to name their capabilities.
FORMER_CAPABILITIES = frozenset(Capability) - {Capability.CHECK_ROLE}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProfile:
    """What an agent knows about its node. `platform` is `<os>/<machine>`, such as `linux/x86_64`.

    `operating_system` is a name such as `rhel9`, empty if it is not known. `server` is `valkey` or `redis`, empty while
    the server cannot be reached. `role` is `master`, `replica` or empty. `other_modules` are loaded modules that Modfleet
    did not install, such as built-in ones. `redis_version`: the version of Redis with which the server says that it is
    compatible, empty from an older agent.
    """

    platform: Annotated[str, Meta(pattern=_STORABLE, max_length=64)]
    operating_system: Word = ""
    server: Word = ""
    server_version: Word = ""
    role: Annotated[str, Meta(pattern=_STORABLE, max_length=16)] = ""
    api_hosts: Annotated[tuple[Host, ...], Meta(max_length=64)] = ()
    labels: Annotated[dict[Label, Label], Meta(max_length=64)] = field(default_factory=dict)
    other_modules: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()
    redis_version: Word = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Sent when the agent starts (`hello`) and at every interval. `generations`: the newest journaled one of each module.

    `interval_seconds` is the time until the next heartbeat; a node that is silent for three intervals is offline.
    `sent_at` is by the node's clock. `protocol` and `capabilities` say what the agent understands; an older agent sends
    neither. `host` identifies the machine or the container, not the node: one node may move.

    `facts` is the state of the node's server, None from an older agent. `doctor` has the newest findings: None before the
    first ones, and empty if the agent runs no doctor.
    """

    node: Name
    hello: bool
    interval_seconds: Annotated[float, Meta(gt=0, le=3600)]
    profile: NodeProfile
    inventory: Inventory
    generations: Annotated[dict[Name, Count], Meta(max_length=1000)] = field(default_factory=dict)
    sent_at: Moment | None = None
    protocol: Annotated[int, Meta(ge=0, le=1000)] = 0
    capabilities: Annotated[tuple[Word, ...], Meta(max_length=64)] | None = None
    agent_version: Word = ""
    host: Digest = ""
    facts: ServerState | None = None
    doctor: Annotated[tuple[Finding, ...], Meta(max_length=64)] | None = None


Message = TypeVar("Message", Command, Report, Reports, Heartbeat)


#: Fields of `ServerModule` that are left out while they are empty.
_OF_FOREIGN_MODULES = ("sha256", "line", "obstacle", "by_person", "adopted_from")


def to_json(message: Command | Report | Reports | Heartbeat) -> dict[str, Any]:
    """Return `message` as plain JSON values."""
    built: dict[str, Any] = msgspec.to_builtins(message)
    if isinstance(message, Heartbeat) and message.facts is not None:
        # Most modules have none of these, and a heartbeat has a limit.
        for module in built["facts"]["modules"]:
            for name in [each for each in _OF_FOREIGN_MODULES if not module[each]]:
                del module[name]
    if isinstance(message, Report) and message.reason in BROADER:
        # An older control plane drops a report whose reason it does not know. It ignores the field `cause`.
        built |= {"reason": str(BROADER[message.reason]), "cause": str(message.reason)}
    return built


def from_json(kind: type[Message], body: Mapping[str, Any]) -> Message:
    """Return `body`, checked and typed. Raises: `msgspec.ValidationError`, whatever is wrong."""
    try:
        if kind is Report and _is_reported_cause(body.get("cause")):
            body = {**body, "reason": body["cause"]}
        return msgspec.convert(body, kind)
    except msgspec.ValidationError:
        raise
    except Exception as error:  # such as a lone surrogate, or endless nesting: a foreign message can contain anything
        raise msgspec.ValidationError(repr(error)) from error


def _is_reported_cause(cause: object) -> bool:
    try:
        return Reason(cause) in BROADER  # type: ignore[arg-type]  # any value of a foreign message
    except ValueError:
        return False
