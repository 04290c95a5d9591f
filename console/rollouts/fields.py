"""The form of a rollout: which fields it has, and how what is typed into them becomes the body of `POST /v2/rollouts`.

It checks nothing: the API's own serializer does, and its words stand beside the fields.
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
    #: Whole numbers as numbers; anything else, such as `10%`, as it stands.
    AMOUNT = auto()
    AMOUNTS = auto()
    NUMBER = auto()
    FLAG = auto()
    #: Separated by blanks, commas or lines.
    WORDS = auto()
    #: `label=value,value`, one a line.
    LABELS = auto()
    #: What a browser sends of a date with a time: without a zone, and meant in UTC.
    MOMENT = auto()
    #: Several of the choices.
    SOME = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """`name` is the path in the body, and the input's name."""

    name: str
    label: str
    help: str = ""
    kind: Kind
    choices: Sequence[tuple[str, str]] = ()
    unit: str = ""
    placeholder: str = ""

    @property
    def id(self) -> str:
        return f"id-{self.name.replace('.', '-')}"

    @property
    def widget(self) -> str:
        return self.kind.name.lower()


ACTION = Field(
    name="action",
    label="What to do",
    kind=Kind.CHOICE,
    choices=(("install", "Install it"), ("remove", "Remove it")),
)
ACTIVATION = Field(
    name="activation",
    label="How far",
    help="Loaded into the server and probed, or only put in place on the disk.",
    kind=Kind.CHOICE,
    choices=(("load", "Load and probe it"), ("files", "Only its files")),
)
NODES = Field(name="nodes", label="Nodes by name", kind=Kind.WORDS)
SELECTOR = (
    Field(
        name="selector.labels",
        label="Labels",
        help="One a line: label=value, or label=value,value for any of them.",
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
        help="Or how they begin: 8.1 is 8.1.3 too.",
        kind=Kind.WORDS,
        placeholder="9.1",
    ),
    Field(
        name="selector.servers",
        label="Servers",
        kind=Kind.SOME,
        choices=(("valkey", "Valkey"), ("redis", "Redis")),
    ),
    Field(name="selector.names", label="Names", help="Patterns: cache-*.", kind=Kind.WORDS, placeholder="cache-*"),
)
COMMON = (
    Field(
        name="strategy.canary",
        label="Canary",
        help="Nodes of the first wave: a number, or a share such as 10%. 0: none.",
        kind=Kind.AMOUNT,
    ),
    Field(
        name="strategy.waves",
        label="Waves after it",
        help="Their sizes, such as 10% 50%. What is left is one more wave.",
        kind=Kind.AMOUNTS,
        placeholder="10% 50%",
    ),
    Field(
        name="strategy.max_parallel",
        label="At once",
        help="Nodes that may have it in hand at the same time.",
        kind=Kind.AMOUNT,
    ),
    Field(
        name="strategy.max_failures",
        label="Failures accepted",
        help="More of them stop the rollout.",
        kind=Kind.AMOUNT,
    ),
    Field(
        name="strategy.on_failure",
        label="When there are more",
        kind=Kind.CHOICE,
        choices=(("pause", "Pause, and ask a person"), ("abort", "Abort"), ("rollback", "Roll back by itself")),
    ),
    Field(
        name="strategy.gate",
        label="Between waves",
        kind=Kind.CHOICE,
        choices=(("none", "Go on by itself"), ("manual", "Wait until a person promotes")),
    ),
    Field(
        name="strategy.approval",
        label="A second person has to approve it first",
        kind=Kind.FLAG,
    ),
)
MORE = (
    Field(
        name="strategy.min_healthy",
        label="Kept healthy",
        help="Nodes that stay online, untouched and without a failure.",
        kind=Kind.AMOUNT,
    ),
    Field(
        name="strategy.soak_seconds",
        label="Soak",
        help="How long health is watched after each wave.",
        kind=Kind.NUMBER,
        unit="s",
    ),
    Field(
        name="strategy.settle_seconds",
        label="Settling",
        help="How long a server has to run after the load before its node has succeeded.",
        kind=Kind.NUMBER,
        unit="s",
    ),
    Field(
        name="strategy.node_deadline_seconds",
        label="Longest for one node",
        kind=Kind.NUMBER,
        unit="s",
    ),
    Field(
        name="strategy.progress_deadline_seconds",
        label="Longest without any success",
        kind=Kind.NUMBER,
        unit="s",
    ),
    Field(
        name="strategy.offline",
        label="Nodes that are offline",
        kind=Kind.CHOICE,
        choices=(("wait", "Wait for them"), ("skip", "Skip them"), ("fail", "Count them as failed")),
    ),
    Field(
        name="strategy.on_abort",
        label="When it is aborted",
        kind=Kind.CHOICE,
        choices=(("finish", "Let finish what runs"), ("undo", "Undo what runs")),
    ),
    Field(name="strategy.retries.limit", label="Automatic retries", help="Of one node.", kind=Kind.AMOUNT),
    Field(
        name="strategy.retries.backoff_seconds",
        label="Wait before the first retry",
        help="It doubles from retry to retry.",
        kind=Kind.NUMBER,
        unit="s",
    ),
    Field(
        name="strategy.start_at",
        label="Not before (UTC)",
        kind=Kind.MOMENT,
    ),
    Field(
        name="strategy.retries.reasons",
        label="Reasons worth a retry",
        kind=Kind.SOME,
        choices=tuple((each.value, each.value.replace("_", " ")) for each in Reason),
    ),
    Field(
        name="supersede",
        label="Take over from a rollout of this module that is under way",
        kind=Kind.FLAG,
    ),
)
ALL = (ACTION, ACTIVATION, NODES, *SELECTOR, *COMMON, *MORE)

Texts = dict[str, list[str]]


def defaults() -> Texts:
    """What the form shows at first: the values that the API takes for what is left out."""
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


def texts_of(given: QueryDict) -> Texts:
    return {name: [str(each) for each in values] for name, values in given.lists()}


def body_of(texts: Texts) -> dict[str, Any]:
    """The body of a request that means what the form says; what is empty is left out."""
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
    """None for what is left out."""
    text = "\n".join(texts).strip()
    match field.kind:
        case Kind.FLAG:
            return bool(text)
        case Kind.SOME:
            # To choose none of the reasons means something, to choose none of the roles does not.
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
    """As it stands where a line is none: the serializer says what it must be."""
    pairs = [line.partition("=") for line in text.splitlines() if line.strip()]
    if not all(name.strip() and sign for name, sign, _ in pairs):
        return text
    return {name.strip(): [each.strip() for each in values.split(",")] for name, _, values in pairs}


def _text(texts: Texts, name: str) -> str:
    return "".join(texts.get(name, [])[:1]).strip()


def _put(body: dict[str, Any], path: str, value: Any) -> None:
    *folders, name = path.split(".")
    for folder in folders:
        body = body.setdefault(folder, {})
    body[name] = value


# --- What is wrong ----------------------------------------------------------------------------------------------------

Errors = dict[str, list[str]]
#: Which field of the form shows an error of what is no field of its own.
_SHOWN_AT = {"module_name": "artifact", "version": "artifact", "plan_hash": "", "strategy": "", "non_field_errors": ""}


def errors_of(detail: Any) -> Errors:
    """A serializer's messages by the name of the field beside which they stand; empty for the form as a whole."""
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
    """The field itself, or the one that the path is inside of: the second wave's size is one of `strategy.waves`."""
    if path in _SHOWN_AT:
        return _SHOWN_AT[path]
    known = {each.name for each in ALL} | {"selector"}
    return next((each for each in _outwards(path) if each in known), "")


def _outwards(path: str) -> Iterable[str]:
    parts = path.split(".")
    return (".".join(parts[:count]) for count in range(len(parts), 0, -1))
