"""Removes a version: unload it, delete its line, delete its files. Repeated after a crash, it finishes the rest."""

from contextlib import nullcontext

from rollout.agent.operations.activate import reported_as_crash
from rollout.agent.operations.last_check import refuse_to_change
from rollout.agent.operations.operation import UNLOAD_SECONDS, Operation, Outcome
from rollout.agent.server.causes import refuse_if_named_in_acl
from rollout.agent.server.swap import unload
from rollout.messages import Phase, Reason


def remove(operation: Operation) -> Outcome:
    """Remove the version from the server and from the disk. Raises: `Failure`. If the server refuses, nothing is changed."""
    operation.deadline.remaining()
    if not is_here(operation):
        if operation.resumed:
            return Outcome()
        return Outcome(phase=Phase.SKIPPED, reason=Reason.NOT_INSTALLED, message="The version is not on this node.")
    operation.report(Phase.REMOVING)
    take_away(operation)
    return Outcome()


def is_here(operation: Operation) -> bool:
    """Return True if the version was on disk or loaded when the operation began."""
    return operation.target.exists() or _is_loaded(operation)


def take_away(operation: Operation) -> None:
    """Remove the version as `remove` does. Raises: `Failure`. If the server refuses, nothing is changed."""
    deactivate(operation)
    operation.node.module_store.drop(operation.command.module_name, operation.command.version)


def deactivate(operation: Operation) -> bool:
    """Unload the version, also for the next start. Its files stay. Return True if it was loaded. Raises: `Failure`."""
    operation.commit()
    _unload(operation)
    # First the line, then the files: a server whose configuration loads a missing file does not start.
    operation.node.include.forget(operation.server_target)
    operation.node.module_store.clear_replaced(operation.command.module_name, operation.command.version)
    return _is_loaded(operation)


def _is_loaded(operation: Operation) -> bool:
    return any(operation.is_at_target(each) for each in (operation.facts.modules if operation.facts else ()))


def _unload(operation: Operation) -> None:
    """Unload the version. Its line is parked before, and restored if the server refuses.

    The line of a module that declares data types stays until the server has unloaded the module, which proves that it has
    none: after any crash in between, the server starts with its data.
    """
    seconds = operation.deadline.step("Unloading", UNLOAD_SECONDS).remaining()
    line = nullcontext() if operation.command.has_types else operation.node.include.parked(operation.server_target)
    with operation.node.server.session(seconds) as session:
        present = [each for each in session.modules() if operation.is_at_target(each)]
        if present:
            refuse_to_change(operation.node, operation.command, session)  # before the line is parked
        with line:
            for loaded in present:
                operation.server_log.mark(session)
                with reported_as_crash(operation):
                    refuse_if_named_in_acl(session, loaded)
                    refuse_to_change(operation.node, operation.command, session)
                    unload(session, loaded)
