"""Who acts, at whose request and because of what: goes into the metadata of every event appended meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

from eventstore.actors import person

#: The actor of everything that nobody has taken responsibility for.
SYSTEM = "system:program"
#: The actor of requests without credentials.
ANONYMOUS = "system:anonymous"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """How an event came about. Values are strings only, so that their stored form cannot change what the hash covers.

    `actor` did it, at the request of `requested_by`; both have their kind: `user:alice`, `system:relay`.
    `correlation_id`: that request; all that follows from it has the same. `causation_id`: the id of the event that led
    to this one, empty where a story begins.
    """

    actor: str
    requested_by: str
    correlation_id: str
    causation_id: str = ""

    def because_of(self, event_id: UUID | None) -> "Metadata":
        """Of what follows from that event of the same request; None where an older version has not noted it."""
        return replace(self, causation_id="" if event_id is None else event_id.hex)


def begun_by(actor: str, *, correlation_id: str = "") -> Metadata:
    """Of a new request; its id is made if none is given."""
    return Metadata(actor=actor, requested_by=actor, correlation_id=correlation_id or uuid4().hex)


_metadata: ContextVar[Metadata | None] = ContextVar("metadata", default=None)


def current_metadata() -> Metadata:
    """Outside of `acting_as` each call begins a request of its own."""
    return _metadata.get() or begun_by(SYSTEM)


def current_actor() -> str:
    known = _metadata.get()
    return SYSTEM if known is None else known.actor


def current_request() -> str:
    """The id of the request in whose context this is called, empty if there is none."""
    known = _metadata.get()
    return "" if known is None else known.correlation_id


def set_person(login: str) -> None:
    """For the rest of this context, as of the moment a request's credentials are verified."""
    actor = person(login)
    _metadata.set(replace(current_metadata(), actor=actor, requested_by=actor))


@contextmanager
def acting_as(actor: str, *, correlation_id: str = "", because_of: UUID | None = None) -> Iterator[None]:
    """Everything appended inside is recorded as done by `actor`, for a request of its own."""
    token = _metadata.set(begun_by(actor, correlation_id=correlation_id).because_of(because_of))
    try:
        yield
    finally:
        _metadata.reset(token)
