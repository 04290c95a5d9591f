"""Installs a version: fetch, verify, put in place, load, probe. A failed or canceled installation is undone.

A rollback then removes the version that it undoes.
"""

from dataclasses import replace

from rollout.agent.failure import Failure, as_failure
from rollout.agent.module_files.fetch import fetch
from rollout.agent.module_files.unpack import check_manifest, unpack
from rollout.agent.operations.activate import Activated, activate, refuse_foreign
from rollout.agent.operations.last_check import refuse_unless_it_repairs
from rollout.agent.operations.operation import FETCH_SECONDS, VERIFY_SECONDS, Operation, Outcome
from rollout.agent.operations.remove import deactivate, is_here, is_loaded, take_away
from rollout.agent.operations.restart import restart
from rollout.agent.operations.undo import undone
from rollout.agent.server.causes import refusal
from rollout.agent.server.session import RefusedError
from rollout.messages import Activation, Package, Phase, Reason, Way


def install(operation: Operation, package: Package) -> Outcome:
    """Put the version in place, load and probe it if the command says so, and remove the version that the command undoes.

    Raises: `Failure`. Then the node is as it was before the command, or only the removal failed.
    """
    command = operation.command
    is_loading = command.activation is Activation.LOAD
    done = Activated(has_loaded=False)
    try:
        operation.deadline.remaining()
        check_manifest(package)
        if is_loading and operation.facts:
            refuse_foreign(operation, operation.facts.modules)
        changed = put_in_place(operation, package)
        if is_loading:
            done = restart(operation, package) if command.way is Way.RESTART else activate(operation, package)
            changed |= done.has_loaded
        elif command.undoes is not None:
            operation.report(Phase.REMOVING)
            if not operation.resumed:
                refuse_unless_it_repairs(operation, None)
            if command.undoes == command.version:
                deactivate(operation)
                changed |= is_loaded(operation)
        if operation.former_target:
            operation.commit()
    except RefusedError as error:
        raise undone(operation, refusal(error)) from error
    except (Failure, OSError) as error:
        raise undone(operation, as_failure(error)) from error
    operation.node.settle(command.module_name, command.version)
    if command.undoes is not None and command.undoes != command.version:
        changed |= _take_back(operation, command.undoes)
    if changed or operation.resumed:
        return Outcome(
            swap_seconds=done.swap_seconds,
            message=done.message,
            scratch=done.scratch,
            restart=done.restart,
            way_back=done.way_back,
        )
    return Outcome(phase=Phase.SKIPPED, reason=Reason.ALREADY_INSTALLED, message="The same build is already installed.")


def put_in_place(operation: Operation, package: Package) -> bool:
    """Put the package's content into the version's directory. Return False if it is there already."""
    node, command = operation.node, operation.command
    if node.digests.content_now(operation.target) == package.content_sha256:
        return False
    operation.report(Phase.FETCHING)
    archive = node.module_store.scratch(command.module_name, command.version)
    fetch(package, archive, trust=node.trust, deadline=operation.deadline.step("Fetching", FETCH_SECONDS))
    operation.report(Phase.VERIFYING)
    fresh = node.module_store.scratch(command.module_name, command.version)
    unpack(archive, package, fresh, deadline=operation.deadline.step("Verifying", VERIFY_SECONDS))
    archive.unlink()
    operation.report(Phase.INSTALLING)
    if node.module_store.set_aside(command.module_name, command.version) and operation.former_target:
        # Until the new files have settled, a start of the server loads the former ones.
        node.persistence.redirect(operation.server_target, operation.former_target)
    _mark_replaced(operation)  # not before the files are set aside: an undo that finds them so deletes the mark
    node.module_store.place(fresh, command.module_name, command.version)
    node.digests.learn(operation.target, package.members)
    return True


def _take_back(operation: Operation, version: int) -> bool:
    """Remove that other version. Return False if it is not on the node."""
    # The server has changed by now: the operation cannot be returned any more.
    brought = replace(operation, command=replace(operation.command, version=version, expects=None))
    if not is_here(brought):
        return False
    try:
        operation.commit()
        operation.report(Phase.REMOVING)
        take_away(brought)
    except (Failure, OSError) as error:
        failure = as_failure(error)
        name = f"{operation.command.module_name} {operation.command.version}"
        raise Failure(
            failure.reason, f"{name} is in place, but version {version} could not be removed: {failure.message}"
        ) from error
    return True


def _mark_replaced(operation: Operation) -> None:
    """Mark the version if the server has loaded its files: they are about to be replaced, and its memory then differs."""
    if operation.facts and any(operation.is_current(each, operation.facts.run_id) for each in operation.facts.modules):
        operation.node.module_store.mark_replaced(
            operation.command.module_name, operation.command.version, operation.facts.run_id
        )
