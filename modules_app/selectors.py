"""Answers about module objects."""

import json
from typing import Any

from django.db.models import QuerySet

from modules_app.errors import NoSuchModuleError, UnknownModuleError
from modules_app.models import Module


def modules() -> QuerySet[Module]:
    """Return all module objects, by name and version."""
    return Module.objects.order_by("module_name", "version")


def modules_named(module_name: str) -> list[Module]:
    """Return the module objects with this name, the newest version first."""
    return list(Module.objects.filter(module_name=module_name).order_by("-version"))


def module_document(uid: str) -> dict[str, Any]:
    """Return the module object as JSON. Raises: `UnknownModuleError`."""
    row = Module.objects.filter(uid=uid).first()
    if row is None:
        raise UnknownModuleError
    return document_of(row)


def document_of(module: Module) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(module.document)
    return document


def module_key(uid: str) -> tuple[str, int]:
    """Return name and version of a registered module. Raises: `NoSuchModuleError`."""
    row = Module.objects.filter(uid=uid).first()
    if row is None:
        raise NoSuchModuleError
    return row.module_name, row.version
