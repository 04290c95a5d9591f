"""Watches the server after a load: a module may crash it some seconds later."""

import time

from rollout.agent.failure import Failure
from rollout.agent.operations.operation import Operation
from rollout.agent.server.session import RefusedError, ServerLoadingError, ServerSilentError, Session
from rollout.messages import Reason

#: Seconds between two checks of the server.
POLL_SECONDS = 0.25
#: A server that cannot be reached for so long is down, seconds. A server without a free connection answers again sooner.
DOWN_SECONDS = 1.0


def settle(operation: Operation, run_id: str) -> None:
    """Wait until the server process `run_id` has run for as long as the command says.

    Raises: `Failure` (server_crashed) if the process has ended; `Failure` if the operation is canceled or out of time.
    """
    end = time.monotonic() + operation.command.settle_seconds
    while True:
        answers = _answers(operation, run_id)
        left = end - time.monotonic()
        if answers and left <= 0:
            return
        operation.pause(min(max(left, 0.01), POLL_SECONDS))
        operation.deadline.remaining()


def _answers(operation: Operation, run_id: str) -> bool:
    """Return True if the server answers a PING, False while it is busy. Raises: `Failure` (server_crashed)."""
    try:
        _ping(operation, run_id)
    except (ServerLoadingError, ServerSilentError, RefusedError):
        return False
    return True


def _ping(operation: Operation, run_id: str) -> None:
    end = time.monotonic() + DOWN_SECONDS
    while True:
        try:
            with operation.node.server.session() as session:
                refuse_restarted(operation, session, run_id)
                session.ping()
                return
        except (ServerLoadingError, ServerSilentError):
            raise
        except Failure as failure:
            if failure.reason is not Reason.SERVER_UNREACHABLE:
                raise
            if time.monotonic() > end:
                raise crashed(operation, failure) from failure
            operation.pause(POLL_SECONDS / 5)


def refuse_restarted(operation: Operation, session: Session, run_id: str) -> None:
    """Raises: `Failure` (server_crashed) if the server is no longer the process `run_id`."""
    if session.info("server").get("run_id") != run_id:
        raise crashed(operation)


def crashed(operation: Operation, failure: Failure | None = None) -> Failure:
    words = f" ({failure.message.rstrip('.')})" if failure else ""
    name = f"{operation.command.module_name} {operation.command.version}"
    return Failure(Reason.SERVER_CRASHED, f"The server stopped during the operation on {name}{words}. See its log.")
