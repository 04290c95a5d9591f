"""What one check has found, before the registry adds its name."""

import shlex
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


def word(text: object) -> str:
    """Return a path or a name as one word of a shell command, also if it begins as an option does."""
    given = str(text)
    return shlex.quote(f"./{given}" if given.startswith("-") else given)


def unit_word(path: object) -> str:
    """Return a path as one word of a setting in a systemd unit."""
    return shlex.quote(str(path).replace("%", "%%"))


def passed(message: str) -> Outcome:
    return Outcome(status=FindingStatus.PASS, message=message)


def warned(message: str, fix: str) -> Outcome:
    return Outcome(status=FindingStatus.WARN, message=message, fix=fix)


def failed(message: str, fix: str) -> Outcome:
    return Outcome(status=FindingStatus.FAIL, message=message, fix=fix)


def unknown(message: str, fix: str = "") -> Outcome:
    return Outcome(status=FindingStatus.UNKNOWN, message=message, fix=fix)
