"""What goes wrong on a node, each with the reason that the report carries."""

import errno

from rollout.messages import Reason

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class AgentError(Exception):
    """Root of the agent's own exceptions."""


class MalformedCommandError(AgentError):
    """The command cannot be for this agent: it is logged and dropped."""


class Failure(AgentError):
    """The operation failed for `reason`; `message` says to people what to do about it."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class CanceledError(Failure):
    """The control plane gave the operation up: no failure, as long as the node can be put back."""

    def __init__(self) -> None:
        super().__init__(Reason.MANUAL, "The operation was canceled.")


def as_failure(error: Failure | OSError) -> Failure:
    """`error` with a reason: what the operating system refuses is a full disk or an I/O error."""
    if isinstance(error, Failure):
        return error
    if error.errno in _NO_SPACE:
        return Failure(Reason.DISK_FULL, f"No space left for {error.filename or 'the module'}: free some, then retry.")
    return Failure(Reason.IO_ERROR, f"The node's disk refused: {error}.")
