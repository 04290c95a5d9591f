"""The embedded cluster's processes: started, watched, restarted when they die, and all ended at the end."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from modfleet import guardian

#: How long the processes may take to end before they are killed, seconds.
STOP_SECONDS = 10.0
#: How long a process that died waits for its restart, seconds; doubled, up to the second, while it keeps dying.
RESTART_SECONDS = 1.0
LONGEST_RESTART_SECONDS = 30.0
#: One that has run for so long is healthy, seconds.
HEALTHY_SECONDS = 10.0
_POLL_SECONDS = 0.05


class StartError(Exception):
    """The cluster cannot start; the message is one sentence for the operator."""


class Process:
    """One program, a process group of its own. `pid_file` names it for operators and scripts."""

    def __init__(self, name: str, words: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.log = folder / "logs" / f"{name}.log"
        self.pid_file = folder / "run" / f"{name}.pid"
        self.wait_seconds = RESTART_SECONDS / 2
        self.started_at = 0.0
        self.died_at: float | None = None
        self._words = words
        self._environ = dict(environ)
        self._running: subprocess.Popen[bytes] | None = None

    def start(self, tell_guardian: Callable[[str], None]) -> None:
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(  # noqa: S603  # our own words
                self._words,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us: we end them in order
                # In the child, before it becomes the program: there is no moment at which the guardian misses it.
                preexec_fn=lambda: tell_guardian(f"+{os.getpid()}\n"),  # noqa: PLW1509  # one write, no lock
            )
        fresh = self.pid_file.with_suffix(".new")
        fresh.write_text(f"{self._running.pid}\n")
        fresh.replace(self.pid_file)  # scripts never read half a number
        self.started_at = time.monotonic()
        self.died_at = None

    @property
    def pid(self) -> int:
        return self._running.pid if self._running else 0

    @property
    def has_died(self) -> bool:
        return self._running is not None and self._running.poll() is not None

    @property
    def is_running(self) -> bool:
        return self._running is not None and self._running.poll() is None

    def terminate(self) -> None:
        if self.is_running:
            self.send(signal.SIGTERM)
            self.send(signal.SIGCONT)  # one that is stopped would never see it

    def kill(self) -> None:
        """It is gone, and so are its children, also those that outlived it."""
        if self._running is not None:
            self.send(signal.SIGKILL)
            self._running.wait()

    def send(self, number: signal.Signals) -> None:
        if self._running is None:  # it never started: group 0 is our own
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def last_words(self) -> str:
        """The end of its log, one line."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else "nothing"


class Processes:
    """Those of the cluster in `folder`. What dies before `keep_alive` is an error, what dies later is restarted."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._tell = tell
        #: Lock of the folder: held by the guardian too, until all have ended.
        self.lock: int | None = None
        self._all: list[Process] = []
        self._guardian: subprocess.Popen[bytes] | None = None
        self._keeper = threading.Thread(target=self._keep_alive, name="keep-alive", daemon=True)
        self._stopping = threading.Event()

    def start(self, name: str, words: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        if self._guardian is None:
            self._guard()
        process = Process(name, words, environ or os.environ, self._folder)
        self._all.append(process)
        process.start(self._tell_guardian)

    def wait_until(self, condition: Callable[[], bool], what: str, *, seconds: float = 60.0) -> None:
        """Raises: `StartError` if it does not come true in time, or one of the processes dies meanwhile."""
        deadline = time.monotonic() + seconds
        while not condition():
            for process in self._all:
                if process.has_died:
                    raise StartError(
                        f"{process.name} ended while {what}; its last words in {process.log}: {process.last_words()}"
                    )
            if time.monotonic() > deadline:
                raise StartError(f"Gave up after {seconds:.0f} s of {what}; the logs are in {self._folder / 'logs'}.")
            time.sleep(_POLL_SECONDS)

    def keep_alive(self) -> None:
        """From now on, what dies is started again, after a moment."""
        self._keeper.start()

    def stop(self) -> None:
        """Nothing that was started runs any more."""
        self._stopping.set()
        if self._keeper.is_alive():
            self._keeper.join()
        for process in reversed(self._all):
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while any(process.is_running for process in self._all) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        for process in self._all:
            process.kill()
            process.pid_file.unlink(missing_ok=True)
            self._tell_guardian(f"-{process.pid}\n")
        self._all.clear()
        if self._guardian is not None:
            self._guardian.communicate()  # it also ends what was being started when we were interrupted
            self._guardian = None

    def hurry(self) -> None:
        """All end at once. May be called by a signal's handler while `stop` waits for them."""
        for process in list(self._all):
            process.send(signal.SIGKILL)

    def _guard(self) -> None:
        for name in ("logs", "run"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        # `-I`: the project's folder, which holds a `modfleet`, and the environment are none of its business.
        words = [sys.executable, "-I", "-S", guardian.__file__, str(self._folder)]
        self._guardian = subprocess.Popen(  # noqa: S603  # our own words
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[] if self.lock is None else [self.lock],
            start_new_session=True,
        )

    def _tell_guardian(self, line: str) -> None:
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._guardian.stdin.fileno(), line.encode())

    def _keep_alive(self) -> None:
        while not self._stopping.wait(_POLL_SECONDS):
            now = time.monotonic()
            for process in self._all:
                if not process.has_died:
                    continue
                if process.died_at is None:
                    self._bury(process, now)
                elif now - process.died_at > process.wait_seconds:
                    self._start_again(process)

    def _start_again(self, process: Process) -> None:
        try:
            process.start(self._tell_guardian)
        except OSError as error:
            process.died_at = time.monotonic()
            self._tell(f"{process.name} cannot be started: {error}")

    def _bury(self, process: Process, now: float) -> None:
        process.kill()  # its children: a server's worker would keep the port
        self._tell_guardian(f"-{process.pid}\n")
        lived_long = now - process.started_at > HEALTHY_SECONDS
        process.wait_seconds = RESTART_SECONDS if lived_long else min(2 * process.wait_seconds, LONGEST_RESTART_SECONDS)
        process.died_at = now
        self._tell(f"{process.name} ended and is started again; its log: {process.log}")
