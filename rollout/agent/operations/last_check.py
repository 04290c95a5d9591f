"""The agent's last check, directly before it changes the server: is the server still what the control plane released?"""

from rollout.agent.failure import Failure, MustWaitError
from rollout.agent.node.node import Node
from rollout.agent.node.start_checks import ModuleLine, start_after
from rollout.agent.operations.operation import UNLOAD_SECONDS, Operation
from rollout.agent.scratch.start import StartResult
from rollout.agent.server.session import LoadedModule, ServerLoadingError, ServerLostError, ServerSilentError, Session
from rollout.messages import Command, Reason, WouldStart
from rollout.readiness import what_changed, why_not_ready


def refuse_to_change(node: Node, command: Command, session: Session) -> None:
    """Raises: `MustWaitError` if the server's place in its shard has changed since the release, or if it is not ready.

    A command that expects nothing is of an older control plane, which takes no operation back: nothing is checked.
    """
    if command.expects is None:
        return
    try:
        state = node.observer.readiness(session)
    except ServerLoadingError as error:
        raise MustWaitError(Reason.SERVER_NOT_READY, error.message) from error
    except (ServerLostError, ServerSilentError) as error:
        # Nothing was changed yet: whatever ended the connection, it was not the module.
        raise Failure(error.reason, error.message) from error
    if state.replication and (words := what_changed(command.expects, state.replication)):
        raise MustWaitError(Reason.ROLE_CHANGED, words)
    if wait := why_not_ready(state):
        raise MustWaitError(*wait)


def refuse_unless_it_repairs(operation: Operation, module: LoadedModule | None) -> None:
    """Raises: `MustWaitError` if the server would not start again, and is not known to start after this change either.

    `module`: what a start loads after the change, None if it loads no version of the module. The files are in place.
    """
    if not operation.node.would_not_start:
        return
    found = start_with(operation, module)
    if found.result is WouldStart.YES:
        operation.watch.repaired_start = found
        return
    after = "would not start" if found.result is WouldStart.NO else "is not known to start"
    raise MustWaitError(
        Reason.SERVER_NOT_READY,
        f"The server would not start again, and it {after} after this change either: {found.reason} Correct the server's "
        "configuration, or first remove or roll back the module that stops the start.",
    )


def start_with(operation: Operation, module: LoadedModule | None) -> StartResult:
    """Return if a start of the server with `module` would succeed, as a scratch server shows it."""
    seconds = operation.deadline.step("Reading the server's state", UNLOAD_SECONDS).remaining()
    with operation.node.server.session(seconds) as session:
        info, modules = session.info("server"), session.modules()
    found = start_after(operation.node.settings, info, modules, _line_after(operation, module))
    operation.deadline.remaining()
    return found


def _line_after(operation: Operation, module: LoadedModule | None) -> ModuleLine:
    node, directory = operation.node, operation.server_target.parent
    return ModuleLine(
        directory=directory,
        module=module,
        include=str(node.settings.include_file or node.module_store.server_root / "modfleet.conf"),
        order=tuple(directory.parent / name for name in operation.command.load_order),
    )
