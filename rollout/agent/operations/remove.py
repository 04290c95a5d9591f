"""Removes a version: unload it, delete its line, delete its files. Repeated after a crash, it finishes the rest.

An unload that would hurt clients or data is refused before anything is changed.
"""

from contextlib import nullcontext

from rollout.agent.failure import Failure, as_failure
from rollout.agent.operations.activate import refuse_foreign, reported_as_crash
from rollout.agent.operations.aof_rewrite import rewrite, unload_and_rewrite, writes_to_aof
from rollout.agent.operations.external import wait_for_unload
from rollout.agent.operations.last_check import refuse_to_change, refuse_unless_it_repairs
from rollout.agent.operations.operation import UNLOAD_SECONDS, Operation, Outcome
from rollout.agent.operations.restart import restart_without
from rollout.agent.operations.safe_removal import references, refuse_unsafe
from rollout.agent.operations.undo import undone
from rollout.agent.server.causes import refusal
from rollout.agent.server.session import LoadedModule, RefusedError, Session
from rollout.agent.server.swap import unload
from rollout.messages import Phase, Reason, Way


def remove(operation: Operation) -> Outcome:
    """Remove the version from the server and from the disk. The message names what still refers to it.

    Raises: `Failure`. If the server refuses, nothing is changed.
    """
    operation.deadline.remaining()
    refuse_foreign(operation, operation.facts.modules if operation.facts else ())
    if not is_here(operation):
        if operation.resumed:
            return Outcome()
        return Outcome(phase=Phase.SKIPPED, reason=Reason.NOT_INSTALLED, message="The version is not on this node.")
    operation.report(Phase.REMOVING)
    if not operation.resumed:
        refuse_unless_it_repairs(operation, None)
    return take_away(operation)


def is_here(operation: Operation) -> bool:
    """Return True if the version was on disk or loaded when the operation began."""
    return operation.target.exists() or is_loaded(operation)


def is_loaded(operation: Operation) -> bool:
    """Return True if the version was loaded when the operation began."""
    return any(operation.is_at_target(each) for each in (operation.facts.modules if operation.facts else ()))


def take_away(operation: Operation) -> Outcome:
    """Remove the version as `remove` does. Raises: `Failure`. If the server refuses, nothing is changed."""
    try:
        outcome = deactivate(operation)
    except (Failure, RefusedError, OSError) as error:
        if operation.node.maintenance.held.of(operation.command):
            failure = refusal(error) if isinstance(error, RefusedError) else as_failure(error)
            raise undone(operation, failure) from error
        raise
    operation.node.module_store.drop(operation.command.module_name, operation.command.version)
    return outcome


def deactivate(operation: Operation) -> Outcome:
    """Unload the version, also for the next start. Its files stay. The message says what still refers to it.

    Raises: `Failure`.
    """
    if operation.node.persistence.is_external:
        outcome = Outcome(message=_refuse_unsafe_line(operation))
        wait_for_unload(operation)
        operation.commit()
    else:
        outcome = _unload_if_loaded(operation)
    # First the line, then the files: a server whose configuration loads a missing file does not start.
    operation.node.persistence.forget(operation.server_target)
    operation.node.adoptions.forget(operation.command.module_name)
    operation.node.module_store.clear_replaced(operation.command.module_name, operation.command.version)
    return outcome


def _refuse_unsafe_line(operation: Operation) -> str:
    """Check that a start without the module finds no data that need it, before a person removes its line. Return what still
    refers to it, in words."""
    seconds = operation.deadline.step("Unloading", UNLOAD_SECONDS).remaining()
    with operation.node.server.session(seconds) as session:
        loaded = _loaded(operation, session)
        if loaded is None:
            return ""
        refuse_unsafe(operation, loaded)
        if writes_to_aof(session, loaded):
            rewrite(operation, session)
        return references(session, loaded)


def _loaded(operation: Operation, session: Session) -> LoadedModule | None:
    return next((each for each in session.modules() if operation.is_at_target(each)), None)


def _unload_if_loaded(operation: Operation) -> Outcome:
    is_restarting = operation.node.maintenance.held.of(operation.command) is not None
    if is_restarting:  # an agent was killed meanwhile
        return restart_without(operation, None)
    seconds = operation.deadline.step("Unloading", UNLOAD_SECONDS).remaining()
    with operation.node.server.session(seconds) as session:
        loaded = _loaded(operation, session)
        if loaded is None:
            if operation.resumed and operation.node.persistence.names(operation.server_target) and session.writes_aof():
                rewrite(operation, session)  # the agent may have died between the unload and the end of the rewrite
            operation.commit()
            return Outcome()
        if not operation.command.may_unload:
            raise Failure(
                Reason.UNLOAD_REFUSED,
                f"The server has loaded {loaded.name} {loaded.version}, and no person has started this removal. To unload it, "
                "start a rollout.",
            )
        if operation.command.way is Way.LOAD:
            refuse_to_change(operation.node, operation.command, session)
            refuse_unsafe(operation, loaded)
            words = references(session, loaded)
            operation.node.persistence.prepare_removal(operation.server_target.parent)
            _unload(operation, session, loaded)
            return Outcome(message=words)
    return restart_without(operation, loaded)


def _unload(operation: Operation, session: Session, loaded: LoadedModule) -> None:
    """Unload the version. Its line is parked before, and restored if the server refuses.

    A line that the server's data may need stays until the data is known not to need it, so that the server starts after
    any crash in between: the line of a module that may have data types, because only the unload proves that it has none, and
    of a module whose commands may be in the append-only file.
    """
    operation.server_log.mark(session)
    if writes := writes_to_aof(session, loaded):
        with reported_as_crash(operation):
            unload_and_rewrite(operation, session, loaded, writes)
        return
    operation.commit()
    is_parked = operation.has_types is False
    line = operation.node.persistence.parked(operation.server_target) if is_parked else nullcontext()
    with line, reported_as_crash(operation):
        refuse_to_change(operation.node, operation.command, session)
        unload(session, loaded)
