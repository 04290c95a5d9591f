"""The messages between the control plane and the agents, over the broker: JSON, one dataclass per message.

Delivery is at least once and in no order. A `Command` goes to `queue_for(node)` as the Celery task `EXECUTE`. `Reports` go
to `REPORTS`, a `Heartbeat` goes to `HEARTBEATS`, both as plain messages. Between a node that has joined and its control
plane, each message is in an envelope (`rollout.signing`). Other nodes send each `Report` alone, and get each `Command`
without an envelope.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

import decoding

# Exported again: the agent uses only the manifest of a package, and imports no other app.
from artifacts_app.manifest import Member, content_digest
from modules_app.operating_systems import operating_system
from rollout.messages.commands import MOST_REPLICAS, Command, Package, Replication
from rollout.messages.fields import (
    LONGEST_LOG_LINE,
    MOST_LOG_LINES,
    Address,
    Count,
    Digest,
    Fact,
    Host,
    Label,
    LogLine,
    Microseconds,
    Moment,
    Name,
    Number,
    Seconds,
    Sentences,
    Word,
)
from rollout.messages.heartbeats import (
    CHILD_WORKS,
    FORMER_CAPABILITIES,
    MOST_ADDRESSES,
    MOST_CONFIGURATION_CHANGES,
    MOST_ENDED,
    MOST_MIGRATIONS,
    Capability,
    ChangeKind,
    ConfigurationChange,
    Finding,
    FindingStatus,
    Heartbeat,
    NodeProfile,
    Replica,
    ServerModule,
    ServerProblem,
    ServerState,
    SlotMigration,
    WouldStart,
)
from rollout.messages.phases import (
    BROADER,
    FINAL_PHASES,
    REPORTED_PHASES,
    REPORTED_REASONS,
    RETURNING,
    RUNNING_PHASES,
    Action,
    Activation,
    FailedCalls,
    Phase,
    Reason,
    Way,
    Ways,
    activation_in_one_word,
)
from rollout.messages.queues import EXECUTE, HEARTBEATS, REPORTS, cancel_queue_for, queue_for
from rollout.messages.reports import (
    MOST_SCRATCH_FACTS,
    Failover,
    InstalledModule,
    Inventory,
    Report,
    Reports,
    Restart,
    ScratchLoad,
    ServerHealth,
    ServerStatistics,
    WayBack,
    WayBackResult,
    any_known,
    scratch_key,
)

__all__ = [
    "BROADER",
    "CHILD_WORKS",
    "EXECUTE",
    "FINAL_PHASES",
    "FORMER_CAPABILITIES",
    "HEARTBEATS",
    "LONGEST_LOG_LINE",
    "MOST_ADDRESSES",
    "MOST_CONFIGURATION_CHANGES",
    "MOST_ENDED",
    "MOST_LOG_LINES",
    "MOST_MIGRATIONS",
    "MOST_REPLICAS",
    "MOST_SCRATCH_FACTS",
    "REPORTED_PHASES",
    "REPORTED_REASONS",
    "REPORTS",
    "RETURNING",
    "RUNNING_PHASES",
    "Action",
    "Activation",
    "Address",
    "Capability",
    "ChangeKind",
    "Command",
    "ConfigurationChange",
    "Count",
    "Digest",
    "Fact",
    "FailedCalls",
    "Failover",
    "Finding",
    "FindingStatus",
    "Heartbeat",
    "Host",
    "InstalledModule",
    "Inventory",
    "Label",
    "LogLine",
    "Member",
    "Message",
    "Microseconds",
    "Moment",
    "Name",
    "NodeProfile",
    "Number",
    "Package",
    "Phase",
    "Reason",
    "Replica",
    "Replication",
    "Report",
    "Reports",
    "Restart",
    "ScratchLoad",
    "Seconds",
    "Sentences",
    "ServerHealth",
    "ServerModule",
    "ServerProblem",
    "ServerState",
    "ServerStatistics",
    "SlotMigration",
    "Way",
    "WayBack",
    "WayBackResult",
    "Ways",
    "Word",
    "WouldStart",
    "activation_in_one_word",
    "any_known",
    "cancel_queue_for",
    "content_digest",
    "from_json",
    "operating_system",
    "queue_for",
    "scratch_key",
    "to_json",
]

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
        return decoding.convert(body, kind)
    except msgspec.ValidationError:
        raise
    except Exception as error:  # such as a lone surrogate, or endless nesting: a foreign message can contain anything
        raise msgspec.ValidationError(repr(error)) from error


def _is_reported_cause(cause: object) -> bool:
    try:
        return Reason(cause) in BROADER  # type: ignore[arg-type]  # any value of a foreign message
    except ValueError:
        return False
