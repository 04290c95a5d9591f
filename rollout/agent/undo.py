"""After a failed or canceled installation: the node as it was before, as far as the server and its data let us.

The line in the include file stays, or is written, where the next start may need the module: it is still loaded and
exports data types, or keys or the AOF may be full of it. docs/adr/0009-swaps-and-lines.md has a table of all cases.
"""

import logging
from dataclasses import replace
from pathlib import PurePosixPath

from rollout.agent.failure import CanceledError, Failure, as_failure
from rollout.agent.node import observe
from rollout.agent.operation import Operation
from rollout.agent.server import LoadedModule, RefusedError, ServerLostError, Session
from rollout.agent.swap import UnloadRefusedError, load, swap, unload
from rollout.messages import Activation, Reason

log = logging.getLogger(__name__)

#: Seconds that a supervisor may take to start a server that crashed, and that each call of the undoing may take.
COMES_BACK_SECONDS = 5.0
UNDO_SECONDS = 30.0


class _DataNeedsItError(Failure):
    def __init__(self, words: str) -> None:
        super().__init__(Reason.UNLOAD_REFUSED, f"{words} Its line stays, so that the server starts with its data.")


def undone(operation: Operation, failure: Failure) -> Failure:
    """`failure`, once the node was put back; its message also says what could not be, which no cancel is any more."""
    try:
        _undo(operation, failure)
    except (Failure, RefusedError, OSError) as problem:
        reason = _reason(problem) if isinstance(failure, CanceledError) else failure.reason
        return Failure(reason, f"{failure.message} The node could not be put back entirely: {problem}")
    return failure


def _reason(problem: Failure | RefusedError | OSError) -> Reason:
    return Reason.SERVER_UNREACHABLE if isinstance(problem, RefusedError) else as_failure(problem).reason


def _undo(operation: Operation, failure: Failure) -> None:
    if operation.command.activation is Activation.FILES:
        _put_files_back(operation)
        return
    if failure.reason is Reason.SERVER_UNREACHABLE:
        _put_files_back_unasked(operation)
        return
    if failure.reason is Reason.SERVER_CRASHED and not operation.node.server.comes_back(COMES_BACK_SECONDS):
        _put_files_back_unasked(operation)
        raise Failure(Reason.SERVER_CRASHED, f"the server is not back after {COMES_BACK_SECONDS:g} s: start it.")
    try:
        with operation.node.server.session(UNDO_SECONDS) as session:
            _put_server_back(operation, session, failure)
    except (UnloadRefusedError, _DataNeedsItError):
        raise  # the files stay beneath what is loaded
    except (Failure, RefusedError):
        _put_files_back_unasked(operation)
        raise
    _put_files_back(operation)


def _put_server_back(operation: Operation, session: Session, failure: Failure) -> None:
    """The server has what it had loaded before, from where the files are now."""
    facts = observe(session)
    news = [each for each in facts.modules if operation.is_new(each, facts.run_id)]
    former = operation.before.loaded and replace(
        operation.before.loaded, path=operation.path_now(operation.before.loaded)
    )
    if news:
        _refuse_if_aof_needs(operation, session, news, failure)
    try:
        if former and not any(each.name == former.name and each not in news for each in facts.modules):
            if news:
                swap(session, news[0], former, back=news[0])
            else:
                load(session, former)
            news = news[1:]
        for each in news:
            unload(session, each)
    except UnloadRefusedError as refused:
        if refused.exports_types:
            _keep_line(operation, session, news[0], failure)
        raise
    except ServerLostError as error:
        raise Failure(Reason.SERVER_CRASHED, "the server went away while it was put back.") from error


def _keep_line(operation: Operation, session: Session, loaded: LoadedModule, failure: Failure) -> None:
    """What cannot leave gets its line: from now on there may be keys of its types.

    Not if it has taken the server down, and there is no key at all: the next start is to be without it.
    """
    operation.write_line(loaded)
    if failure.reason is not Reason.SERVER_CRASHED or session.has_keys():
        return
    _put_line_back(operation)
    if session.has_keys():  # made in between
        operation.write_line(loaded)


def _refuse_if_aof_needs(operation: Operation, session: Session, news: list[LoadedModule], failure: Failure) -> None:
    """Raises: `Failure` when a start may find commands in the AOF that only the new version has."""
    if not session.writes_aof():
        return
    writes = {name for each in news for name in session.write_commands_of(each.name)} - set(operation.before.commands)
    # The counts begin anew with the server: what was called before is not known.
    is_counted = failure.reason is not Reason.SERVER_CRASHED and not operation.resumed
    if called := sorted(session.called(writes) if is_counted else writes):
        operation.write_line(news[0])
        raise _DataNeedsItError(
            f"the AOF may contain {', '.join(called)}: {news[0].name} {news[0].version} stays loaded until "
            "BGREWRITEAOF has succeeded and the module is removed."
        )


def _put_files_back_unasked(operation: Operation) -> None:
    """Likewise, of a server that does not answer. Raises: `Failure` when its data may need what was brought."""
    former = operation.before.loaded
    is_written = operation.node.include.names(operation.server_target) and not (
        former and operation.is_at_target(former)
    )
    if is_written:
        raise _DataNeedsItError(f"whether the server's data needs {operation.command.module_name} is not known.")
    _put_files_back(operation)


def _put_files_back(operation: Operation) -> None:
    node, command = operation.node, operation.command
    is_replaced = node.folder.put_back(command.module_name, command.version)
    _put_line_back(operation)
    if is_replaced:
        _load_from_target(operation)
        node.settle(command.module_name, command.version)
    elif not operation.before.content_sha256:
        node.folder.drop(command.module_name, command.version)
    node.folder.sweep(command.module_name)


def _put_line_back(operation: Operation) -> None:
    """First the line, as in a removal: a server whose configuration loads a missing file does not start."""
    former = operation.before.loaded
    if former is None:
        operation.node.include.forget(operation.server_target)
    else:
        operation.node.include.restore(operation.server_target.parent, PurePosixPath(former.path), former.args)


def _load_from_target(operation: Operation) -> None:
    """A server that has loaded the former files from where they were set aside has them from their place again."""
    former, aside = operation.before.loaded, operation.former_target
    if former is None or aside is None or operation.command.activation is Activation.FILES:
        return
    try:
        with operation.node.server.session(UNDO_SECONDS) as session:
            for loaded in session.modules():
                if PurePosixPath(loaded.path).is_relative_to(aside):
                    swap(session, loaded, former, back=loaded)
    except (Failure, RefusedError) as error:
        log.warning("%s %s stays loaded from a folder that is gone: %s", former.name, former.version, error)
