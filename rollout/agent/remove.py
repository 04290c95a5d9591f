"""Removes a version: unload, forget, delete. Repeated after a crash it finishes what is left."""

from contextlib import nullcontext

from rollout.agent.activate import told_as_crash
from rollout.agent.job import UNLOAD_SECONDS, Job, Outcome
from rollout.agent.swap import unload
from rollout.messages import Phase, Reason


def remove(job: Job) -> Outcome:
    """The version is neither in the server nor on disk. Raises: `Failure`; when the server refuses, all stays."""
    job.deadline.remaining()
    if not is_here(job):
        if job.resumed:
            return Outcome()
        return Outcome(phase=Phase.SKIPPED, reason=Reason.NOT_INSTALLED, message="The version is not on this node.")
    job.say(Phase.REMOVING)
    take_away(job)
    return Outcome()


def is_here(job: Job) -> bool:
    """Whether the version was on disk or loaded when the job began."""
    return job.target.exists() or _is_loaded(job)


def take_away(job: Job) -> None:
    """What `remove` promises. Raises: `Failure`; when the server refuses, all stays."""
    deactivate(job)
    job.node.folder.drop(job.command.module_name, job.command.version)


def deactivate(job: Job) -> bool:
    """Whether the version was loaded; it no longer is, nor after a restart. Its files stay. Raises: `Failure`."""
    job.commit()
    _unload(job)
    # First the line, then the files: a server whose configuration loads a missing file does not start.
    job.node.include.forget(job.server_target)
    job.node.folder.clear_replaced(job.command.module_name, job.command.version)
    return _is_loaded(job)


def _is_loaded(job: Job) -> bool:
    return any(job.is_at_target(each) for each in (job.facts.modules if job.facts else ()))


def _unload(job: Job) -> None:
    """The line leaves first and comes back when the server refuses.

    With data types it stays until the server has unloaded the module, which proves that there are none: whatever dies
    in between, the server starts with its data.
    """
    seconds = job.deadline.step("Unloading", UNLOAD_SECONDS).remaining()
    line = nullcontext() if job.command.has_types else job.node.include.parked(job.server_target)
    with job.node.server.session(seconds) as session, line:
        for loaded in session.modules():
            if job.is_at_target(loaded):
                with told_as_crash(job):
                    unload(session, loaded)
