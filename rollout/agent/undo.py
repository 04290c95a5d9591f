"""After a failed or canceled installation: the node as it was before, as far as the server lets us."""

from rollout.agent.activate import unload
from rollout.agent.failure import CanceledError, Failure, as_failure
from rollout.agent.job import Job
from rollout.agent.node import observe
from rollout.agent.server import RefusedError, ServerLostError
from rollout.messages import Activation, Reason

#: Seconds that a supervisor may take to start a server that crashed, and that each call of the undoing may take.
COMES_BACK_SECONDS = 5.0
UNDO_SECONDS = 30.0


def undone(job: Job, failure: Failure) -> Failure:
    """`failure`, once the node was put back; its message also says what could not be, which no cancel is any more."""
    try:
        _undo(job, failure)
    except (Failure, RefusedError, OSError) as problem:
        reason = _reason(problem) if isinstance(failure, CanceledError) else failure.reason
        return Failure(reason, f"{failure.message} The node could not be put back entirely: {problem}")
    return failure


def _reason(problem: Failure | RefusedError | OSError) -> Reason:
    return Reason.SERVER_UNREACHABLE if isinstance(problem, RefusedError) else as_failure(problem).reason


def _undo(job: Job, failure: Failure) -> None:
    if failure.reason is Reason.SERVER_CRASHED:
        # Before a supervisor starts the server again: it is to find the former files.
        _put_files_back(job)
        if not job.node.server.comes_back(COMES_BACK_SECONDS):
            raise Failure(Reason.SERVER_CRASHED, f"the server is not back after {COMES_BACK_SECONDS:g} s: start it.")
    if job.command.activation is Activation.FILES or failure.reason is Reason.SERVER_UNREACHABLE:
        _put_files_back(job)
        return
    try:
        _unload_target(job)
    except Failure as problem:
        if problem.reason is not Reason.UNLOAD_REFUSED:  # else the files stay beneath what is loaded
            _put_files_back(job)
        raise
    _put_files_back(job)
    _load_former(job)


def _put_files_back(job: Job) -> None:
    folder, command = job.node.folder, job.command
    if not folder.put_back(command.module_name, command.version) and not job.before.content_sha256:
        # First the line, as in a removal: an agent that died after it was written may have left it.
        job.node.include.forget(job.server_target)
        folder.drop(command.module_name, command.version)
    folder.sweep(command.module_name)


def _unload_target(job: Job) -> None:
    """What the operation loaded is unloaded; a version that was loaded before, and whose files are the same, stays."""
    was_loaded = job.before.loaded is not None and job.is_at_target(job.before.loaded)
    is_replaced = job.node.folder.has_former(job.command.module_name, job.command.version)
    if was_loaded and not is_replaced:
        return
    with job.node.server.session(UNDO_SECONDS) as session:
        facts = observe(session)
        for loaded in facts.modules:
            if job.is_current(loaded, facts.run_id):
                unload(session, loaded)


def _load_former(job: Job) -> None:
    former = job.before.loaded
    if former is None:
        return
    try:
        with job.node.server.session(UNDO_SECONDS) as session:
            if not any(each.name == former.name for each in session.modules()):
                session.load(former.path, former.args)
    except (RefusedError, ServerLostError) as error:
        raise Failure(Reason.LOAD_FAILED, f"{former.name} {former.version} was not loaded again: {error}") from error
