"""The envelope of an event: its row in the log, and the hash that chains the row to the one before."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from msgspec import json

import decoding
from eventstore.actors import shown
from eventstore.context import Metadata
from eventstore.registry import decode, encode, upcast_metadata

#: The hash before the first event.
GENESIS_HASH = "0" * 64

#: The format of new rows: which columns the hash covers, and how. Rows of the first format have None.
FORMAT = 2


class Row(NamedTuple):
    """A row of the table, with its columns in order. `data` and `metadata` are JSON text as stored."""

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
    """An event in its envelope, as it was appended."""

    #: Its place among all events, from 1 and without gaps: the order of the commits.
    position: int
    stream: str
    #: Its place in its stream, from 1 and without gaps.
    version: int
    #: The name under which it is stored, such as `order.placed.v1`. May be an old name.
    type: str
    #: The event itself: an instance of its current class.
    event: Any
    metadata: Metadata
    event_id: UUID
    #: By the database's clock, in UTC. Earlier than that of the position before only for a `ClockSetBack`.
    recorded_at: datetime
    #: SHA-256 in hex, see `chained_hash`.
    hash: str

    @property
    def actor(self) -> str:
        """Who did it, with its kind: `user:alice`."""
        return self.metadata.actor

    @property
    def shown_actor(self) -> str:
        """Who did it, in the short form of `actors.shown`: `alice`, `system:relay`."""
        return shown(self.metadata.actor)


def from_row(row: Row, event: object | None = None, metadata: Metadata | None = None) -> RecordedEvent:
    """Return the event in its envelope. Pass `event` and `metadata` if they are known: then they are not decoded.

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
        recorded_at=time_of(row.metadata, row.recorded_at),
        hash=row.hash,
    )


def time_of(metadata: str, column: datetime) -> datetime:
    """Return when an event was recorded, from two columns of its row: see `eventstore.clock`."""
    if '"clock":' not in metadata:  # nearly always: not worth a second decoding
        return column
    found: str | None = json.decode(metadata).get("clock")
    return column if found is None else datetime.fromisoformat(found)


def stored_metadata(metadata: Metadata, recorded_at: datetime, column: datetime) -> str:
    """Return the metadata as stored, with the time of the event if the column has another one."""
    text = encode(metadata)
    if recorded_at == column:
        return text
    return encode({**decoding.decode(text, dict[str, str]), "clock": recorded_at.isoformat()})


def metadata_of(name: str, stream: str, text: str) -> Metadata:
    """Return the metadata that is stored as `text` with an event of the type `name`.

    Older rows have an actor without a kind and a request id instead: they are converted.
    Raises: `msgspec.MsgspecError` if the text is not the JSON of metadata.
    """
    found = decoding.decode(text, dict[str, str])
    if "correlation_id" not in found:
        found = upcast_metadata(name, stream, found)
    return decoding.convert(found, Metadata)


def chained_hash(previous: str, row: Row) -> str:
    """Return the hash of the row: SHA-256 in hex over the hash before it and a JSON array of its other columns.

    The array has no white space. `data` and `metadata` are in it as text, byte for byte. Rows of the first format (None)
    had `metadata` in a column that did not keep the text: for them the array has its value, with sorted keys.
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
