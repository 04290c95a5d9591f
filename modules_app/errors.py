"""What can be wrong with a module object. The statuses are those of the vendor's routes. Knows no Django."""

from collections.abc import Iterable

from api.errors import ApiError


class ModuleError(ApiError):
    """The module object was refused."""

    status = 406
    code = "invalid_module"


class InvalidModuleError(ModuleError):
    """The module object lacks a required field or has an invalid value."""


class ModuleExistsError(ModuleError):
    """A module object of this name and version is registered already, with other values. Delete it first."""

    code = "module_exists"


class ModuleNameTakenError(ModuleError):
    """A module whose name differs only in case is there already. Servers do not tell the two apart: use one spelling."""

    code = "module_name_taken"


class ModuleInUseError(ModuleError):
    """The module is loaded in a node's server, or is about to be. Remove it by a rollout with the action remove."""

    code = "module_in_use"


class MetadataMismatchError(ModuleError):
    """The module object and the package's module.json contradict each other."""

    code = "metadata_mismatch"

    def __init__(self, fields: Iterable[str]) -> None:
        super().__init__(f"The module object and the package's module.json differ in: {', '.join(fields)}.")


class UnknownModuleError(ModuleError):
    """There is no module object with this uid."""

    status = 404
    code = "module_not_found"


class NoSuchModuleError(ModuleError):
    """There is no module object with this uid."""

    status = 404
    code = "module_delete_failed"
