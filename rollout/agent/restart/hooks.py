"""Runs the commands of the agent's settings: before a restart, for it, and after it."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress

from rollout.agent.failure import AgentError

#: The longest time of one command, seconds.
COMMAND_SECONDS = 120.0
#: What a command gets from the agent's environment. The rest may have secrets.
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
#: The last bytes of its output that a report quotes.
LONGEST_OUTPUT = 300


class CommandFailedError(AgentError):
    """The command could not be started, has failed, or took too long. The message says which, with the end of its output."""


def run_command(words: Sequence[str], environ: Mapping[str, str], *, seconds: float = COMMAND_SECONDS) -> None:
    """Run a program without a shell and wait for its end. Raises: `CommandFailedError`.

    What it leaves in the background stays, for that may be the server; but not if it takes too long.
    """
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    # Not a pipe: what stays in the background would keep it open.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(  # noqa: S603 - the command is in the node's own settings
                words,
                env={**kept, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise CommandFailedError(f"{words[0]} cannot be started: {error.strerror}.") from error
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise CommandFailedError(f"{words[0]} took longer than {seconds:g} s.") from error
        if status:
            end = os.fstat(output.fileno()).st_size
            output.seek(max(0, end - LONGEST_OUTPUT))
            said = " ".join(output.read(LONGEST_OUTPUT).decode(errors="replace").split())
            raise CommandFailedError(f"{words[0]} failed with the exit status {status}: {said or 'no output'}.")
