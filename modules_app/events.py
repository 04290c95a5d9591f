"""What is stored in `module:<uid>`: the module object of one (name, version), and what its packages say of it."""

from dataclasses import dataclass
from typing import Any

from eventstore.registry import event_type


def module_stream(uid: str) -> str:
    return f"module:{uid}"


@event_type("module.registered.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleRegistered:
    """`document` is the complete object as given, unknown keys and all, its version a whole number."""

    uid: str
    module_name: str
    version: int
    document: dict[str, Any]


@event_type("module.deleted.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleDeleted:
    uid: str


@event_type("module.packaged.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class ModulePackaged:
    """A package of this module came in: `document` is its module.json. Whatever is registered must agree with it."""

    uid: str
    platform: str
    document: dict[str, Any]


@event_type("module.packages_deleted.v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class ModulePackagesDeleted:
    uid: str


ModuleEvent = ModuleRegistered | ModuleDeleted | ModulePackaged | ModulePackagesDeleted
