"""The failures of an operation, each with the reason for its report."""

import errno

from rollout.messages import Reason

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class AgentError(Exception):
    """Root of the agent's own exceptions."""


class MalformedCommandError(AgentError):
    """The command cannot be for this agent. It is logged and dropped."""


class Failure(AgentError):
    """The operation failed for `reason`. `message` is for people: it says what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class CanceledError(Failure):
    """The control plane canceled the operation. This is not a failure, as long as the node can be restored."""

    def __init__(self) -> None:
        super().__init__(Reason.MANUAL, "The operation was canceled.")


class MustWaitError(Failure):
    """The server must not be changed now, and was not. This is not a failure, as long as the node can be restored."""


class SkippedError(Failure):
    """What the operation needs is not possible now. The node stays as it was, and nothing tries it again by itself."""


def as_failure(error: Failure | OSError) -> Failure:
    """Return `error` with a reason: an error of the operating system means a full disk, or an I/O error."""
    if isinstance(error, Failure):
        return error
    if error.errno in _NO_SPACE:
        return Failure(
            Reason.DISK_FULL, f"No space left for {error.filename or 'the module'}. Free some space, then retry."
        )
    return Failure(Reason.IO_ERROR, f"The node's disk refused: {error}.")
