"""Installs a version: fetch, verify, put in place, load, probe. What fails or is canceled is undone.

A rollback then takes away what it undoes.
"""

from dataclasses import replace

from rollout.agent.activate import activate, refuse_foreign
from rollout.agent.failure import Failure, as_failure
from rollout.agent.fetch import fetch
from rollout.agent.job import FETCH_SECONDS, VERIFY_SECONDS, Job, Outcome
from rollout.agent.remove import deactivate, is_here, take_away
from rollout.agent.undo import undone
from rollout.agent.unpack import check_manifest, unpack
from rollout.messages import Activation, Package, Phase, Reason


def install(job: Job, package: Package) -> Outcome:
    """The version is in place, and loaded and probed if the command says so; what the command undoes is gone.

    Raises: `Failure`. The node was put back to what it was before the command, or only what it undoes is still there.
    """
    command = job.command
    is_loading = command.activation is Activation.LOAD
    swap_seconds = None
    try:
        job.deadline.remaining()
        check_manifest(package)
        if is_loading and job.facts:
            refuse_foreign(job, job.facts.modules)
        changed = _put_in_place(job, package)
        if is_loading:
            activated = activate(job, package)
            changed |= activated.has_loaded
            swap_seconds = activated.swap_seconds
        elif command.undoes == command.version:
            job.say(Phase.REMOVING)
            changed |= deactivate(job)
        if job.former_target:
            job.commit()
    except (Failure, OSError) as error:
        raise undone(job, as_failure(error)) from error
    job.node.settle(command.module_name, command.version)
    if command.undoes is not None and command.undoes != command.version:
        changed |= _take_back(job, command.undoes)
    if changed or job.resumed:
        return Outcome(swap_seconds=swap_seconds)
    return Outcome(phase=Phase.SKIPPED, reason=Reason.ALREADY_INSTALLED, message="The same build is installed already.")


def _put_in_place(job: Job, package: Package) -> bool:
    """Whether anything had to be changed for the version's folder to hold the package's content."""
    node, command = job.node, job.command
    if node.digests.content_now(job.target) == package.content_sha256:
        return False
    job.say(Phase.FETCHING)
    archive = node.folder.scratch(command.module_name, command.version)
    fetch(package, archive, settings=node.settings, deadline=job.deadline.step("Fetching", FETCH_SECONDS))
    job.say(Phase.VERIFYING)
    fresh = node.folder.scratch(command.module_name, command.version)
    unpack(archive, package, fresh, deadline=job.deadline.step("Verifying", VERIFY_SECONDS))
    archive.unlink()
    job.say(Phase.INSTALLING)
    _mark_replaced(job)
    if node.folder.set_aside(command.module_name, command.version) and job.former_target:
        # Until the new files have settled, a start of the server loads the former ones.
        node.include.redirect(job.server_target, job.former_target)
    node.folder.place(fresh, command.module_name, command.version)
    node.digests.learn(job.target, package.members)
    return True


def _take_back(job: Job, version: int) -> bool:
    """Whether that other version was here; now it is gone."""
    brought = replace(job, command=replace(job.command, version=version))
    if not is_here(brought):
        return False
    try:
        job.commit()
        job.say(Phase.REMOVING)
        take_away(brought)
    except (Failure, OSError) as error:
        failure = as_failure(error)
        name = f"{job.command.module_name} {job.command.version}"
        raise Failure(
            failure.reason, f"{name} is in place, but version {version} could not be removed: {failure.message}"
        ) from error
    return True


def _mark_replaced(job: Job) -> None:
    """Files that a server has loaded are about to be replaced: its memory then differs from the disk."""
    if job.facts and any(job.is_current(each, job.facts.run_id) for each in job.facts.modules):
        job.node.folder.mark_replaced(job.command.module_name, job.command.version, job.facts.run_id)
