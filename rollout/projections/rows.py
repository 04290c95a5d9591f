"""Reads and writes many rows by their keys."""

from collections.abc import Iterable
from typing import TypeVar

from django.db import models

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
