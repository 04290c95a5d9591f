"""A node whose configuration a person or a tool owns: wait until its server has loaded, or no longer loads, the version.

The agent sends the server no command that changes it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from rollout.agent.failure import CanceledError, Failure
from rollout.agent.module_files.include import load_line
from rollout.agent.operations.operation import Operation
from rollout.agent.server.facts import ServerFacts, observe
from rollout.agent.server.session import LoadedModule, RefusedError
from rollout.messages import Reason

#: Seconds between two looks at the server.
POLL_SECONDS = 1.0


def wait_for_load(operation: Operation, module: LoadedModule) -> ServerFacts:
    """Wait until the server has loaded `module`, and return its state then.

    Raises: `Failure` (external_configuration) at the deadline of the operation. The files stay: the line may be on its way.
    """

    def is_loaded(facts: ServerFacts) -> bool:
        return any(operation.is_current(each, facts.run_id) and each.args == module.args for each in facts.modules)

    line = load_line(module.path, module.args)
    former = [each for each in _lines_below(operation, operation.server_target.parent) if each != line]
    if former:
        needed = f"Replace the line `{former[0]}` of the server's configuration by `{line}`, and restart the server."
    elif _lines_below(operation, operation.server_target.parent):
        needed = f"The server's configuration has the line `{line}`. Restart the server."
    else:
        needed = f"Add the line `{line}` to the server's configuration, and restart the server."
    with _shown(operation, needed):
        return _wait(operation, is_loaded, needed)


def wait_for_unload(operation: Operation) -> None:
    """Wait until the server has not loaded the version, and no line that is known names its files.

    Raises: `Failure` (external_configuration) at the deadline of the operation.
    """

    def is_away(facts: ServerFacts) -> bool:
        return not any(operation.is_at_target(each) for each in facts.modules) and not _lines_below(
            operation, operation.server_target
        )

    lines = _lines_below(operation, operation.server_target)
    what = f"the line `{lines[0]}`" if lines else f"the `loadmodule` line of {operation.server_target}"
    needed = f"Remove {what} from the server's configuration, and restart the server."
    with _shown(operation, needed):
        _wait(operation, is_away, needed)


def wait_for_restart(operation: Operation, run_id: str) -> None:
    """Wait until another process than `run_id` serves. Raises: `Failure` (restart_required) at the deadline of the operation."""
    name = f"{operation.command.module_name} {operation.command.version}"
    needed = f"Restart the server: its configuration loads {name} at the next start."
    with _shown(operation, needed, Reason.RESTART_REQUIRED):
        try:
            _wait(operation, lambda facts: facts.run_id != run_id, needed)
        except CanceledError:
            raise
        except Failure as failure:
            raise Failure(Reason.RESTART_REQUIRED, f"The server was not restarted in time. {needed}") from failure


def wait_for_line(operation: Operation, is_done: Callable[[ServerFacts], bool], needed: str) -> ServerFacts:
    """Wait until `is_done`, and return the state of the server then. `needed`: what a person must do.

    Raises: `Failure` (external_configuration) at the deadline of the operation.
    """
    with _shown(operation, needed):
        return _wait(operation, is_done, needed)


@contextmanager
def _shown(operation: Operation, needed: str, reason: Reason = Reason.EXTERNAL_CONFIGURATION) -> Iterator[None]:
    """Show what a person must do in a report and in each heartbeat, until it is done or the operation is canceled."""
    todo, name = operation.node.todo, operation.command.module_name
    todo[name] = needed
    operation.note(reason, needed)
    try:
        yield
    except Failure as failure:
        if isinstance(failure, CanceledError) or reason is Reason.RESTART_REQUIRED:
            todo.pop(name, None)
        raise
    todo.pop(name, None)


def _wait(operation: Operation, is_done: Callable[[ServerFacts], bool], needed: str) -> ServerFacts:
    while True:
        try:
            with operation.node.server.session() as session:
                facts = observe(session)
            if is_done(facts):
                return facts
        except (Failure, RefusedError):
            pass  # it is being restarted
        try:
            operation.pause(min(POLL_SECONDS, operation.deadline.remaining()))
            operation.deadline.remaining()
        except CanceledError:
            raise
        except Failure as failure:
            raise Failure(
                Reason.EXTERNAL_CONFIGURATION, f"The server's configuration has another owner. {needed}"
            ) from failure


def _lines_below(operation: Operation, directory: PurePosixPath) -> list[str]:
    start = operation.node.persistence.read()
    return [load_line(each.path, each.args) for each in start.lines if each.is_below(directory)]
