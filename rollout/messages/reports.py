"""The messages from an agent about its operations."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Annotated

import msgspec
from msgspec import Meta

from rollout.messages.fields import (
    MOST_LOG_LINES,
    Address,
    Count,
    Digest,
    Fact,
    LogLine,
    Microseconds,
    Name,
    Number,
    Seconds,
    Sentences,
    Word,
)
from rollout.messages.phases import Phase, Reason


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
class Failover:
    """How a replica became the master before a restart. `way`: `sentinel`, `command` or `cluster`. `former` and `new` are the
    addresses of the two masters, `host:port`. `pause_seconds`: for how long no write was answered."""

    way: Word
    former: Address
    new: Address
    pause_seconds: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """A restart of the server by an operation. `failover`: before it, None if none was needed; it may also stand alone, in a failback
    and in an operation that has failed after it.

    `downtime_seconds`: from the call that ended the old process to the first answer of the new process that is not LOADING.
    None if it is not known, for example because a person has restarted the server.
    """

    downtime_seconds: Seconds | None = None
    failover: Failover | None = None


class WayBackResult(StrEnum):
    """Whether the former version can read what the new one writes. `unknown`: there was nothing to try, or no way to try it."""

    OPEN = "open"
    CLOSED = "closed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class WayBack:
    """What a scratch server with the former version made of values that the new one has written, after the new one was loaded.

    `message`: why it is not open, empty if it is. `former_version`: the version before. `tried`: how many keys were. `kept_file`:
    where the node keeps the data from before the change until the rollout ends, empty if it does not.
    """

    result: WayBackResult
    message: Sentences = ""
    former_version: Count = 0
    tried: Count = 0
    kept_file: Fact = ""


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
    #: None if the operation has not restarted the server.
    restart: Restart | None = None
    #: None if no version with data types has taken the place of another one.
    way_back: WayBack | None = None

    @property
    def is_last(self) -> bool:
        """Return True if the agent does nothing more for this release of the operation."""
        return self.phase.is_final or self.phase is Phase.SCHEDULED


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """Reports of one node, in order."""

    reports: Annotated[tuple[Report, ...], Meta(min_length=1, max_length=1000)]
