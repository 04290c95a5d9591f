"""Backups: the log as JSON lines, and back into an empty database with the same positions, ids, times and hashes.

The first line has the head of the log. Each other line is a row; `data` is the text that the hash covers. A backup takes
no transaction, and appends may go on during it: rows never change and positions have no gaps, so a copy up to a position
is the log as it was when that position was the newest.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec
from django.db import transaction

import decoding
from eventstore import projections
from eventstore.conf import conf
from eventstore.database import database_now, hold_append_lock, insert
from eventstore.envelope import GENESIS_HASH, Row
from eventstore.reading import head, read_stored_rows
from eventstore.registry import encode, is_known
from eventstore.verification import Progress, batched, checked, newest_head


class RestoreError(Exception):
    """The backup cannot be restored; the message says why. Nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first line of a backup."""

    #: The name and version of the format.
    format: str
    #: The position of the last event, and its hash.
    head: int
    hash: str
    #: When the backup began, by the database's clock.
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
        """Return the row. Backups of format 1 have metadata as an object: the hash covers its value, not its text."""
        values = {name: getattr(self, name) for name in Row._fields}
        if not isinstance(self.metadata, str):
            values["metadata"] = encode(self.metadata)
        return Row(**values)


def new_header() -> Header:
    """Return the header of a backup that begins now."""
    newest = newest_head()
    return Header(format=_formats()[-1], head=newest.position, hash=newest.hash, taken_at=database_now())


def backup_lines(header: Header, *, progress: Progress) -> Iterator[bytes]:
    """Yield the lines of the backup, each with its line end. `progress` is called with the position, every 1,000 events.

    Each row is checked: a broken log gives no backup. Raises: `BrokenLogError`.
    """
    yield msgspec.json.encode(header) + b"\n"
    position, last_hash = 0, GENESIS_HASH
    for row in read_stored_rows(up_to=header.head):
        position, last_hash = checked(row, position, last_hash)
        yield msgspec.json.encode(row._asdict()) + b"\n"
        if position % 1000 == 0:
            progress(position)


def restore(lines: Iterable[bytes], *, progress: Progress) -> Header:
    """Add the rows of a backup to an empty log, and rebuild all projections, in one transaction. Return the header.

    `progress` is called with the position, every 1,000 events.
    Raises: `RestoreError`; `BrokenLogError` if a row was changed. Nothing is written then.
    """
    iterator = iter(lines)
    header = _header(next(iterator, b""))
    with transaction.atomic():
        hold_append_lock()
        if head():
            raise RestoreError("the log of this database is not empty: restore into a new database, after `migrate`")
        position, last_hash = 0, GENESIS_HASH
        for batch in batched(_row(line, number) for number, line in enumerate(iterator, start=2)):
            for row in batch:
                position, last_hash = checked(row, position, last_hash)
            insert(batch)
            progress(position)
        if (position, last_hash) != (header.head, header.hash):
            raise RestoreError(
                f"the backup is cut off: it ends at position {position}, and its header says {header.head}"
            )
        for projection in projections.registered():
            projections.rebuild(projection)
    return header


def _header(line: bytes) -> Header:
    try:
        header = decoding.decode(line, Header)
    except msgspec.MsgspecError as error:
        raise RestoreError("the file is not a backup of a log: its first line is not the header of one") from error
    if header.format not in _formats():
        raise RestoreError(
            f"the backup has the format {header.format[:40]}, and this program reads {' and '.join(_formats())}"
        )
    return header


def _row(line: bytes, number: int) -> Row:
    try:
        given = decoding.decode(line, _Line)
    except msgspec.MsgspecError as error:
        raise RestoreError(f"line {number} of the backup is not an event: {error}") from error
    if not is_known(given.type):
        raise RestoreError(
            f"line {number} has an event of the type {given.type[:100]}, which only a newer version of this program knows"
        )
    return given.row()


def _formats() -> tuple[str, ...]:
    """Return the formats that can be restored. New backups have the last one."""
    name = conf().backup_format
    return f"{name}-1", f"{name}-2"
