"""The events of `module:<uid>`: the module object of one name and version, and the module.json of its packages."""

from typing import Any

from eventstore import event


def module_stream(uid: str) -> str:
    return f"module:{uid}"


@event("module.registered.v1")
class ModuleRegistered:
    """`document` is the complete object as it was given, with unknown keys. Its version is a whole number."""

    uid: str
    module_name: str
    version: int
    document: dict[str, Any]


@event("module.deleted.v1")
class ModuleDeleted:
    uid: str


@event("module.packaged.v1")
class ModulePackaged:
    """A package of this module was uploaded. `document` is its module.json; a registered object must agree with it."""

    uid: str
    platform: str
    document: dict[str, Any]


@event("module.packages_deleted.v1")
class ModulePackagesDeleted:
    uid: str


ModuleEvent = ModuleRegistered | ModuleDeleted | ModulePackaged | ModulePackagesDeleted
