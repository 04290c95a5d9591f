"""An event as it stands in the log, and the hash that ties it to the one before."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from eventstore.registry import decode

#: What the first event's hash is chained to.
GENESIS_HASH = "0" * 64


class Row(NamedTuple):
    """One row of the table, its columns in order."""

    position: int
    stream: str
    version: int
    type: str
    data: str
    metadata: dict[str, str]
    event_id: UUID
    recorded_at: datetime
    hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event as it stands in the log; `event` is the typed, upcast dataclass."""

    position: int
    stream: str
    version: int
    type: str
    event: Any
    metadata: dict[str, str]
    event_id: UUID
    recorded_at: datetime
    hash: str

    @property
    def actor(self) -> str:
        return self.metadata.get("actor", "")


def recorded(row: Row, event: object | None = None) -> RecordedEvent:
    """The row as an event; `event` spares decoding what has just been encoded. Raises: `UnknownEventTypeError`."""
    return RecordedEvent(
        position=row.position,
        stream=row.stream,
        version=row.version,
        type=row.type,
        event=decode(row.type, row.data) if event is None else event,
        metadata=row.metadata,
        event_id=row.event_id,
        recorded_at=row.recorded_at,
        hash=row.hash,
    )


def chained_hash(previous: str, row: Row) -> str:
    """SHA-256 in hex over the hash before and the row's other columns, as a JSON array without white space."""
    columns = (
        row.position,
        row.stream,
        row.version,
        row.type,
        row.data,
        row.metadata,
        row.event_id.hex,
        row.recorded_at.astimezone(UTC).isoformat(timespec="microseconds"),
    )
    return hashlib.sha256(previous.encode() + msgspec.json.encode(columns, order="sorted")).hexdigest()
