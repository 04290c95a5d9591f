"""Registers and deletes module objects."""

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from accounts.events import CLUSTER_STREAM
from accounts.selectors import require_modules_upload_allowed
from eventstore import Append, Condition, append, head, load_state, retry_on_conflict
from modules_app.decider import MODULE, DeleteModule, DescribePackage, ForgetPackages, ModuleCommand, RegisterModule
from modules_app.errors import InvalidModuleError
from modules_app.events import module_stream
from modules_app.metadata import InvalidMetadata, ModuleMetadata, parse_metadata
from modules_app.selectors import module_key
from modules_app.vetoes import DELETION, REGISTRATION

#: Makes the uid of a name and version. It must never change.
NAMESPACE = uuid.UUID("b8e4d2f6-6d2b-4a70-9a4e-3f6d6f6d6f64")


def module_uid(module_name: str, version: int) -> str:
    """Return the uid of the module object: 32 lowercase hex digits."""
    return uuid.uuid5(NAMESPACE, f"{module_name}/{version}").hex


def register_module(value: Any) -> str:
    """Register the module object `value`, and return its uid. The same object again changes nothing.

    Raises: `accounts.errors.ModulesUploadDisabledError`, `InvalidModuleError`, `ModuleExistsError`,
    `MetadataMismatchError`, and the errors of vetoes.
    """
    try:
        metadata = parse_metadata(value)
    except InvalidMetadata as error:
        raise InvalidModuleError(str(error)) from error
    command = _registration(metadata)
    _register(command)
    return command.uid


@retry_on_conflict
def _register(command: RegisterModule) -> None:
    allowed = Condition(after=head(), streams=[CLUSTER_STREAM])
    require_modules_upload_allowed()
    vetoes = REGISTRATION.conditions(command.module_name)
    append(_changes(command.uid, [command]), unless=[allowed, *vetoes])


@retry_on_conflict
def delete_module(uid: str) -> None:
    """Delete a module object. Raises: `NoSuchModuleError`, and the errors of vetoes."""
    loaded = load_state(module_stream(uid), MODULE)
    deletion = loaded.append(MODULE.decide(loaded.state, DeleteModule(uid=uid)))
    append(deletion, unless=DELETION.conditions(*module_key(uid)))


# --- For services that change other streams in the same transaction -------------------------------------------------


def package_described(metadata: ModuleMetadata, platforms: Iterable[str], *, register: bool) -> Append:
    """Return the append for an uploaded package. With `register`, it also registers a module object from the package, if
    there is none yet.

    Raises: `MetadataMismatchError`.
    """
    uid = module_uid(metadata.module_name, metadata.version)
    commands: list[ModuleCommand] = [
        DescribePackage(uid=uid, platform=platform, document=metadata.document) for platform in platforms
    ]
    if register and not _is_registered(uid):
        commands.append(_registration(metadata))
    return _changes(uid, commands)


def packages_forgotten(uid: str) -> Append:
    """Return the append for the deletion of the module's packages."""
    return _changes(uid, [ForgetPackages(uid=uid)])


def module_purged(uid: str) -> Append:
    """Return the append that deletes the module object and forgets its packages, if they exist."""
    return _changes(uid, [ForgetPackages(uid=uid), *([DeleteModule(uid=uid)] if _is_registered(uid) else [])])


def _is_registered(uid: str) -> bool:
    return load_state(module_stream(uid), MODULE).state.document is not None


def _registration(metadata: ModuleMetadata) -> RegisterModule:
    return RegisterModule(
        uid=module_uid(metadata.module_name, metadata.version),
        module_name=metadata.module_name,
        version=metadata.version,
        document=metadata.document,
    )


def _changes(uid: str, commands: Sequence[ModuleCommand]) -> Append:
    loaded = load_state(module_stream(uid), MODULE)
    state = loaded.state
    events: list[object] = []
    for command in commands:
        decided = MODULE.decide(state, command)
        state = MODULE.fold(decided, state)
        events.extend(decided)
    return loaded.append(events)
