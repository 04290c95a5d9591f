"""The rules of one module object. The same object again leads to no event, another object is a conflict.

The object and its packages arrive in any order. The later one must not contradict the earlier one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from eventstore import Decider
from modules_app.errors import MetadataMismatchError, ModuleExistsError, NoSuchModuleError
from modules_app.events import ModuleDeleted, ModuleEvent, ModulePackaged, ModulePackagesDeleted, ModuleRegistered
from modules_app.metadata import differing_fields

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleState:
    """`document` is None while no object is registered. `packages`: the module.json of each platform's package."""

    document: Document | None = None
    packages: Mapping[str, Document] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterModule:
    """Register the module object. Do nothing if the same object is registered.

    Raises: `ModuleExistsError` if another object is registered, `MetadataMismatchError` if a package contradicts it.
    """

    uid: str
    module_name: str
    version: int
    document: Document


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteModule:
    """Delete the module object. Raises: `NoSuchModuleError`."""

    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribePackage:
    """Record the module.json of a package. Do nothing if it is the same as before.

    Raises: `MetadataMismatchError` if it contradicts the registered module object.
    """

    uid: str
    platform: str
    document: Document


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetPackages:
    """Drop the module.json of all packages, because the packages were deleted."""

    uid: str


ModuleCommand = RegisterModule | DeleteModule | DescribePackage | ForgetPackages


def decide(state: ModuleState, command: ModuleCommand) -> list[ModuleEvent]:
    match command:
        case RegisterModule():
            return _register(state, command)
        case DeleteModule():
            if state.document is None:
                raise NoSuchModuleError
            return [ModuleDeleted(uid=command.uid)]
        case DescribePackage():
            if state.packages.get(command.platform) == command.document:
                return []
            if state.document is not None:
                _refuse_contradiction(state.document, command.document)
            return [ModulePackaged(uid=command.uid, platform=command.platform, document=command.document)]
        case ForgetPackages():
            return [ModulePackagesDeleted(uid=command.uid)] if state.packages else []


def _register(state: ModuleState, command: RegisterModule) -> list[ModuleEvent]:
    if state.document == command.document:
        return []
    if state.document is not None:
        raise ModuleExistsError
    for package in state.packages.values():
        _refuse_contradiction(package, command.document)
    return [
        ModuleRegistered(
            uid=command.uid, module_name=command.module_name, version=command.version, document=command.document
        )
    ]


def _refuse_contradiction(earlier: Document, later: Document) -> None:
    if fields := differing_fields(earlier, later):
        raise MetadataMismatchError(fields)


def evolve(state: ModuleState, event: ModuleEvent) -> ModuleState:
    match event:
        case ModuleRegistered():
            return replace(state, document=event.document)
        case ModuleDeleted():
            return replace(state, document=None)
        case ModulePackaged():
            return replace(state, packages={**state.packages, event.platform: event.document})
        case ModulePackagesDeleted():
            return replace(state, packages={})


MODULE = Decider(ModuleState(), decide, evolve)
