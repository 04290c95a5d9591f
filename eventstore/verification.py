"""Checking the log: every position, every hash, and the versions of each stream."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from django.db.models import Max

from eventstore.envelope import FORMAT, GENESIS_HASH, Row, chained_hash
from eventstore.models import StoredEvent
from eventstore.reading import STREAMS_PER_QUERY, head, read_stored_rows

_BATCH = 1000
_FORMATS = (None, FORMAT)

#: Called from time to time with a number that grows: of the events that are done, or the last position.
Progress = Callable[[int], None]


class BrokenLogError(Exception):
    """A row of the log is not as it was appended. `position` is that of the first such row."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


class Head(NamedTuple):
    """A position of the log and the hash of its event."""

    position: int
    hash: str


def newest_head() -> Head:
    """Return the head of the log now. For an empty log: position 0 and 64 zeros."""
    position = head()
    return Head(position, hash_at(position))


def verify(*, after: int = 0, heads: Iterable[Head] = (), progress: Progress = lambda _: None) -> int:
    """Check the position, the hash and the stream's version of each event after a position. Return how many there are.

    `heads` were noted earlier and kept outside of the database. Only they show that the end of the log was cut off, or
    that the log was replaced from some position on. `progress` is called with the position, every 1,000 events.
    Raises: `BrokenLogError` for the first fault.
    """
    position = after
    for position in verified_positions(after=after):
        if position % _BATCH == 0:
            progress(position)
    for each in heads:
        if hash_at(each.position) != each.hash:
            raise BrokenLogError(
                each.position, f"position {each.position} has another hash than was noted: the log was replaced"
            )
    return position - after


def verified_positions(*, after: int) -> Iterator[int]:
    """Yield each position after `after` once it is checked. The hash at `after` is trusted. Raises: `BrokenLogError`."""
    _refuse_rows_before_the_first()
    position, last_hash = after, hash_at(after)
    versions: dict[str, int] = {}
    for batch in batched(read_stored_rows(after=after)):
        if after:
            versions |= _versions_up_to(after, {row.stream for row in batch} - versions.keys())
        for row in batch:
            position, last_hash = checked(row, position, last_hash)
            expected = versions.get(row.stream, 0) + 1
            if row.version != expected:
                raise BrokenLogError(
                    position, f"position {position} is version {row.version} of {row.stream}, and not {expected}"
                )
            versions[row.stream] = expected
            yield position


def _refuse_rows_before_the_first() -> None:
    """Raise an error for a position below 1. A reader by position skips it, but a reader of a stream or a type does not."""
    first = StoredEvent.objects.filter(position__lt=1).order_by("position").values_list("position", flat=True).first()
    if first is not None:
        raise BrokenLogError(first, f"position {first} was not appended: positions begin at 1")


def checked(row: Row, position: int, last_hash: str) -> tuple[int, str]:
    """Return the row's position and hash if it continues the position and hash given. Raises: `BrokenLogError`."""
    if row.position != position + 1:
        raise BrokenLogError(position + 1, f"position {position + 1} is missing")
    if row.format not in _FORMATS:
        raise BrokenLogError(row.position, f"position {row.position} has the format {row.format}, which is unknown")
    if row.hash != chained_hash(last_hash, row):
        raise BrokenLogError(row.position, f"position {row.position} is not what was appended: its hash does not match")
    return row.position, row.hash


def hash_at(position: int) -> str:
    """Return the hash of the event at a position; 64 zeros for position 0.

    Raises: `BrokenLogError` if there is no such position.
    """
    if not position:
        return GENESIS_HASH
    found = StoredEvent.objects.filter(position=position).values_list("hash", flat=True).first()
    if found is None:
        raise BrokenLogError(position, f"position {position} is missing")
    return found


def batched(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield the rows in lists of up to 1,000."""
    iterator = iter(rows)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _versions_up_to(position: int, streams: set[str]) -> dict[str, int]:
    """Return the last version of each stream up to a position. One query for 500 streams."""
    names = sorted(streams)
    found: dict[str, int] = {}
    for start in range(0, len(names), STREAMS_PER_QUERY):
        rows = StoredEvent.objects.filter(
            stream__in=names[start : start + STREAMS_PER_QUERY], position__lte=position
        ).order_by("stream")
        found.update(rows.values_list("stream").annotate(Max("version")))
    return found
