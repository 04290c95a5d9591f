"""Who acts, and in answer to which request: goes into the metadata of every event appended meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: The actor of everything that no person and no node asked for.
SYSTEM = "system"

_actor: ContextVar[str] = ContextVar("actor", default=SYSTEM)
_request_id: ContextVar[str] = ContextVar("request_id", default="")


def current_metadata() -> dict[str, str]:
    """Values are strings only, so that their stored form cannot change what the hash covers."""
    return {"actor": _actor.get(), "request_id": _request_id.get()}


def set_actor(actor: str) -> None:
    """For the rest of this context, as of the moment a request's credentials are verified."""
    _actor.set(actor)


@contextmanager
def acting_as(actor: str, *, request_id: str = "") -> Iterator[None]:
    """Everything appended inside is recorded as done by `actor` for `request_id`."""
    actor_token, request_token = _actor.set(actor), _request_id.set(request_id)
    try:
        yield
    finally:
        _actor.reset(actor_token)
        _request_id.reset(request_token)
