"""How a command ends: its exit codes, and the one exception that becomes a sentence on the standard error."""

from enum import IntEnum


class ExitCode(IntEnum):
    #: It was done; a rollout that was watched has succeeded.
    SUCCEEDED = 0
    #: The control plane refused it; a rollout that was watched ended in any other way.
    FAILED = 1
    #: The command, a file, a setting or the credentials are wrong.
    USAGE = 2
    #: A rollout that was watched waits for a person: at a gate, for approval, or paused.
    WAITS_FOR_PERSON = 3
    #: The control plane cannot be reached.
    UNREACHABLE = 4
    #: `--timeout` has passed, and the rollout that was watched goes on.
    STILL_RUNNING = 5
    #: Ctrl-C.
    INTERRUPTED = 130


EXIT_CODES = (
    "Exit codes: 0 done (a watched rollout has succeeded, or given back what another one had changed), 1 refused (a watched rollout ended otherwise), 2 wrong "
    "command, file, setting or credentials, 3 the watched rollout waits for a person (gate, approval, paused), 4 the "
    "control plane cannot be reached, 5 --timeout passed while the rollout goes on, 130 Ctrl-C."
)


class CommandError(Exception):
    """The message is one sentence, or two: what is wrong, and what to do next."""

    code = ExitCode.FAILED


class UsageError(CommandError):
    """What the person gave is wrong: an option, a file, a setting, credentials."""

    code = ExitCode.USAGE
