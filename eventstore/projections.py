"""Projections: rows that are built from events, in the transaction of the append.

A projection gets events in batches: those of one append, or 2,000 at a time in a rebuild. Its rows must depend on nothing
but the events, so that a rebuild gives the same rows. `check` compares them. If an older version of a projection built the
rows, they are stale until a rebuild.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

from django.db import models, transaction

from eventstore.database import hold_append_lock
from eventstore.envelope import RecordedEvent
from eventstore.models import ProjectionVersion
from eventstore.reading import head, read
from eventstore.verification import Progress

REBUILD_BATCH = 2000


class Projection(Protocol):
    """What a projection has to provide. Class attributes will do for the properties."""

    @property
    def name(self) -> str:
        """The unique name, for people."""

    @property
    def version(self) -> int:
        """From 1. Raise it when the same events give other rows than before."""

    @property
    def handles(self) -> tuple[type, ...]:
        """The event classes that `apply` gets."""

    @property
    def tables(self) -> tuple[type[models.Model], ...]:
        """The models that only this projection writes. A rebuild empties them."""

    def apply(self, batch: Sequence[RecordedEvent]) -> None:
        """Change the rows by these events, which are in the order of the log. Runs in the transaction of the append."""


_projections: dict[str, Projection] = {}


def register_projection(projection: Projection) -> None:
    """Register a projection. Call it once, from the `ready` method of its app. Raises: `ValueError` if the name is taken."""
    if projection.name in _projections:
        raise ValueError(f"projection {projection.name} is registered twice")
    _projections[projection.name] = projection


def registered() -> tuple[Projection, ...]:
    """Return all projections, in the order in which they were registered."""
    return tuple(_projections.values())


def stale_projections() -> list[str]:
    """Return the names of the projections that need a rebuild. One query.

    A projection needs one if an older version of it built the rows, or if it was never built.
    """
    built = dict(ProjectionVersion.objects.values_list("name", "version"))
    return [each.name for each in _projections.values() if built.get(each.name, 0) < each.version]


def note_empty_log() -> None:
    """If the log is empty, note that no projection needs a rebuild."""
    if head() == 0:
        for each in _projections.values():
            _note_version(each)


def _note_version(projection: Projection) -> None:
    ProjectionVersion.objects.update_or_create(name=projection.name, defaults={"version": projection.version})


def project(events: Sequence[RecordedEvent]) -> None:
    """Give each projection the events that it handles. Runs in the caller's transaction."""
    for projection in _projections.values():
        batch = [each for each in events if isinstance(each.event, projection.handles)]
        if batch:
            projection.apply(batch)


def rebuild(projection: Projection, *, progress: Progress = lambda _: None) -> int:
    """Empty the projection's tables and fill them from the log, in one transaction. Return the number of events.

    It keeps the append lock, so nothing is appended during the rebuild. `progress` is called with the number of events that are done.
    """
    with transaction.atomic():
        hold_append_lock()
        for table in projection.tables:
            table._base_manager.all().delete()
        count = 0
        for batch in _batches(projection):
            projection.apply(batch)
            count += len(batch)
            progress(count)
        _note_version(projection)
    return count


def check(projection: Projection) -> list[str]:
    """Return the differences between the rows and those of a rebuild, a sentence for each row. Changes nothing."""
    with transaction.atomic():
        hold_append_lock()  # an event appended during the check would look like a difference
        before = _rows(projection)
        rebuild(projection)
        after = _rows(projection)
        transaction.set_rollback(True)
    return [
        f"{' '.join(key)}: {_difference(before.get(key), after.get(key))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _difference(row: dict[str, Any] | None, rebuilt: dict[str, Any] | None) -> str:
    """Return the columns in which two rows differ. None stands for a missing row."""
    if row is None or rebuilt is None:
        return "is missing" if row is None else "exists, and a rebuild does not make it"
    columns = [name for name in row if row[name] != rebuilt[name]]
    return f"is { {name: row[name] for name in columns} }, rebuilt { {name: rebuilt[name] for name in columns} }"


def _rows(projection: Projection) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (table._meta.label, str(row[table._meta.pk.name])): row
        for table in projection.tables
        for row in table._base_manager.values()
    }


def _batches(projection: Projection) -> Iterator[list[RecordedEvent]]:
    events = read(event_classes=projection.handles)
    while batch := list(islice(events, REBUILD_BATCH)):
        yield batch
