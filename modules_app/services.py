"""Registers and deletes module objects."""

import uuid
from typing import Any

from eventstore.transact import load_state, transact
from eventstore.store import Append
from modules_app.decider import MODULE, DeleteModule, DescribePackage, ForgetPackages, ModuleCommand, RegisterModule
from modules_app.errors import InvalidModuleError
from modules_app.events import module_stream
from modules_app.metadata import InvalidMetadata, ModuleMetadata, parse_metadata

#: Makes the uid of (name, version): the same everywhere and for ever.
NAMESPACE = uuid.UUID("b8e4d2f6-6d2b-4a70-9a4e-3f6d6f6d6f64")


def module_uid(module_name: str, version: int) -> str:
    """32 lowercase hex digits."""
    return uuid.uuid5(NAMESPACE, f"{module_name}/{version}").hex


def register_module(value: Any) -> str:
    """The uid of the module object `value`; the same object again changes nothing.

    Raises: `InvalidModuleError`, `ModuleExistsError`, `MetadataMismatchError`.
    """
    try:
        metadata = parse_metadata(value)
    except InvalidMetadata as error:
        raise InvalidModuleError(str(error)) from error
    command = registration(metadata)
    transact(module_stream(command.uid), MODULE, command)
    return command.uid


def registration(metadata: ModuleMetadata) -> RegisterModule:
    return RegisterModule(
        uid=module_uid(metadata.module_name, metadata.version),
        module_name=metadata.module_name,
        version=metadata.version,
        document=metadata.document,
    )


def delete_module(uid: str) -> None:
    """Raises: `ModuleNotFoundError`."""
    transact(module_stream(uid), MODULE, DeleteModule(uid=uid))


def module_changes(*commands: ModuleCommand) -> Append:
    """What to append so that all `commands`, of one module, are done together with changes of other streams."""
    loaded = load_state(module_stream(commands[0].uid), MODULE)
    state, events = loaded.state, []
    for command in commands:
        decided = MODULE.decide(state, command)
        for event in decided:
            state = MODULE.evolve(state, event)
        events.extend(decided)
    return loaded.append(events)




def module_purge(uid: str) -> Append:
    """What to append to delete the module object and forget its packages, whichever are there."""
    loaded = load_state(module_stream(uid), MODULE)
    events = list(MODULE.decide(loaded.state, ForgetPackages(uid=uid)))
    if loaded.state.document is not None:
        events += MODULE.decide(loaded.state, DeleteModule(uid=uid))
    return loaded.append(events)
