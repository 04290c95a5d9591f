"""The rules of one module object: the same object again is not an event, another one is a conflict.

The object and its packages come in any order. A later one must not contradict an earlier one.
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
    """`document` is None while no object is registered. `packages` has the module.json of each platform."""

    document: Document | None = None
    packages: Mapping[str, Document] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterModule:
    uid: str
    module_name: str
    version: int
    document: Document


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteModule:
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribePackage:
    uid: str
    platform: str
    document: Document


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetPackages:
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
