"""Watches the server after a load: a module may take it down some seconds later."""

import time

from rollout.agent.failure import Failure
from rollout.agent.operation import Operation
from rollout.agent.server import RefusedError, ServerLoadingError, ServerSilentError, Session
from rollout.messages import Reason

#: Seconds between two looks at the server.
LOOK_SECONDS = 0.25
#: A server that cannot be reached for so long is down, seconds: one that lacks a free connection is back before.
DOWN_SECONDS = 1.0


def settle(operation: Operation, run_id: str) -> None:
    """The server process `run_id` has answered for as long as the command says.

    Raises: `Failure` (server_crashed) when it has ended; also when the operation is given up or out of time.
    """
    end = time.monotonic() + operation.command.settle_seconds
    while True:
        answers = _answers(operation, run_id)
        left = end - time.monotonic()
        if answers and left <= 0:
            return
        operation.pause(min(max(left, 0.01), LOOK_SECONDS))
        operation.deadline.remaining()


def _answers(operation: Operation, run_id: str) -> bool:
    """Whether the server answers a PING; not while it is busy. Raises: `Failure` (server_crashed)."""
    try:
        _look(operation, run_id)
    except (ServerLoadingError, ServerSilentError, RefusedError):
        return False
    return True


def _look(operation: Operation, run_id: str) -> None:
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
            operation.pause(LOOK_SECONDS / 5)


def refuse_restarted(operation: Operation, session: Session, run_id: str) -> None:
    """Raises: `Failure` (server_crashed) unless the server is still the process `run_id`."""
    if session.info("server").get("run_id") != run_id:
        raise crashed(operation)


def crashed(operation: Operation, failure: Failure | None = None) -> Failure:
    words = f" ({failure.message.rstrip('.')})" if failure else ""
    name = f"{operation.command.module_name} {operation.command.version}"
    return Failure(Reason.SERVER_CRASHED, f"The server went away over {name}{words}: see the server's log.")
