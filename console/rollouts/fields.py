"""The fields of the form that starts a rollout, and the body of `POST /v2/rollouts` that is made from their texts.

Nothing is validated here: the API's serializer does that, and the form shows its messages next to the fields.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import msgspec
from django.http import QueryDict

from rollout.domain.strategy import Strategy
from rollout.messages import Reason


class Kind(Enum):
    """How the text of a field is read."""

    CHOICE = auto()
    #: Whole numbers become numbers. Any other text, such as `10%`, stays as it is.
    AMOUNT = auto()
    AMOUNTS = auto()
    NUMBER = auto()
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
    help="Load the module into the server and probe its commands, or only copy its files to the node.",
    kind=Kind.CHOICE,
    choices=(("load", "Load now and check"), ("files", "Copy the files only")),
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
    return {"action": ["install"], "activation": ["load"], "scope": ["all"], **dict(_texts(strategy))}


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


_DEFAULTS = defaults() | {"supersede": [], "even_if_used": [], "adopt": []}


def texts_of(given: QueryDict) -> Texts:
    return {name: [str(each) for each in values] for name, values in given.lists()}


def body_of(texts: Texts) -> dict[str, Any]:
    """Return the body of `POST /v2/rollouts`, without the fields that are empty."""
    module_name, _, version = _text(texts, "artifact").rpartition("/")
    scope = _text(texts, "scope")
    body: dict[str, Any] = {}
    if module_name:
        body |= {"module_name": module_name, "version": _whole(version)}
    if scope == "named":
        body["nodes"] = []
    if scope == "selected":
        body["selector"] = {}
    for field in ALL:
        if (field is NODES and scope != "named") or (field in SELECTOR and scope != "selected"):
            continue
        value = _value(field, texts.get(field.name, []))
        if value is not None:
            _put(body, field.name, value)
    return body


def _value(field: Field, texts: Sequence[str]) -> Any:
    """Return the field's value in the body, or None to leave the field out."""
    text = "\n".join(texts).strip()
    match field.kind:
        case Kind.FLAG:
            return bool(text)
        case Kind.SOME:
            # No reasons at all means "retry nothing". No roles at all means "any role".
            return [each for each in texts if each] or ([] if field.name == "strategy.retries.reasons" else None)
        case Kind.AMOUNTS:
            return [_whole(each) for each in _words(text)]
        case _ if not text:
            return None
        case Kind.CHOICE:
            return text
        case Kind.AMOUNT:
            return _whole(text)
        case Kind.NUMBER:
            return _number(text)
        case Kind.WORDS:
            return list(dict.fromkeys(_words(text)))
        case Kind.LABELS:
            return _labels(text)
        case Kind.MOMENT:
            return f"{text}:00Z" if re.fullmatch(r"\S+T\d\d:\d\d", text) else f"{text}Z"


def _words(text: str) -> list[str]:
    return [each for each in re.split(r"[\s,]+", text) if each]


def _whole(text: str) -> int | str:
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII) else text


def _number(text: str) -> float | str:
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _labels(text: str) -> dict[str, list[str]] | str:
    """Return the values by label, or the text itself if a line is no label: the serializer then says what is wrong."""
    pairs = [line.partition("=") for line in text.splitlines() if line.strip()]
    if not all(name.strip() and sign for name, sign, _ in pairs):
        return text
    return {name.strip(): [each.strip() for each in values.split(",")] for name, _, values in pairs}


def _text(texts: Texts, name: str) -> str:
    return "".join(texts.get(name, [])[:1]).strip()


def _put(body: dict[str, Any], path: str, value: Any) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        body = body.setdefault(parent, {})
    body[name] = value


# --- Errors -----------------------------------------------------------------------------------------------------------

Errors = dict[str, list[str]]
#: The form's field that shows an error of a path that has no field.
_SHOWN_AT = {"module_name": "artifact", "version": "artifact", "plan_hash": "", "strategy": "", "non_field_errors": ""}


def errors_of(detail: Any) -> Errors:
    """Return the serializer's messages by the name of the form's field. The name is empty for the form as a whole."""
    found: Errors = {}
    for path, message in _messages(detail, ()):
        found.setdefault(_place(path), []).append(message)
    return found


def _messages(detail: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    match detail:
        case dict():
            for name, inner in detail.items():
                yield from _messages(inner, path if name == "non_field_errors" else (*path, str(name)))
        case list():
            for inner in detail:
                yield from _messages(inner, path)
        case _:
            yield ".".join(path), str(detail)


def _place(path: str) -> str:
    """Return the field of the path or of its nearest parent: `strategy.waves.1` belongs to `strategy.waves`."""
    if path in _SHOWN_AT:
        return _SHOWN_AT[path]
    known = {each.name for each in ALL} | {"selector"}
    return next((each for each in _outwards(path) if each in known), "")


def _outwards(path: str) -> Iterable[str]:
    parts = path.split(".")
    return (".".join(parts[:count]) for count in range(len(parts), 0, -1))
