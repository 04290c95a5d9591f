"""The body of `POST /v2/rollouts` that is made from the texts of the form, and the form's fields for its errors.

Nothing is validated here: the API's serializer does that, and the form shows its messages next to the fields.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.http import QueryDict

from console.rollouts.fields import ALL, NODES, SELECTOR, Field, Kind, Texts


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
        case Kind.CHOICE | Kind.TEXT:
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
