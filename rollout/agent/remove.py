"""Removes a version: unload, forget, delete. Repeated after a crash it finishes what is left."""

from contextlib import nullcontext

from rollout.agent.activate import told_as_crash
from rollout.agent.operation import UNLOAD_SECONDS, Operation, Outcome
from rollout.agent.swap import unload
from rollout.messages import Phase, Reason


def remove(operation: Operation) -> Outcome:
    """The version is neither in the server nor on disk. Raises: `Failure`; when the server refuses, all stays."""
    operation.deadline.remaining()
    if not is_here(operation):
        if operation.resumed:
            return Outcome()
        return Outcome(phase=Phase.SKIPPED, reason=Reason.NOT_INSTALLED, message="The version is not on this node.")
    operation.say(Phase.REMOVING)
    take_away(operation)
    return Outcome()


def is_here(operation: Operation) -> bool:
    """Whether the version was on disk or loaded when the operation began."""
    return operation.target.exists() or _is_loaded(operation)


def take_away(operation: Operation) -> None:
    """What `remove` promises. Raises: `Failure`; when the server refuses, all stays."""
    deactivate(operation)
    operation.node.folder.drop(operation.command.module_name, operation.command.version)


def deactivate(operation: Operation) -> bool:
    """Whether the version was loaded; it no longer is, nor after a restart. Its files stay. Raises: `Failure`."""
    operation.commit()
    _unload(operation)
    # First the line, then the files: a server whose configuration loads a missing file does not start.
    operation.node.include.forget(operation.server_target)
    operation.node.folder.clear_replaced(operation.command.module_name, operation.command.version)
    return _is_loaded(operation)


def _is_loaded(operation: Operation) -> bool:
    return any(operation.is_at_target(each) for each in (operation.facts.modules if operation.facts else ()))


def _unload(operation: Operation) -> None:
    """The line leaves first and comes back when the server refuses.

    With data types it stays until the server has unloaded the module, which proves that there are none: whatever dies
    in between, the server starts with its data.
    """
    seconds = operation.deadline.step("Unloading", UNLOAD_SECONDS).remaining()
    line = nullcontext() if operation.command.has_types else operation.node.include.parked(operation.server_target)
    with operation.node.server.session(seconds) as session, line:
        for loaded in session.modules():
            if operation.is_at_target(loaded):
                with told_as_crash(operation):
                    unload(session, loaded)
