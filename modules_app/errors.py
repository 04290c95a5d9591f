"""Errors of requests about module objects. The vendor's routes document most of them as not acceptable."""

from collections.abc import Iterable

from api.errors import ApiError, Kind


class ModuleError(ApiError):
    """The module object was refused."""

    kind = Kind.NOT_ACCEPTABLE
    code = "invalid_module"


class InvalidModuleError(ModuleError):
    """The module object lacks a required field or has an invalid value."""


class ModuleExistsError(ModuleError):
    """A module object with this name and version is already registered, with other values. Delete it first."""

    code = "module_exists"


class ModuleNameTakenError(ModuleError):
    """A module has a name that differs only in case, and servers consider both equal. Use one spelling."""

    code = "module_name_taken"


class ModuleInUseError(ModuleError):
    """A node's server has loaded the module, or is about to. Remove it by a rollout with the action remove."""

    code = "module_in_use"


class MetadataMismatchError(ModuleError):
    """The module object and the package's module.json contradict each other."""

    code = "metadata_mismatch"

    def __init__(self, fields: Iterable[str]) -> None:
        super().__init__(f"The module object and the package's module.json differ in: {', '.join(fields)}.")


class UnknownModuleError(ModuleError):
    """There is no module object with this uid."""

    kind = Kind.NOT_FOUND
    code = "module_not_found"


class NoSuchModuleError(ModuleError):
    """There is no module object with this uid."""

    kind = Kind.NOT_FOUND
    code = "module_delete_failed"
