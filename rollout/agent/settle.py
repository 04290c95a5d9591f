"""Watches the server after a load: a module may take it down some seconds later."""

import time

from rollout.agent.failure import Failure
from rollout.agent.job import Job
from rollout.agent.server import RefusedError, ServerLoadingError, ServerSilentError, Session
from rollout.messages import Reason

#: Seconds between two looks at the server.
LOOK_SECONDS = 0.25
#: A server that cannot be reached for so long is down, seconds: one that lacks a free connection is back before.
DOWN_SECONDS = 1.0


def settle(job: Job, run_id: str) -> None:
    """The server process `run_id` has answered for as long as the command says.

    Raises: `Failure` (server_crashed) when it has ended; also when the job is given up or out of time.
    """
    end = time.monotonic() + job.command.settle_seconds
    while True:
        answers = _answers(job, run_id)
        left = end - time.monotonic()
        if answers and left <= 0:
            return
        job.pause(min(max(left, 0.01), LOOK_SECONDS))
        job.deadline.remaining()


def _answers(job: Job, run_id: str) -> bool:
    """Whether the server answers a PING; not while it is busy. Raises: `Failure` (server_crashed)."""
    try:
        _look(job, run_id)
    except (ServerLoadingError, ServerSilentError, RefusedError):
        return False
    return True


def _look(job: Job, run_id: str) -> None:
    end = time.monotonic() + DOWN_SECONDS
    while True:
        try:
            with job.node.server.session() as session:
                refuse_restarted(job, session, run_id)
                session.ping()
                return
        except (ServerLoadingError, ServerSilentError):
            raise
        except Failure as failure:
            if failure.reason is not Reason.SERVER_UNREACHABLE:
                raise
            if time.monotonic() > end:
                raise crashed(job, failure) from failure
            job.pause(LOOK_SECONDS / 5)


def refuse_restarted(job: Job, session: Session, run_id: str) -> None:
    """Raises: `Failure` (server_crashed) unless the server is still the process `run_id`."""
    if session.info("server").get("run_id") != run_id:
        raise crashed(job)


def crashed(job: Job, failure: Failure | None = None) -> Failure:
    words = f" ({failure.message.rstrip('.')})" if failure else ""
    name = f"{job.command.module_name} {job.command.version}"
    return Failure(Reason.SERVER_CRASHED, f"The server went away over {name}{words}: see the server's log.")
