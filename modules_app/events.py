"""What is stored in `module:<uid>`: the module object of one (name, version), and what its packages say of it."""

from typing import Any

from eventstore import event


def module_stream(uid: str) -> str:
    return f"module:{uid}"


@event("module.registered.v1")
class ModuleRegistered:
    """`document` is the complete object as given, unknown keys and all, its version a whole number."""

    uid: str
    module_name: str
    version: int
    document: dict[str, Any]


@event("module.deleted.v1")
class ModuleDeleted:
    uid: str


@event("module.packaged.v1")
class ModulePackaged:
    """A package of this module came in: `document` is its module.json. Whatever is registered must agree with it."""

    uid: str
    platform: str
    document: dict[str, Any]


@event("module.packages_deleted.v1")
class ModulePackagesDeleted:
    uid: str


ModuleEvent = ModuleRegistered | ModuleDeleted | ModulePackaged | ModulePackagesDeleted
