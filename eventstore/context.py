"""The metadata of new events: who acts, at whose request, and which event was the cause.

A context variable holds them. Each append takes them from there unless it is given others.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

from eventstore.actors import person

#: The actor outside of any context.
SYSTEM = "system:program"
#: The actor of requests without credentials.
ANONYMOUS = "system:anonymous"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """How an event came about. All values are strings: the hash covers their stored form, which then cannot change."""

    #: Who did it, with its kind: `user:alice`, `system:relay`.
    actor: str
    #: Who asked for it, with its kind. The same as `actor` unless it acts for another one.
    requested_by: str
    #: The id of the request. All events that follow from one request have the same.
    correlation_id: str
    #: The id of the event that led to this one, 32 hex digits; empty for the first event of a request.
    causation_id: str = ""

    def because_of(self, event_id: UUID | None) -> "Metadata":
        """Return the metadata of an event of the same request that this event caused. None: the cause is unknown."""
        return replace(self, causation_id="" if event_id is None else event_id.hex)


def begun_by(actor: str, *, correlation_id: str = "") -> Metadata:
    """Return the metadata of a new request by `actor`. Without a `correlation_id` the request gets a random one."""
    return Metadata(actor=actor, requested_by=actor, correlation_id=correlation_id or uuid4().hex)


_metadata: ContextVar[Metadata | None] = ContextVar("metadata", default=None)


def current_metadata() -> Metadata:
    """Return the metadata of this context. Outside of any context, each call returns a new request by `SYSTEM`."""
    return _metadata.get() or begun_by(SYSTEM)


def current_actor() -> str:
    """Return the actor of this context with its kind, or `SYSTEM` outside of any context."""
    known = _metadata.get()
    return SYSTEM if known is None else known.actor


def current_request() -> str:
    """Return the request id of this context, or an empty string outside of any context."""
    known = _metadata.get()
    return "" if known is None else known.correlation_id


def set_person(login: str) -> None:
    """Make the person with this login name the actor for the rest of this context.

    Call it once a request's credentials are verified.
    """
    actor = person(login)
    _metadata.set(replace(current_metadata(), actor=actor, requested_by=actor))


@contextmanager
def acting_as(actor: str, *, correlation_id: str = "", because_of: UUID | None = None) -> Iterator[None]:
    """Record all events that are appended inside as done by `actor`, for a new request.

    `because_of` is the id of the event that caused them.
    """
    token = _metadata.set(begun_by(actor, correlation_id=correlation_id).because_of(because_of))
    try:
        yield
    finally:
        _metadata.reset(token)
