"""Reads untrusted JSON: any database can store its values, and any JSON reader can read them.

RFC 8259 leaves duplicate keys, huge numbers, lone surrogates and depth to the reader. This one refuses them.
"""

import json
import math
from typing import Any, NoReturn

#: The longest number: digits, sign, point and exponent. A 64-bit float needs at most 24.
MAX_NUMBER_LENGTH = 100
MAX_INTEGER = 2**63 - 1
MIN_INTEGER = -(2**63)


class InvalidJson(ValueError):
    """The bytes are not acceptable JSON."""


def parse(data: bytes, *, max_bytes: int, max_depth: int = 32) -> Any:
    """Return the value of `data`: UTF-8 JSON of at most `max_bytes` bytes, nested at most `max_depth` deep.

    A byte order mark is ignored, as RFC 8259 section 8.1 allows: editors on Windows write one.

    Raises: `InvalidJson`, and nothing else, whatever the bytes are.
    """
    if len(data) > max_bytes:
        raise InvalidJson(f"is larger than {max_bytes} bytes")
    try:
        value = _DECODER.decode(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InvalidJson(f"is not UTF-8: byte {error.start} cannot be read") from None
    except json.JSONDecodeError as error:
        raise InvalidJson(f"is not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        # The scanner stops at the interpreter's own limit, far above any sensible max_depth.
        raise _too_deep(max_depth) from None
    _check(value, max_depth)
    return value


def _check(root: Any, max_depth: int) -> None:
    """Check the depth and every text, without recursion."""
    waiting: list[tuple[list[Any], int]] = [([root], 0)]
    while waiting:
        items, depth = waiting.pop()
        if depth > max_depth:
            raise _too_deep(max_depth)
        for item in items:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, list):
                waiting.append((item, depth + 1))
            elif isinstance(item, dict):
                waiting.append(([*item, *item.values()], depth + 1))


def _check_text(text: str) -> None:
    """Refuse text that a database cannot store: PostgreSQL allows no NUL, UTF-8 no half of a surrogate pair."""
    if "\0" in text:
        raise InvalidJson("contains a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidJson("contains half of a surrogate pair, which is not a character") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) != len(pairs):
        raise InvalidJson("contains the same key twice in one object")
    return built


def _integer(digits: str) -> int:
    if len(digits) > MAX_NUMBER_LENGTH or not MIN_INTEGER <= (number := int(digits)) <= MAX_INTEGER:
        raise InvalidJson("contains a whole number of more than 64 bits")
    return number


def _float(digits: str) -> float:
    if len(digits) > MAX_NUMBER_LENGTH:
        raise InvalidJson(f"contains a number of more than {MAX_NUMBER_LENGTH} characters")
    number = float(digits)
    if math.isinf(number):
        raise InvalidJson("contains a number that is too large")
    return number


def _constant(name: str) -> NoReturn:
    raise InvalidJson(f"contains {name}, which JSON does not have")


def _too_deep(max_depth: int) -> InvalidJson:
    return InvalidJson(f"is nested more than {max_depth} deep")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)
