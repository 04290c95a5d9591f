"""The fields of the form that starts a rollout, with the API's defaults."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import msgspec

from rollout.domain.strategy import Strategy
from rollout.messages import Reason


class Kind(Enum):
    """How the text of a field is read."""

    CHOICE = auto()
    #: Whole numbers become numbers. Any other text, such as `10%`, stays as it is.
    AMOUNT = auto()
    AMOUNTS = auto()
    NUMBER = auto()
    TEXT = auto()
    FLAG = auto()
    #: Separated by spaces, commas or new lines.
    WORDS = auto()
    #: One `label=value,value` per line.
    LABELS = auto()
    #: A date and time as a browser sends it: without a zone, read as UTC.
    MOMENT = auto()
    #: Several of the choices.
    SOME = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """`name` is the path in the body and the name of the input."""

    name: str
    label: str
    help: str = ""
    kind: Kind
    choices: Sequence[tuple[str, str]] = ()
    unit: str = ""
    placeholder: str = ""

    @property
    def default(self) -> str:
        """Return the API's default in words; empty if the field has none."""
        texts = _DEFAULTS.get(self.name)
        if texts is None:
            return ""
        if self.kind is Kind.FLAG:
            return "yes" if texts else "no"
        labels = dict(self.choices)
        return f"{', '.join(labels.get(each, each) for each in texts) or 'none'} {self.unit}".strip()

    @property
    def id(self) -> str:
        return f"id-{self.name.replace('.', '-')}"

    @property
    def widget(self) -> str:
        return self.kind.name.lower()


ACTION = Field(
    name="action",
    label="Action",
    kind=Kind.CHOICE,
    choices=(("install", "Install"), ("remove", "Remove")),
)
ACTIVATION = Field(
    name="activation",
    label="Activate",
    help="A server that has loaded a version with data types, or that refuses MODULE LOAD, needs a restart.",
    kind=Kind.CHOICE,
    choices=(
        ("auto", "Load; restart the server where it is needed"),
        ("load", "Load only"),
        ("restart", "Restart each server"),
        ("files", "Copy the files only"),
    ),
)
NODES = Field(name="nodes", label="Nodes by name", kind=Kind.WORDS)
SELECTOR = (
    Field(
        name="selector.labels",
        label="Labels",
        help="One label per line: label=value. Several values mean any of them: label=value,value.",
        kind=Kind.LABELS,
        placeholder="zone=eu-1,eu-2",
    ),
    Field(name="selector.platforms", label="Platforms", kind=Kind.WORDS, placeholder="linux/x86_64"),
    Field(
        name="selector.roles",
        label="Roles",
        kind=Kind.SOME,
        choices=(("master", "master"), ("replica", "replica")),
    ),
    Field(
        name="selector.versions",
        label="Server versions",
        help="A version or its beginning: 8.1 also matches 8.1.3.",
        kind=Kind.WORDS,
        placeholder="9.1",
    ),
    Field(
        name="selector.servers",
        label="Servers",
        kind=Kind.SOME,
        choices=(("valkey", "Valkey"), ("redis", "Redis")),
    ),
    Field(
        name="selector.names", label="Names", help="Patterns, such as cache-*.", kind=Kind.WORDS, placeholder="cache-*"
    ),
)
COMMON = (
    Field(
        name="strategy.canary",
        label="Canary",
        help="Size of the first wave: a number of nodes, or a share such as 10%. 0: no canary.",
        kind=Kind.AMOUNT,
    ),
    Field(
        name="strategy.waves",
        label="Later waves",
        help="Sizes of the waves after the canary, such as 10% 50%. The remaining nodes are one more wave.",
        kind=Kind.AMOUNTS,
        placeholder="10% 50%",
    ),
    Field(
        name="strategy.max_parallel",
        label="Nodes in parallel",
        help="Nodes updated in parallel: a number, or a share such as 10%.",
        kind=Kind.AMOUNT,
    ),
    Field(
        name="strategy.max_failures",
        label="Failures accepted",
        help="The rollout stops when more nodes have failed: a number, or a share such as 10%.",
        kind=Kind.AMOUNT,
    ),
    Field(
        name="strategy.on_failure",
        label="When too many nodes fail",
        help="What the rollout does when more nodes have failed, or no node succeeds for too long.",
        kind=Kind.CHOICE,
        choices=(("pause", "Pause and wait for a person"), ("abort", "Abort"), ("rollback", "Roll back automatically")),
    ),
    Field(
        name="strategy.gate",
        label="Between waves",
        help="What the rollout does after each wave except the last.",
        kind=Kind.CHOICE,
        choices=(("none", "Continue automatically"), ("manual", "Wait for a person to promote")),
    ),
    Field(
        name="strategy.approval",
        label="A second person must approve",
        help="Nothing starts before a person who did not start the rollout has approved it.",
        kind=Kind.FLAG,
    ),
)
MORE = (
    Field(
        name="strategy.min_healthy",
        label="Minimum healthy nodes",
        help="Keep at least this many nodes healthy: online, not failed, and not being changed. A number, or a share "
        "such as 80%.",
        kind=Kind.AMOUNT,
    ),
    Field(
        name="strategy.soak_seconds",
        label="Soak time",
        help="How long node health is watched after each wave.",
        kind=Kind.NUMBER,
        unit="s",
    ),
    Field(
        name="strategy.settle_seconds",
        label="Settling time",
        help="How long a server must keep running after it has loaded the module.",
        kind=Kind.NUMBER,
        unit="s",
    ),
    Field(
        name="strategy.health.failed_calls",
        label="More failed calls",
        help="What happens if more than twice the share of calls of the module's commands fails while the server settles.",
        kind=Kind.CHOICE,
        choices=(("warn", "Warn only"), ("stop", "Count the node as failed")),
    ),
    Field(
        name="strategy.node_deadline_seconds",
        label="Deadline for each node",
        help="Time limit for an operation, from the moment it is sent to the node. After that it has timed out.",
        kind=Kind.NUMBER,
        unit="s",
    ),
    Field(
        name="strategy.progress_deadline_seconds",
        label="Progress deadline",
        help="Time limit without a success while a wave is running. After that the rollout stops.",
        kind=Kind.NUMBER,
        unit="s",
    ),
    Field(
        name="strategy.offline",
        label="Offline nodes",
        help="What happens to a node that is offline when its wave runs.",
        kind=Kind.CHOICE,
        choices=(("wait", "Wait for them"), ("skip", "Skip them"), ("fail", "Count them as failed")),
    ),
    Field(
        name="strategy.on_abort",
        label="When the rollout is aborted",
        help="What happens to operations in progress.",
        kind=Kind.CHOICE,
        choices=(("finish", "Let them finish"), ("undo", "Undo them")),
    ),
    Field(name="strategy.retries.limit", label="Automatic retries", help="For each node.", kind=Kind.AMOUNT),
    Field(
        name="strategy.retries.backoff_seconds",
        label="Wait before the first retry",
        help="The wait doubles with each retry.",
        kind=Kind.NUMBER,
        unit="s",
    ),
    Field(
        name="strategy.start_at",
        label="Start at (UTC)",
        help="Nothing starts before this time.",
        kind=Kind.MOMENT,
    ),
    Field(
        name="strategy.window",
        label="Window for restarts",
        help="A weekly window. Outside of it, no server is restarted.",
        kind=Kind.TEXT,
        placeholder="Sat 01:00-05:00 Europe/Berlin",
    ),
    Field(
        name="strategy.retries.reasons",
        label="Reasons to retry",
        help="A node that fails for another reason is not retried automatically.",
        kind=Kind.SOME,
        choices=tuple((each.value, each.value.replace("_", " ")) for each in Reason),
    ),
    Field(
        name="supersede",
        label="Replace a rollout of this module that is in progress",
        help="On the nodes of this rollout, operations of the older rollout that have not started are canceled.",
        kind=Kind.FLAG,
    ),
    Field(
        name="even_if_used",
        label="Remove the module even if it is used",
        help="Without this, a module is not removed if its commands were called in the last 10 minutes.",
        kind=Kind.FLAG,
    ),
    Field(
        name="may_interrupt",
        label="Restart servers that no other one can stand in for",
        help="Without this, a master without a replica is skipped if it needs a restart.",
        kind=Kind.FLAG,
    ),
    Field(
        name="may_discard_data",
        label="Restart servers even if their data may be lost",
        help="Without this, a server whose data is neither on disk nor on a replica is skipped if it needs a restart. "
        "With it, a node goes back from a one-way change with the data from before.",
        kind=Kind.FLAG,
    ),
    Field(
        name="failback",
        label="Fail back afterwards",
        help="After a success, a new rollout makes each master that gave its role away the master again.",
        kind=Kind.FLAG,
    ),
    Field(
        name="adopt",
        label="Adopt the module where it is loaded already",
        help="Servers that have loaded the same file from another path keep it, and Modfleet takes over their lines. "
        "All other nodes are skipped.",
        kind=Kind.FLAG,
    ),
)
ALL = (ACTION, ACTIVATION, NODES, *SELECTOR, *COMMON, *MORE)

Texts = dict[str, list[str]]


def defaults() -> Texts:
    """Return the texts of an untouched form: the API's defaults."""
    strategy = msgspec.to_builtins({"strategy": Strategy()})
    return {"action": ["install"], "activation": ["auto"], "scope": ["all"], **dict(_texts(strategy))}


def _texts(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, list[str]]]:
    for name, inner in value.items():
        here = f"{path}{name}"
        match inner:
            case dict():
                yield from _texts(inner, f"{here}.")
            case bool():
                yield here, ["on"] if inner else []
            case list() | tuple():
                yield here, [str(each) for each in inner]
            case float():
                yield here, [f"{inner:g}"]
            case None:
                yield here, []
            case _:
                yield here, [str(inner)]


_DEFAULTS = defaults() | {
    "supersede": [],
    "even_if_used": [],
    "may_interrupt": [],
    "may_discard_data": [],
    "failback": [],
    "adopt": [],
}
