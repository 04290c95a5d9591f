"""The embedded cluster's processes: started in order, watched, restarted when they die, and all ended at the end."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: How long a process may take to end before it is killed, seconds.
STOP_SECONDS = 10.0
#: How long a process that died waits for its restart, seconds.
RESTART_SECONDS = 1.0
_POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1


class StartError(Exception):
    """The cluster cannot start; the message is one sentence for the operator."""


@dataclass(slots=True)
class Process:
    name: str
    words: Sequence[str]
    environ: Mapping[str, str]
    log: Path
    running: subprocess.Popen[bytes] | None = None
    died_at: float | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(  # noqa: S603  # our own words
                self.words,
                env=dict(self.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us: we end them in order
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  # no threads yet
            )
        self.died_at = None

    @property
    def has_died(self) -> bool:
        return self.running is not None and self.running.poll() is not None

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def _end_with_parent() -> None:
    """Even a parent that is killed leaves nothing running."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(slots=True)
class Processes:
    """Started in the order of `start`, ended in the opposite one."""

    logs: Path
    tell: Callable[[str], None]
    started: list[Process] = field(default_factory=list)

    def start(self, name: str, words: Sequence[str], environ: Mapping[str, str] | None = None) -> Process:
        self.logs.mkdir(parents=True, exist_ok=True)
        process = Process(name, words, environ or os.environ, self.logs / f"{name}.log")
        process.start()
        self.started.append(process)
        return process

    def wait_until(self, condition: Callable[[], bool], what: str, *, seconds: float = 60.0) -> None:
        """Raises: `StartError` if it does not come true in time, or one of the processes dies meanwhile."""
        deadline = time.monotonic() + seconds
        while not condition():
            for process in self.started:
                if process.has_died:
                    raise StartError(f"{process.name} ended while {what}:\n{process.last_words()}")
            if time.monotonic() > deadline:
                raise StartError(f"Gave up after {seconds:.0f} s of {what}; the logs are in {self.logs}.")
            time.sleep(_POLL_SECONDS)

    def watch(self) -> None:
        """Restart what has died, after a moment. Called again and again."""
        now = time.monotonic()
        for process in self.started:
            if not process.has_died:
                continue
            if process.died_at is None:
                process.died_at = now
                self.tell(f"{process.name} ended; it is started again (its log: {process.log})")
            elif now - process.died_at > RESTART_SECONDS:
                process.start()

    def stop(self) -> None:
        for process in reversed(self.started):
            if process.running is not None and process.running.poll() is None:
                process.running.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in reversed(self.started):
            if process.running is None:
                continue
            try:
                process.running.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.running.pid, signal.SIGKILL)
                process.running.wait()
        self.started.clear()
