"""Removes a version: unload, forget, delete. Repeated after a crash it finishes what is left."""

from rollout.agent.activate import told_as_crash, unload
from rollout.agent.job import UNLOAD_SECONDS, Job, Outcome
from rollout.messages import Phase, Reason


def remove(job: Job) -> Outcome:
    """The version is neither in the server nor on disk. Raises: `Failure`; when the server refuses, all stays."""
    job.deadline.remaining()
    if not _is_here(job):
        if job.resumed:
            return Outcome()
        return Outcome(phase=Phase.SKIPPED, reason=Reason.NOT_INSTALLED, message="The version is not on this node.")
    job.say(Phase.REMOVING)
    job.commit()
    _unload(job)
    # First the line, then the files: a server whose configuration loads a missing file does not start.
    job.node.include.forget(job.server_target)
    job.node.folder.drop(job.command.module_name, job.command.version)
    return Outcome()


def _is_here(job: Job) -> bool:
    modules = job.facts.modules if job.facts else ()
    return job.target.exists() or any(job.is_at_target(each) for each in modules)


def _unload(job: Job) -> None:
    seconds = job.deadline.step("Unloading", UNLOAD_SECONDS).remaining()
    with job.node.server.session(seconds) as session:
        for loaded in session.modules():
            if job.is_at_target(loaded):
                with told_as_crash(job):
                    unload(session, loaded)
