"""Reads and writes many rows by their keys."""

from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

from django.db import models
from django.db.models import Q

Row = TypeVar("Row", bound=models.Model)


def load(model: type[Row], keys: Iterable[str]) -> dict[str, Row]:
    unique = list(set(keys))
    found: dict[str, Row] = {}
    for start in range(0, len(unique), 500):
        found.update(model._default_manager.in_bulk(unique[start : start + 500]))  # noqa: SLF001  # public to Django's users
    return found


def save(model: type[Row], rows: Iterable[Row]) -> None:
    """Insert or replace whole rows: one statement for many, unlike `bulk_update`."""
    columns = [field.name for field in model._meta.concrete_fields if not field.primary_key]
    model._default_manager.bulk_create(  # noqa: SLF001  # public to Django's users
        rows,
        batch_size=500,
        update_conflicts=True,
        unique_fields=[model._meta.pk.name],
        update_fields=columns,
    )


def rows_later_than(model: type[Row], now: datetime) -> list[Row]:
    """Return the rows with any time later than `now`."""
    later = Q(*((f"{name}__gt", now) for name in times_of(model)), _connector=Q.OR)
    return list(model._base_manager.filter(later))


def no_later_than(row: models.Model, now: datetime) -> None:
    """Make no time of the row later than `now`."""
    for name in times_of(type(row)):
        at = getattr(row, name)
        setattr(row, name, at and min(at, now))


def times_of(model: type[models.Model]) -> list[str]:
    return [each.name for each in model._meta.concrete_fields if isinstance(each, models.DateTimeField)]
