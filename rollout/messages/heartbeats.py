"""The message from an agent about its node and its server."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from rollout.messages.commands import MOST_REPLICAS, Replication
from rollout.messages.fields import (
    STORABLE,
    Address,
    Count,
    Digest,
    Fact,
    Host,
    Label,
    Moment,
    Name,
    Number,
    Seconds,
    Sentences,
    Word,
)
from rollout.messages.reports import Inventory


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


#: The last processes of the server which its agent has ended, that a heartbeat names.
MOST_ENDED = 4
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


#: The end of `ServerState.save_problem` while a child process of the server works.
CHILD_WORKS = " is in progress."


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """What the agent has seen of its server for one heartbeat. None, or empty: not known.

    `problem` says why the server cannot be used; it is a `ServerProblem`, or one of a newer agent. `master`, for a replica:
    `host:port`. `migrating_slots`: slots that are on their way to or from this server. `include_seen`: the server's
    configuration includes the agent's file. `would_start`: a `WouldStart`, with its reason unless it is `yes`. Of `replicas`
    and `modules`, only the first ones are sent.

    `addresses`: each `host:port` by which other servers may know this one. A loopback address is a name only for servers
    on the same host. `replication_id`: all servers of a shard have the same one, through all levels. `node_id`, `master_node_id` and `replica_node_ids` are those of the cluster. `backups`: clients that
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
    replication_id: Digest = ""
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
    #: How the server is restarted: `shutdown`, `systemd`, `command`, `external` or `none`. Empty from an older agent.
    restart: Word = ""
    #: Why the agent must not restart it, for example because nothing would start it again. Empty: it may.
    restart_problem: Sentences = ""
    #: How one of its replicas becomes the master: `sentinel`, `command`, `cluster` or `none`. Empty from an older agent.
    failover: Word = ""
    min_replicas_to_write: Number | None = None
    #: `cluster-require-full-coverage`.
    full_coverage: bool | None = None
    #: `restart` while an operation restarts the server, `recovery` if that has failed and the server is not in service yet, or
    #: empty.
    maintenance: Word = ""
    #: The `run_id` of each of the last processes that the agent has ended: their end is no crash.
    ended: Annotated[tuple[Digest, ...], Meta(max_length=MOST_ENDED)] = ()
    #: The agent keeps the server from becoming the master, because other copies of its shard have another version.
    withheld: bool = False
    #: Why the server must not start a child process now, which a full synchronization of a replica does. Empty: it may. While a
    #: child process works, it ends with `CHILD_WORKS`.
    save_problem: Sentences = ""
    #: How many full synchronizations with its master a replica has begun in the last 10 minutes, as its agent has seen.
    full_syncs: Number | None = None


class Capability(StrEnum):
    """What an agent can do. A node gets only operations that its agent is able to carry out."""

    FILES = "files"
    LOAD = "load"
    REMOVE = "remove"
    UNDO = "undo"
    #: It compares the role of its server with the command before it changes the server.
    CHECK_ROLE = "check_role"
    #: It restarts its server.
    RESTART = "restart"


#: Of agents that are too old to name their capabilities.
FORMER_CAPABILITIES = frozenset(Capability) - {Capability.CHECK_ROLE, Capability.RESTART}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProfile:
    """What an agent knows about its node. `platform` is `<os>/<machine>`, such as `linux/x86_64`.

    `operating_system` is a name such as `rhel9`, empty if it is not known. `server` is `valkey` or `redis`, empty while
    the server cannot be reached. `role` is `master`, `replica` or empty. `other_modules` are loaded modules that Modfleet
    did not install, such as built-in ones. `redis_version`: the version of Redis with which the server says that it is
    compatible, empty from an older agent.
    """

    platform: Annotated[str, Meta(pattern=STORABLE, max_length=64)]
    operating_system: Word = ""
    server: Word = ""
    server_version: Word = ""
    role: Annotated[str, Meta(pattern=STORABLE, max_length=16)] = ""
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
    first ones, and empty if the agent runs no doctor. `examined_seconds_ago` is their age, None from an older agent.
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
    examined_seconds_ago: Seconds | None = None
