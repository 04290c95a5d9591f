"""Undoes a failed or canceled installation: restores the node as far as the server and its data allow.

The line in the include file stays, or is written, if the next start may need the module: it is still loaded and exports
data types, or keys or the AOF may depend on it. docs/adr/0009-swaps-and-lines.md has a table of all cases.
"""

import logging
from dataclasses import replace
from pathlib import PurePosixPath

from rollout.agent.failure import CanceledError, Failure, MustWaitError, SkippedError, as_failure
from rollout.agent.operations.activate import restore_options
from rollout.agent.operations.operation import Operation
from rollout.agent.operations.restart import take_back
from rollout.agent.server.causes import UnloadRefusedError, refuse_if_named_in_acl
from rollout.agent.server.facts import observe
from rollout.agent.server.session import (
    LoadedModule,
    RefusedError,
    ServerLoadingError,
    ServerLostError,
    ServerSilentError,
    Session,
)
from rollout.agent.server.swap import load, not_unloaded, swap, unload
from rollout.messages import Activation, Reason, Way

log = logging.getLogger(__name__)

#: Seconds that a supervisor may take to start a crashed server, and that each call of the undo may take.
COMES_BACK_SECONDS = 5.0
UNDO_SECONDS = 30.0


class _StaysLoadedError(Failure):
    """The new module stays loaded, so its files stay."""


class _DataNeedsItError(_StaysLoadedError):
    def __init__(self, words: str) -> None:
        super().__init__(Reason.UNLOAD_REFUSED, f"{words} Its line stays, so that the server starts with its data.")


def undone(operation: Operation, failure: Failure) -> Failure:
    """Restore the node and return `failure`, with what runs now if the server was restarted for that.

    If that fails too, the message says so, and a cancel, or an operation that must wait or is skipped, becomes a failure.
    """
    try:
        words = _undo(operation, failure)
    except (Failure, RefusedError, OSError) as problem:
        reason = failure.reason if _has_failed(failure) else _reason(problem)
        return Failure(reason, f"{failure.message} The node could not be restored completely: {problem}")
    failure.message = f"{failure.message} {words}".rstrip()
    return failure


def _reason(problem: Failure | RefusedError | OSError) -> Reason:
    return Reason.SERVER_UNREACHABLE if isinstance(problem, RefusedError) else as_failure(problem).reason


def _undo(operation: Operation, failure: Failure) -> str:
    """Return what `take_back` returns."""
    if operation.command.activation is Activation.FILES:
        _restore_files(operation)
        return ""
    if operation.node.persistence.is_external or operation.command.adopt:  # then the server was not changed
        _restore_files_of_owner(operation, failure)
        return ""
    if operation.command.way is Way.RESTART:
        words = take_back(operation, failure)
        command = operation.command
        operation.node.holds.undo(command.rollout, command.module_name, command.version)
        _restore_files(operation)
        return words
    # A server that must not be changed now has only what it had before, unless an agent has crashed after a load.
    is_untouched = isinstance(failure, MustWaitError) and not operation.resumed
    if is_untouched or failure.reason is Reason.SERVER_UNREACHABLE:
        _restore_files_without_server(operation)
        return ""
    if failure.reason is Reason.SERVER_CRASHED and not operation.node.server.comes_back(COMES_BACK_SECONDS):
        _restore_files_without_server(operation)
        raise Failure(
            Reason.SERVER_CRASHED, f"the server was not running again after {COMES_BACK_SECONDS:g} s. Start it."
        )
    try:
        with operation.node.server.session(UNDO_SECONDS) as session:
            _restore_server(operation, session, failure)
    except (UnloadRefusedError, _StaysLoadedError):
        raise  # the files stay: they are loaded
    except (Failure, RefusedError):
        _restore_files_without_server(operation)
        raise
    _restore_files(operation)
    return ""


def _restore_server(operation: Operation, session: Session, failure: Failure) -> None:
    """Make the server load the modules it had before, from where their files are now."""
    facts = observe(session)
    news = [each for each in facts.modules if operation.is_new(each, facts.run_id)]
    former = operation.before.loaded and replace(
        operation.before.loaded, path=operation.path_now(operation.before.loaded)
    )
    if news:
        _refuse_if_aof_needs(operation, session, news, failure)
        _refuse_if_acl_names(operation, session, news, failure)
    try:
        if former and not any(each.name == former.name and each not in news for each in facts.modules):
            if news:
                swap(session, news[0], former, back=news[0])
            else:
                load(session, former)
            restore_options(operation, session)
            news = news[1:]
        for each in news:
            _unload(operation, session, each)
    except UnloadRefusedError as refused:
        if refused.exports_types:
            _keep_line(operation, session, news[0], failure)
        raise
    except ServerLostError as error:
        raise Failure(Reason.SERVER_CRASHED, "the server crashed while it was being restored.") from error


def _unload(operation: Operation, session: Session, loaded: LoadedModule) -> None:
    """Unload the module. If a write command was called since `_refuse_if_aof_needs` has looked, load it again and keep it."""
    writes = _new_writes(operation, session, [loaded]) if session.writes_aof() else set()
    if not writes:
        unload(session, loaded)
        return
    try:
        calls, refused = session.unload_and_count(loaded.name)
    except RefusedError as error:
        raise not_unloaded(loaded, error) from error
    if refused:
        raise not_unloaded(loaded, refused) from refused
    if called := sorted(each for each in writes if calls.get(each.lower())):
        load(session, loaded)
        operation.write_line(loaded)
        raise _aof_needs(loaded, called)


def _keep_line(operation: Operation, session: Session, loaded: LoadedModule, failure: Failure) -> None:
    """Write the line of a module that cannot be unloaded: from now on there may be keys of its types.

    But not if it has crashed the server and there are no keys at all: then the next start must not load it. In its own file,
    the server writes the line of each module that it has loaded, so that line stays.
    """
    operation.write_line(loaded)
    is_own = operation.node.persistence.is_in_include(operation.server_target)
    if failure.reason is not Reason.SERVER_CRASHED or not is_own or session.has_keys():
        return
    _restore_line(operation)
    if session.has_keys():  # created in between
        operation.write_line(loaded)


def _refuse_if_aof_needs(operation: Operation, session: Session, news: list[LoadedModule], failure: Failure) -> None:
    """Raises: `Failure` if the AOF may contain commands that only the new version has."""
    if not session.writes_aof():
        return
    writes = _new_writes(operation, session, news)
    # The counts start at zero with the server: earlier calls are not known.
    has_restarted = failure.reason is Reason.SERVER_CRASHED or bool(operation.watch.restarts)
    is_counted = operation.watch.loads and not has_restarted and not operation.resumed
    if called := sorted(session.called(writes, loads=operation.watch.loads) if is_counted else writes):
        operation.write_line(news[0])
        raise _aof_needs(news[0], called)


def _new_writes(operation: Operation, session: Session, news: list[LoadedModule]) -> set[str]:
    """Return the write commands that only the new version has."""
    return {name for each in news for name in session.write_commands_of(each.name)} - set(operation.before.commands)


def _aof_needs(loaded: LoadedModule, called: list[str]) -> Failure:
    return _DataNeedsItError(
        f"the AOF may contain {', '.join(called)}: {loaded.name} {loaded.version} stays loaded until BGREWRITEAOF has "
        "succeeded and the module is removed."
    )


def _refuse_if_acl_names(operation: Operation, session: Session, news: list[LoadedModule], failure: Failure) -> None:
    """Raises: `Failure` if ACL rules name commands that only the new version has, or may do so.

    The line is treated as if the server had refused the unload.
    """
    user, keeps = operation.node.settings.server_user, operation.before.commands
    for each in news:
        try:
            refuse_if_named_in_acl(session, each, user=user, keeps=keeps)
        except Failure as found:
            _keep_line(operation, session, each, failure)
            words = f"{each.name} {each.version} stays loaded. {found.message}"
            raise _StaysLoadedError(found.reason, words) from found


def _restore_files_without_server(operation: Operation) -> None:
    """Restore the files while the server does not answer. Raises: `Failure` if its data may need the new version."""
    former = operation.before.loaded
    is_written = operation.node.persistence.names(operation.server_target) and not (
        former and operation.is_at_target(former)
    )
    if is_written:
        raise _DataNeedsItError(f"it is not known if the server's data needs {operation.command.module_name}.")
    _restore_files(operation)


def _restore_files_of_owner(operation: Operation, failure: Failure) -> None:
    """Restore the files of an operation that has not changed the server.

    New files stay if that owner is still to act, or if the server or a line may need them. Raises: `Failure` if an adoption has
    written its line, which loads the same bytes: a retry does the rest.
    """
    node, command = operation.node, operation.command
    if failure.reason is Reason.EXTERNAL_CONFIGURATION:
        node.settle(command.module_name, command.version)
    elif operation.former_target or not _may_be_used(operation):
        _restore_files(operation)
    elif command.adopt and _has_failed(failure) and node.persistence.names(operation.server_target):
        raise Failure(failure.reason, "the next start of the server loads the module from the module store. Retry.")


def _has_failed(failure: Failure) -> bool:
    return not isinstance(failure, (CanceledError, MustWaitError, SkippedError))


def _may_be_used(operation: Operation) -> bool:
    persistence = operation.node.persistence
    if persistence.read().problem or persistence.names(operation.server_target):
        return True
    try:
        return _is_loaded(operation)
    except Failure:
        return True


def _is_loaded(operation: Operation) -> bool:
    """Raises: `Failure`."""
    return any(operation.is_at_target(each) for each in operation.node.facts().modules)


def _restore_files(operation: Operation) -> None:
    node, command = operation.node, operation.command
    is_replaced = node.module_store.restore(command.module_name, command.version)
    _restore_line(operation)
    if is_replaced:
        _load_from_target(operation)
        node.settle(command.module_name, command.version)
    elif not operation.before.content_sha256 and not _may_be_loaded(operation):
        node.module_store.drop(command.module_name, command.version)
    node.module_store.sweep(command.module_name)


def _may_be_loaded(operation: Operation) -> bool:
    """Return True if the server has loaded the version's files, or if it runs and this is not known. CONFIG REWRITE by
    another hand would write their line, so they must stay."""
    try:
        return _is_loaded(operation)
    except (ServerSilentError, ServerLoadingError):
        return True
    except Failure as failure:
        return failure.reason is not Reason.SERVER_UNREACHABLE


def _restore_line(operation: Operation) -> None:
    """Restore the line before the files, as in a removal: a server that must load a missing file does not start."""
    former = operation.before.loaded
    if former is None:
        operation.node.persistence.forget(operation.server_target)
    else:
        operation.node.persistence.restore(operation.server_target.parent, former)


def _load_from_target(operation: Operation) -> None:
    """If the server has loaded the former files from where they were set aside, load them from their own place."""
    former, aside = operation.before.loaded, operation.former_target
    if former is None or aside is None or operation.command.activation is Activation.FILES:
        return
    try:
        with operation.node.server.session(UNDO_SECONDS) as session:
            for loaded in session.modules():
                if PurePosixPath(loaded.path).is_relative_to(aside):
                    swap(session, loaded, former, back=loaded)
    except (Failure, RefusedError) as error:
        log.warning("%s %s stays loaded from a directory that was removed: %s", former.name, former.version, error)
