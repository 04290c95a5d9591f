"""Loads or unloads a version by a restart: for modules with data types, and for servers that refuse MODULE LOAD.

First all that can be checked, then the line, then the restart. From the first step that a client could notice, a file in the
journal's directory says so: an agent that is killed goes on from there. docs/adr/0019-restarts.md says why.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from rollout.agent.failover import failover
from rollout.agent.failover.shard import FailoverNotPossibleError
from rollout.agent.failure import Failure, MustWaitError, SkippedError
from rollout.agent.operations.activate import (
    NOTHING_DONE,
    Activated,
    activate,
    has_loaded,
    module_to_load,
    observed,
    restore_options,
    try_first,
)
from rollout.agent.operations.aof_rewrite import rewrite, writes_to_aof
from rollout.agent.operations.before_restart import Approval, approved, approved_again, refuse_to_end_again
from rollout.agent.operations.external import wait_for_restart
from rollout.agent.operations.full_syncs import SyncLoopError, words_on_sync
from rollout.agent.operations.operation import UNLOAD_SECONDS, Operation, Outcome
from rollout.agent.operations.safe_removal import references, refuse_unsafe
from rollout.agent.operations.way_back import (
    data_to_keep,
    forget_kept,
    keep,
    kept_before,
    kept_file,
    put_back,
    save_own,
    where_kept,
)
from rollout.agent.operations.withhold import withhold
from rollout.agent.restart.held import Held
from rollout.agent.restart.hooks import CommandFailedError, run_command
from rollout.agent.restart.kept_data import Keeper
from rollout.agent.restart.process import RestartFailedError, SlowLoadError, end, start, wait_for_start
from rollout.agent.server.facts import ServerFacts
from rollout.agent.server.session import LoadedModule, RefusedError, ServerLoadingError, ServerSilentError
from rollout.messages import Package, Phase, Reason, Restart

#: A Sentinel that lets the server rewrite its file just before it ends writes the former line again. So often it is switched.
MOST_RESTARTS = 2
POLL_SECONDS = 0.2

Done = TypeVar("Done")


class StillLoadingError(Failure):
    """The server reads its data with the new version, and must not be restarted again."""


def restart(operation: Operation, package: Package) -> Activated:
    """Restart the server with the version, unless it has loaded it, then probe it and let it settle.

    Raises: `Failure`. Then `undo` restores the node.
    """
    node, module = operation.node, module_to_load(operation, package)
    if node.persistence.is_external:  # its owner writes the line, and restarts the server
        withhold(operation, module)
        return activate(operation, package)
    held, done = node.maintenance.held.of(operation.command), NOTHING_DONE
    if held is None:
        facts = observed(operation)
        if has_loaded(operation, facts, module):
            return activate(operation, package)
        operation.report(Phase.LOADING)
        done = replace(done, scratch=try_first(operation, package, module, facts))
        held = _held(operation, approved(operation, module))
    done = replace(done, has_loaded=True, restart=_restart_with(operation, module, held))
    if operation.before.loaded:
        done = replace(done, message=_patiently(operation, partial(_restored_options, operation)))
    done = _patiently(operation, partial(activate, operation, package, done))
    forget_kept(operation)
    # Not before the way back was tried: that asks which files the server had.
    node.module_store.clear_replaced(operation.command.module_name, operation.command.version)
    if words := words_on_sync(operation):
        operation.watch.remarks.append(words)
    if problem := node.maintenance.end():
        operation.watch.remarks.append(problem)
    return done


def _restored_options(operation: Operation) -> str:
    with operation.node.server.session() as session:
        return restore_options(operation, session)


def _patiently(operation: Operation, step: Callable[[], Done]) -> Done:
    """Do the step after the restart. Do it again if the server reads the data of its master meanwhile: it answers few commands."""
    while True:
        try:
            return step()
        except (MustWaitError, ServerLoadingError) as error:
            held = operation.node.maintenance.held.of(operation.command)
            if held is None or error.reason not in {Reason.SERVER_NOT_READY, Reason.SERVER_UNREACHABLE}:
                raise
            try:
                with operation.deadline.stopped():
                    _wait_for_start(operation, held.run_id, failed_starts=0)
            except RestartFailedError as problem:
                raise _failed(operation, problem) from problem
            operation.pause(POLL_SECONDS)
            operation.deadline.remaining()


def restart_without(operation: Operation, loaded: LoadedModule | None) -> Outcome:
    """Restart the server without the version. `loaded`: as the server has it now.

    Raises: `Failure`. Then `undo` restores the node.
    """
    node, words = operation.node, ""
    held = node.maintenance.held.of(operation.command)
    if held is None and loaded:
        seconds = operation.deadline.step("Checking the module's use", UNLOAD_SECONDS).remaining()
        with node.server.session(seconds) as session:
            refuse_unsafe(operation, loaded)
            if writes_to_aof(session, loaded):
                rewrite(operation, session)
                refuse_unsafe(operation, loaded)  # again: the rewrite may have taken minutes
            words = references(session, loaded)
        held = _held(operation, approved(operation, None))
    if held is None:
        raise Failure(Reason.AGENT_ERROR, "The server has not loaded the version, so it needs no restart.")
    done = _restart_with(operation, None, held)
    return Outcome(message=" ".join(filter(None, (words, node.maintenance.end()))), restart=done)


def take_back(operation: Operation, failure: Failure) -> str:
    """Make the server run what it ran before the operation, with one more restart if it has had the first one.

    Return what runs after that restart, and where data are kept that the operation's version reads, as sentences; empty without
    one. Raises: `Failure` if the new version stays, because the former one does not start or may not read the shard's data, or
    because the server still reads its data.
    """
    node, held = operation.node, operation.node.maintenance.held.of(operation.command)
    if held is None:
        return ""
    if isinstance(failure, SyncLoopError):
        raise Failure(failure.reason, "the server keeps the new version: another restart would cause one more.")
    if isinstance(failure, StillLoadingError):
        raise Failure(failure.reason, "the server keeps the new version, which it still loads.")
    run_id = _run_id(operation)
    has_restarted = held.is_stopped and run_id != held.run_id
    if has_restarted and run_id and operation.command.one_way:
        words = "the server keeps the new version: the former one may not read what the new one has written."
        raise Failure(failure.reason, words)
    if has_restarted and run_id:
        try:
            refuse_to_end_again(operation, held)
        except Failure as refused:
            if refused.reason is not Reason.SERVER_UNREACHABLE or isinstance(refused, ServerSilentError):
                raise
            run_id = ""  # it has ended by itself
    node.module_store.restore(operation.command.module_name, operation.command.version)
    command, directory = operation.command, operation.server_target.parent
    changed = node.persistence.next_load(directory, command.module_name, command.version)
    _switch(operation, operation.before.loaded)
    if has_restarted:
        try:
            _start_again(operation, held, run_id)
        except RestartFailedError as error:
            words = f"the server was restarted as it was before, but {_uncapitalized(error)}"
            words = f"{words} {_stay(operation, held, changed)}"
            if file := kept_file(operation):
                words += f" The data from before are in {file}."
            raise Failure(Reason.RESTART_FAILED, words) from error
    elif held.is_stopped:
        save_own(operation)
    node.maintenance.end()
    return f"{_runs_again(operation)} {where_kept(operation)}".rstrip() if has_restarted else ""


def _runs_again(operation: Operation) -> str:
    former = operation.before.loaded
    return f"Version {former.version} runs again." if former else "The server runs without the module again."


def _held(operation: Operation, approval: Approval) -> Held:
    """Note on disk that the restart begins. Raises: `OSError`."""
    found = approval.supervision
    held = Held.begun(operation.command, run_id=approval.run_id, way=found.way, unit=found.unit)
    operation.node.maintenance.held.write(held)
    return held


def _run_pre_command(operation: Operation, held: Held) -> None:
    """Run the command of the settings before the restart. Raises: `SkippedError`."""
    if words := operation.node.settings.pre_command:
        try:
            run_command(words, operation.node.maintenance.environ(held))
        except CommandFailedError as error:
            raise SkippedError(Reason.PRE_COMMAND_FAILED, f"MODFLEET_PRE_COMMAND: {error}") from error


def _restart_with(operation: Operation, module: LoadedModule | None, held: Held) -> Restart:
    """Restart the server until it has loaded the module, or none of this name if it is None. Raises: `Failure`."""
    operation.report(Phase.RESTARTING)
    if not held.is_stopped:
        if not held.failed_over:
            _run_pre_command(operation, held)  # again, if the agent was killed meanwhile
        held = _give_role_away(operation, held, module)
        if module:
            withhold(operation, module)
    for _ in range(MOST_RESTARTS):
        done = _restart(operation, held, module)
        facts = _patiently(operation, partial(observed, operation))
        if _is_as_meant(operation, facts, module):
            if held.failed_over:
                operation.watch.remarks += (held.failed_over.words, *held.failed_over.remarks)
            return replace(done, failover=operation.watch.failover)
        held = replace(held, run_id=facts.run_id, is_stopped=False)
        refuse_to_end_again(operation, held)
    raise Failure(
        Reason.RESTART_FAILED,
        f"The server was restarted {MOST_RESTARTS} times, and each time not as its line for {_name(operation)} says: another "
        "hand changes its configuration.",
    )


def _is_as_meant(operation: Operation, facts: ServerFacts, module: LoadedModule | None) -> bool:
    if module is None:
        return not any(each.name == operation.command.module_name for each in facts.modules)
    return has_loaded(operation, facts, module)


def _give_role_away(operation: Operation, held: Held, module: LoadedModule | None) -> Held:
    """Make a replica the master, if the server is a master with replicas. Return the file in the journal's directory then.

    Raises: `SkippedError` if that is not possible: the server has its role.
    """
    node, settings, command = operation.node, operation.node.settings, operation.command
    if held.failed_over:
        operation.watch.failover = held.failed_over.as_reported
        refuse_to_end_again(operation, held)
        return held
    if held.failover:  # an agent was killed meanwhile
        done = failover.settle(node.server, settings, held.failover)
        if done is None:
            raise SkippedError(Reason.FAILOVER_NOT_POSSIBLE, "The failover was interrupted, and has been undone.")
    else:
        # Since the first check, a command of the settings has run, or the agent was away.
        candidates = approved_again(operation, module).candidates
        if not candidates:
            return held
        operation.commit()
        _switch(operation, module)
        try:
            done = failover.fail_over(
                node.server,
                settings,
                candidates,
                lambda begun: node.maintenance.held.write(replace(held, failover=begun)),
                command.pause_seconds,
            )
        except FailoverNotPossibleError as error:
            raise SkippedError(error.reason, error.message) from error
    held = replace(held, failed_over=done)
    operation.watch.failover = done.as_reported
    node.maintenance.held.write(held)
    refuse_to_end_again(operation, held)
    return held


def _restart(operation: Operation, held: Held, module: LoadedModule | None) -> Restart:
    """Restart the server once, or finish the restart that a killed agent has begun. Raises: `Failure`."""
    node, settings = operation.node, operation.node.settings
    run_id = _run_id(operation)
    ended = seconds = None
    keeper, has_older_data = Keeper(), False
    try:
        if held.is_stopped and run_id != held.run_id:
            operation.commit()
            keeper = kept_before(operation)
            if not run_id:
                with operation.deadline.stopped():
                    start(settings, held.way, held.unit, node.maintenance.environ(held))
        else:
            _switch(operation, module)
            with node.server.session() as session:
                operation.server_log.mark(session)
                if module:
                    operation.watch.look_before(session, module.name, operation.before.commands)
                    keeper = data_to_keep(operation, session, run_id)
            if held.way == "external":
                wait_for_restart(operation, held.run_id)
            operation.commit()
            node.maintenance.held.write(replace(held, is_stopped=True))
            _is_ending(operation, held.run_id)
            take = partial(keeper.take, ended_now=held.way in {"shutdown", "systemd"})
            if held.way == "external":
                take()
            else:
                with node.server.session() as session:
                    has_older_data = bool(module) and put_back(operation, session)
                ended = time.monotonic()
                with operation.deadline.stopped():
                    environ = node.maintenance.environ(held)
                    end(node.server, settings, held.way, held.unit, environ, saves=not has_older_data, ended=take)
        with operation.deadline.stopped():
            _wait_for_start(operation, held.run_id, failed_starts=0)
            seconds = None if ended is None else time.monotonic() - ended
            keep(operation, keeper)
    except RestartFailedError as error:
        raise _failed(operation, error) from error
    finally:
        keeper.close()
    return Restart(downtime_seconds=seconds)


def _failed(operation: Operation, error: RestartFailedError) -> Failure:
    if isinstance(error, SlowLoadError):
        return StillLoadingError(Reason.RESTART_FAILED, f"The server was restarted for {_name(operation)}. {error}")
    return Failure(Reason.RESTART_FAILED, f"The restart for {_name(operation)} failed. {error}")


def _is_ending(operation: Operation, run_id: str) -> None:
    """Note that the agent ends the process, so that its end is no crash, and a full synchronization after it no loop."""
    operation.node.maintenance.ended.append(run_id)
    operation.node.full_syncs.forget()


def _start_again(operation: Operation, held: Held, run_id: str) -> None:
    """Restart the server as it was before. `run_id`: of the process that runs now, empty if none does.

    A replica does not save: its file is the one that it has saved before the change. A master saves what its clients have
    written since.

    Raises: `RestartFailedError`, `Failure`.
    """
    node, settings = operation.node, operation.node.settings
    environ, failed = node.maintenance.environ(held), operation.server_log.failed_starts()
    if run_id:
        _is_ending(operation, run_id)
        is_replica = node.facts().role == "replica"
        end(node.server, settings, held.way, held.unit, environ, saves=not is_replica)
    else:
        start(settings, held.way, held.unit, environ)
    # One start may have read the configuration before it was switched.
    _wait_for_start(operation, run_id, failed_starts=failed + 1)


def _stay(operation: Operation, held: Held, changed: LoadedModule | None) -> str:
    """Start the server as it has run after the change: its data may need that. Return what came of it, one sentence."""
    node, settings = operation.node, operation.node.settings
    failed = operation.server_log.failed_starts()
    _switch(operation, changed)
    try:
        start(settings, held.way, held.unit, node.maintenance.environ(held))
        _wait_for_start(operation, "", failed_starts=failed + 1)
    except RestartFailedError as error:
        _switch(operation, operation.before.loaded)
        return f"Nor does it start as it was changed: {_uncapitalized(error)}"
    node.maintenance.end()
    return f"So it {f'loads version {changed.version} again' if changed else 'runs without the module again'}."


def _uncapitalized(error: Exception) -> str:
    text = str(error)
    return text[:1].lower() + text[1:]


def _switch(operation: Operation, module: LoadedModule | None) -> None:
    operation.node.persistence.switch(operation.server_target.parent, module, operation.load_order)


def _run_id(operation: Operation) -> str:
    """Return what names the server's process, empty if none answers."""
    try:
        with operation.node.server.session() as session:
            return session.info("server").get("run_id", "")
    except (Failure, RefusedError):
        return ""


def _wait_for_start(operation: Operation, run_id: str, *, failed_starts: int) -> None:
    """Wait for another process than `run_id`. `failed_starts`: so many are in the server's log already."""
    wait_for_start(
        operation.node.server,
        run_id,
        lambda: operation.server_log.failed_starts() > failed_starts,
        partial(operation.note, Reason.SERVER_NOT_READY),
    )
    operation.node.holds.try_to_settle()  # at once: the new process has what its file says


def _name(operation: Operation) -> str:
    return f"{operation.command.module_name} {operation.command.version}"
