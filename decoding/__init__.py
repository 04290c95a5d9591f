"""Reads data into typed values, from any thread.

msgspec stores what it knows about a class on the class, and does so before it is complete: two threads that use the same
class for the first time crash the process (SIGSEGV, msgspec 0.22). Here, each type is prepared once, by one thread.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar, overload

import msgspec

T = TypeVar("T")

_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_preparing = threading.Lock()


def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """Return the decoder of a type. It is made at the first use, because annotations may name later classes."""
    if kind not in _decoders:
        with _preparing:
            if kind not in _decoders:
                _decoders[kind] = msgspec.json.Decoder(kind)
    return _decoders[kind]


@overload
def decode(text: bytes | str, kind: type[T]) -> T: ...
@overload
def decode(text: bytes | str, kind: Any) -> Any: ...
def decode(text: bytes | str, kind: Any) -> Any:
    """Return JSON as a value of a type. Raises: `msgspec.DecodeError`."""
    return decoder(kind).decode(text)


@overload
def convert(
    value: object, kind: type[T], *, strict: bool = True, dec_hook: Callable[[type, Any], Any] | None = None
) -> T: ...
@overload
def convert(
    value: object, kind: Any, *, strict: bool = True, dec_hook: Callable[[type, Any], Any] | None = None
) -> Any: ...
def convert(
    value: object, kind: Any, *, strict: bool = True, dec_hook: Callable[[type, Any], Any] | None = None
) -> Any:
    """Return what JSON or the environment gave as a value of a type; as `msgspec.convert`.

    Raises: `msgspec.ValidationError`.
    """
    decoder(kind)
    return msgspec.convert(value, kind, strict=strict, dec_hook=dec_hook)
