"""The whole log as JSON lines, and back into an empty database with the same positions, ids, times and hashes.

The first line says where the log ended and with which hash; each of the others is a row, `data` as the text that its
hash covers. Rows never change and positions have no gaps, so that a copy up to the end of a moment is one of that
moment, without a transaction and however much is appended meanwhile.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec
from django.db import transaction

from eventstore import projections
from eventstore.database import database_now, hold_append_lock, insert
from eventstore.envelope import GENESIS_HASH, Row
from eventstore.reading import batched, checked, hash_at, head, read_stored_rows
from eventstore.registry import encode, is_known

FORMAT = "modfleet-log-2"
_READ_FORMATS = ("modfleet-log-1", FORMAT)

#: Called with how many rows are done.
Told = Callable[[int], None]


class RestoreError(Exception):
    """The backup cannot be restored; the message says why. Nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """`hash` is that of the event at the position `head`; both tell one backup from another."""

    format: str
    head: int
    hash: str
    taken_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    position: int
    stream: str
    version: int
    type: str
    data: str
    metadata: str | dict[str, str]
    event_id: UUID
    recorded_at: datetime
    hash: str
    format: int | None = None

    def row(self) -> Row:
        """Backups of the first format hold metadata as an object: its rows count the value, and any text will do."""
        values = {name: getattr(self, name) for name in Row._fields}
        if not isinstance(self.metadata, str):
            values["metadata"] = encode(self.metadata)
        return Row(**values)


def header_of_now() -> Header:
    """Of a backup that is taken now."""
    position = head()
    return Header(format=FORMAT, head=position, hash=hash_at(position), taken_at=database_now())


def backup_lines(header: Header, *, told: Told) -> Iterator[bytes]:
    """Each line of the backup, checked on its way. Raises: `BrokenLogError`: a broken log is none to keep."""
    yield msgspec.json.encode(header) + b"\n"
    position, last_hash = 0, GENESIS_HASH
    for row in read_stored_rows(up_to=header.head):
        position, last_hash = checked(row, position, last_hash)
        yield msgspec.json.encode(row._asdict()) + b"\n"
        if position % 1000 == 0:
            told(position)


def restore(lines: Iterable[bytes], *, told: Told) -> Header:
    """Append the rows of a backup to an empty log and rebuild all projections: all of it, or nothing.

    Raises: `RestoreError`, `BrokenLogError`.
    """
    iterator = iter(lines)
    header = _header(next(iterator, b""))
    with transaction.atomic():
        hold_append_lock()
        if head():
            raise RestoreError("the log of this database is not empty: restore into a new one, after `migrate`")
        position, last_hash = 0, GENESIS_HASH
        for batch in batched(_row(line, number) for number, line in enumerate(iterator, start=2)):
            for row in batch:
                position, last_hash = checked(row, position, last_hash)
            insert(batch)
            told(position)
        if (position, last_hash) != (header.head, header.hash):
            raise RestoreError(
                f"the backup ends at position {position}, and was taken up to {header.head}: it is cut off"
            )
        for projection in projections.registered():
            projections.rebuild(projection)
    return header


def _header(line: bytes) -> Header:
    try:
        header = msgspec.json.decode(line, type=Header)
    except msgspec.MsgspecError as error:
        raise RestoreError("the file is no backup of a log: its first line does not say so") from error
    if header.format not in _READ_FORMATS:
        raise RestoreError(
            f"the backup has the format {header.format[:40]}, and this program reads {' and '.join(_READ_FORMATS)}"
        )
    return header


def _row(line: bytes, number: int) -> Row:
    try:
        given = msgspec.json.decode(line, type=_Line)
    except msgspec.MsgspecError as error:
        raise RestoreError(f"line {number} of the backup is no event: {error}") from error
    if not is_known(given.type):
        raise RestoreError(
            f"line {number} holds an event of the type {given.type[:100]}, which only a newer Modfleet knows"
        )
    return given.row()
