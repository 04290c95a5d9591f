"""The names of event types, and events to and from canonical JSON. Needs no Django.

    @event("order.placed.v1")
    class OrderPlaced:
        cents: int

When the fields of an event change, give the class a new name, and the old name an upcaster:

    @upcaster("order.placed.v1", to="order.placed.v2")
    def _(data: dict[str, Any]) -> dict[str, Any]:
        return {"cents": data["euros"] * 100}
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

import msgspec

import decoding

Json = dict[str, Any]
Upcaster = Callable[[Json], Json]
#: Returns the actor with its kind, from an event's type, its stream, and the metadata that an older version stored.
ActorUpcaster = Callable[[str, str, Mapping[str, str]], str]
Event = TypeVar("Event")

_classes: dict[str, type] = {}
_names: dict[type, str] = {}
_upcasters: dict[str, tuple[str, Upcaster]] = {}
_actor_upcasters: list[ActorUpcaster] = []


class UnknownEventTypeError(LookupError):
    """The log has an event of a type that this version of the program does not know."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
def event(name: str) -> Callable[[type[Event]], type[Event]]:
    """Make the class a frozen, keyword-only dataclass, and register it. `name` is stored with each of its events.

    Raises: `ValueError` if the name is taken.
    """

    def make(cls: type[Event]) -> type[Event]:
        made = dataclass(frozen=True, slots=True, kw_only=True)(cls)
        register_event(name, made)
        return made

    return make


def register_event(name: str, event_class: type) -> None:
    """Register a dataclass. `name` is stored with each of its events. Raises: `ValueError` if the name is taken."""
    if name in _classes or name in _upcasters:
        raise ValueError(f"event type {name} is registered twice")
    _classes[name] = event_class
    _names[event_class] = name


def upcaster(name: str, *, to: str) -> Callable[[Upcaster], Upcaster]:
    """Register a function that converts data stored under the old `name` to data of the type `to`.

    `to` may be an old name too: then its upcaster runs next. Raises: `ValueError` if `name` is taken.
    """

    def register(function: Upcaster) -> Upcaster:
        if name in _classes or name in _upcasters:
            raise ValueError(f"event type {name} is registered twice")
        _upcasters[name] = (to, function)
        return function

    return register


def actor_upcaster(function: ActorUpcaster) -> ActorUpcaster:
    """Register the function that adds a kind to the actors of older events. Raises: `ValueError` if there is one."""
    if _actor_upcasters:
        raise ValueError("there is an upcaster of actors already")
    _actor_upcasters.append(function)
    return function


def upcast_metadata(name: str, stream: str, metadata: Mapping[str, str]) -> dict[str, str]:
    """Convert the metadata of an older version (`actor`, `request_id`) to the present form."""
    actor = metadata.get("actor", "")
    for upcast in _actor_upcasters:
        actor = upcast(name, stream, metadata)
    if ":" not in actor:
        actor = f"unknown:{actor}"
    return {"actor": actor, "requested_by": actor, "correlation_id": metadata.get("request_id", "")}


def registered_types() -> dict[str, type]:
    """Return the class of each current name, sorted by name."""
    return dict(sorted(_classes.items()))


def is_known(name: str) -> bool:
    """Return True if events stored under this name can be read."""
    return name in _classes or name in _upcasters


def name_of(event_class: type) -> str:
    """Return the name under which events of the class are stored. Raises: `KeyError` if it is not registered."""
    return _names[event_class]


def stored_names_of(event_class: type) -> tuple[str, ...]:
    """Return all names under which the log may have such events: the current one, and the old ones upcast to it."""
    names = [_names[event_class]]
    for name in names:
        names.extend(old for old, (new, _) in _upcasters.items() if new == name)
    return tuple(names)


def encode(event: object) -> str:
    """Return an event as canonical JSON: sorted keys, no white space. Equal events give equal text."""
    return msgspec.json.encode(event, order="sorted").decode()


def decode(name: str, text: str) -> object:
    """Return the event that is stored as `text` under `name`, as an instance of its current class.

    Raises: `UnknownEventTypeError`.
    """
    if name in _classes:
        return decoding.decode(text, _classes[name])
    data = msgspec.json.decode(text)
    while name in _upcasters:
        name, function = _upcasters[name]
        data = function(data)
    if name not in _classes:
        raise UnknownEventTypeError(name)
    return decoding.convert(data, _classes[name])
