"""An event as it stands in the log, and the hash that chains it to the event before."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from msgspec import json

from eventstore.actors import shown
from eventstore.context import Metadata
from eventstore.registry import decode, upcast_metadata

#: What the first event's hash is chained to.
GENESIS_HASH = "0" * 64


#: The format of new rows. Older ones have None, and keep their own rule.
FORMAT = 2


class Row(NamedTuple):
    """One row of the table, its columns in order. `data` and `metadata` are JSON as stored."""

    position: int
    stream: str
    version: int
    type: str
    data: str
    metadata: str
    event_id: UUID
    recorded_at: datetime
    hash: str = ""
    format: int | None = FORMAT


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event as it stands in the log; `event` is the typed, upcast dataclass."""

    position: int
    stream: str
    version: int
    type: str
    event: Any
    metadata: Metadata
    event_id: UUID
    recorded_at: datetime
    hash: str

    @property
    def actor(self) -> str:
        """With its kind."""
        return self.metadata.actor

    @property
    def shown_actor(self) -> str:
        """A person's login name, any other actor with its kind."""
        return shown(self.metadata.actor)


def recorded(row: Row, event: object | None = None, metadata: Metadata | None = None) -> RecordedEvent:
    """The row as an event; `event` and `metadata` spare decoding what has just been encoded.

    Raises: `UnknownEventTypeError`.
    """
    return RecordedEvent(
        position=row.position,
        stream=row.stream,
        version=row.version,
        type=row.type,
        event=decode(row.type, row.data) if event is None else event,
        metadata=metadata or metadata_of(row.type, row.stream, row.metadata),
        event_id=row.event_id,
        recorded_at=row.recorded_at,
        hash=row.hash,
    )


def metadata_of(name: str, stream: str, text: str) -> Metadata:
    """The metadata stored as `text` with an event of the type `name`. Older versions have stored an actor without a kind,
    and the id of a request. Raises: `msgspec.MsgspecError`."""
    found = json.decode(text, type=dict[str, str])
    if "correlation_id" not in found:
        found = upcast_metadata(name, stream, found)
    return msgspec.convert(found, Metadata)


def chained_hash(previous: str, row: Row) -> str:
    """SHA-256 in hex over the hash before and the row's other columns, as a JSON array without white space.

    `data` and `metadata` count byte for byte. Rows without a format come from a version that stored `metadata` in a
    column that did not keep its text: there its value counts, written with sorted keys.
    """
    metadata = json.decode(row.metadata) if row.format is None else row.metadata
    columns: tuple[Any, ...] = (
        row.position,
        row.stream,
        row.version,
        row.type,
        row.data,
        metadata,
        row.event_id.hex,
        row.recorded_at.astimezone(UTC).isoformat(timespec="microseconds"),
    )
    if row.format is not None:
        columns = (row.format, *columns)
    return hashlib.sha256(previous.encode() + json.encode(columns, order="sorted")).hexdigest()
