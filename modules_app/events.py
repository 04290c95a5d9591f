"""Events of `module:<uid>`: the module object of one name and version, and the module.json of its packages."""

from typing import Any

from eventstore import event


def module_stream(uid: str) -> str:
    return f"module:{uid}"


@event("module.registered.v1")
class ModuleRegistered:
    """A module object was registered. `document`: the whole object as it was sent, with unknown keys; its version is an
    integer."""

    uid: str
    module_name: str
    version: int
    document: dict[str, Any]


@event("module.deleted.v1")
class ModuleDeleted:
    """The module object was deleted. The module.json of its packages stays."""

    uid: str


@event("module.packaged.v1")
class ModulePackaged:
    """A package of this module was uploaded. `document` is its module.json. A registered module object must agree with it."""

    uid: str
    platform: str
    document: dict[str, Any]


@event("module.packages_deleted.v1")
class ModulePackagesDeleted:
    """All packages of the module were deleted, and their module.json with them."""

    uid: str


ModuleEvent = ModuleRegistered | ModuleDeleted | ModulePackaged | ModulePackagesDeleted
