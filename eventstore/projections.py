"""Projections: events to rows, inside the transaction of the append.

A projection is told of a batch: one event when it happens, thousands in a rebuild. It must depend on nothing but the
events, so that what a rebuild gives equals what was there: `check` says whether that holds. Rows that an older version
of the projection has written are stale until they are rebuilt: `stale_projections` names those projections.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

from django.db import models, transaction

from eventstore.database import hold_append_lock
from eventstore.envelope import RecordedEvent
from eventstore.models import ProjectionVersion
from eventstore.reading import head, read

REBUILD_BATCH = 2000


class Projection(Protocol):
    """`name` for people; `version` grows when the same events give other rows; `handles`: event classes it is told of;
    `tables`: the models that it alone writes."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def handles(self) -> tuple[type, ...]: ...
    @property
    def tables(self) -> tuple[type[models.Model], ...]: ...

    def apply(self, batch: Sequence[RecordedEvent]) -> None:
        """Write what the events, in order, change."""


_projections: dict[str, Projection] = {}


def register_projection(projection: Projection) -> None:
    """Called once for each projection, when its app is ready. Raises: `ValueError` if the name is taken."""
    if projection.name in _projections:
        raise ValueError(f"projection {projection.name} is registered twice")
    _projections[projection.name] = projection


def registered() -> tuple[Projection, ...]:
    return tuple(_projections.values())


def stale_projections() -> list[str]:
    """Names of the projections whose rows were built by an older version, or never. One query."""
    built = dict(ProjectionVersion.objects.values_list("name", "version"))
    return [each.name for each in _projections.values() if built.get(each.name, 0) < each.version]


def note_empty_log() -> None:
    """While the log is empty, each projection's rows are those of its present version: there are none."""
    if head() == 0:
        for each in _projections.values():
            _note_version(each)


def _note_version(projection: Projection) -> None:
    ProjectionVersion.objects.update_or_create(name=projection.name, defaults={"version": projection.version})


def project(events: Sequence[RecordedEvent]) -> None:
    """Tell each projection of those events that it handles. Runs in the caller's transaction."""
    for projection in _projections.values():
        batch = [each for each in events if isinstance(each.event, projection.handles)]
        if batch:
            projection.apply(batch)


def rebuild(projection: Projection, *, told: Callable[[int], None] = lambda _: None) -> int:
    """Empty the projection's tables and fill them from the log, in one transaction. Returns the number of events.

    `told` is called with how many are done.
    """
    with transaction.atomic():
        hold_append_lock()  # nothing may be appended between the last event read and the commit
        for table in projection.tables:
            table._base_manager.all().delete()
        count = 0
        for batch in _batches(projection):
            projection.apply(batch)
            count += len(batch)
            told(count)
        _note_version(projection)
    return count


def check(projection: Projection) -> list[str]:
    """Differences between the rows as they are and as a rebuild gives them, in words; changes nothing."""
    with transaction.atomic():
        hold_append_lock()  # what is appended meanwhile would be taken for a difference
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
    """The columns in which two rows differ, of which one may be missing."""
    if row is None or rebuilt is None:
        return "is missing" if row is None else "is there, and is not when it is rebuilt"
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
