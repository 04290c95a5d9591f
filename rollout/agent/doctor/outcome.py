"""What one check has found, before the registry adds its name."""

from dataclasses import dataclass

from rollout.agent.failure import AgentError
from rollout.messages import FindingStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    status: FindingStatus
    message: str
    fix: str = ""


class UnknownError(AgentError):
    """A fact is not known, so the check has no result. The message is one sentence; `fix` says how to see the fact."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix


def passed(message: str) -> Outcome:
    return Outcome(status=FindingStatus.PASS, message=message)


def warned(message: str, fix: str) -> Outcome:
    return Outcome(status=FindingStatus.WARN, message=message, fix=fix)


def failed(message: str, fix: str) -> Outcome:
    return Outcome(status=FindingStatus.FAIL, message=message, fix=fix)


def unknown(message: str, fix: str = "") -> Outcome:
    return Outcome(status=FindingStatus.UNKNOWN, message=message, fix=fix)
