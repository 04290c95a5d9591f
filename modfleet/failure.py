"""The exit codes of the commands, and the error whose message is printed to standard error."""

from enum import IntEnum


class ExitCode(IntEnum):
    #: Done. A watched rollout succeeded, or rolled another one back.
    SUCCEEDED = 0
    #: The control plane refused the request, or a watched rollout did not succeed, or skipped all nodes and none has what it
    #: asks for.
    FAILED = 1
    #: The command, a file, a setting or the credentials are wrong.
    USAGE = 2
    #: A watched rollout waits for a person: at a gate, for approval, or paused.
    WAITS_FOR_PERSON = 3
    #: The control plane cannot be reached.
    UNREACHABLE = 4
    #: `--timeout` passed before the watched rollout ended.
    STILL_RUNNING = 5
    #: Ctrl-C.
    INTERRUPTED = 130


#: Shown at the end of the help.
EXIT_CODES = """Exit codes:
0: Done. A watched rollout succeeded, or rolled another one back.
1: Refused. A watched rollout did not succeed, or skipped all nodes and none has what it asks for.
2: The command, a file, a setting or the credentials are wrong.
3: The watched rollout waits for a person: it is paused, waits at a gate, needs approval, or has no way back.
4: The control plane cannot be reached.
5: --timeout passed before the rollout ended.
130: Ctrl-C."""


class CommandError(Exception):
    """The message says what is wrong and what to do next, in one or two sentences."""

    code = ExitCode.FAILED


class UsageError(CommandError):
    """An option, a file, a setting or the credentials are wrong."""

    code = ExitCode.USAGE
