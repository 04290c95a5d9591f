"""Start the embedded cluster's processes, restart those that die, and end all of them."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from modfleet import watchdog

#: Seconds that the processes have to end before they are killed.
STOP_SECONDS = 10.0
#: Seconds before a process that died is restarted. They double with each further death, up to the longest.
RESTART_SECONDS = 1.0
LONGEST_RESTART_SECONDS = 30.0
#: A process that ran for longer than these seconds was healthy: its next restart waits `RESTART_SECONDS` again.
HEALTHY_SECONDS = 10.0
_POLL_SECONDS = 0.05


class StartError(Exception):
    """The cluster cannot start. The message is one sentence for the operator."""


class Process:
    """One program in its own process group. `pid_file` has its pid, for operators and scripts."""

    def __init__(self, name: str, words: Sequence[str], environ: Mapping[str, str], directory: Path) -> None:
        self.name = name
        self.log = directory / "logs" / f"{name}.log"
        self.pid_file = directory / "run" / f"{name}.pid"
        self.wait_seconds = RESTART_SECONDS / 2
        self.started_at = 0.0
        self.died_at: float | None = None
        self._words = words
        self._environ = dict(environ)
        self._running: subprocess.Popen[bytes] | None = None

    def start(self, notify_watchdog: Callable[[str], None]) -> None:
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(  # noqa: S603  # our own words
                self._words,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only `modfleet up`, which ends its processes in order
                # Runs in the child before the program starts, so that the watchdog knows of every process.
                preexec_fn=lambda: notify_watchdog(f"+{os.getpid()}\n"),  # noqa: PLW1509  # one write, no lock
            )
        fresh = self.pid_file.with_suffix(".new")
        fresh.write_text(f"{self._running.pid}\n")
        fresh.replace(self.pid_file)  # scripts never read half a pid
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
            self.send(signal.SIGCONT)  # a stopped process would never receive SIGTERM

    def kill(self) -> None:
        """Kill the whole process group, also children that outlived the program."""
        if self._running is not None:
            self.send(signal.SIGKILL)
            self._running.wait()

    def send(self, number: signal.Signals) -> None:
        if self._running is None:  # it never started: pid 0 would mean our own process group
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def last_log_line(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else "nothing"


class Supervisor:
    """Run the processes of the cluster in `directory`.

    A process that dies before `keep_alive` is an error. One that dies later is restarted.
    """

    def __init__(self, directory: Path, tell: Callable[[str], None]) -> None:
        self._directory = directory
        self._tell = tell
        #: File descriptor of the directory's lock. The watchdog has it too, until all processes have ended.
        self.lock: int | None = None
        self._processes: list[Process] = []
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._restarter = threading.Thread(target=self._keep_alive, name="keep-alive", daemon=True)
        self._stopping = threading.Event()

    def start(self, name: str, words: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        if self._watchdog is None:
            self._start_watchdog()
        process = Process(name, words, environ or os.environ, self._directory)
        self._processes.append(process)
        process.start(self._notify_watchdog)

    def wait_until(self, condition: Callable[[], bool], what: str, *, seconds: float = 60.0) -> None:
        """Wait until `condition` returns True. `what` completes "ended while ...".

        Raises: `StartError` after `seconds`, or when a process dies.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            for process in self._processes:
                if process.has_died:
                    raise StartError(
                        f"{process.name} ended while {what}; the last line of {process.log}: {process.last_log_line()}"
                    )
            if time.monotonic() > deadline:
                raise StartError(
                    f"Gave up after {seconds:.0f} s of {what}. The logs are in {self._directory / 'logs'}."
                )
            time.sleep(_POLL_SECONDS)

    def keep_alive(self) -> None:
        """Restart each process that dies from now on."""
        self._restarter.start()

    def stop(self) -> None:
        """End all processes; kill those that have not ended after `STOP_SECONDS`."""
        self._stopping.set()
        if self._restarter.is_alive():
            self._restarter.join()
        for process in reversed(self._processes):
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while any(process.is_running for process in self._processes) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        for process in self._processes:
            process.kill()
            process.pid_file.unlink(missing_ok=True)
            self._notify_watchdog(f"-{process.pid}\n")
        self._processes.clear()
        if self._watchdog is not None:
            self._watchdog.communicate()  # it also ends a process whose start was interrupted
            self._watchdog = None

    def kill_all(self) -> None:
        """Kill all processes. A signal handler may call this while `stop` waits."""
        for process in list(self._processes):
            process.send(signal.SIGKILL)

    def _start_watchdog(self) -> None:
        for name in ("logs", "run"):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        # `-I`: import neither from the program's own directory nor from PYTHONPATH.
        words = [sys.executable, "-I", "-S", watchdog.__file__, str(self._directory)]
        self._watchdog = subprocess.Popen(  # noqa: S603  # our own words
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[] if self.lock is None else [self.lock],
            start_new_session=True,
        )

    def _notify_watchdog(self, line: str) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._watchdog.stdin.fileno(), line.encode())

    def _keep_alive(self) -> None:
        while not self._stopping.wait(_POLL_SECONDS):
            now = time.monotonic()
            for process in self._processes:
                if not process.has_died:
                    continue
                if process.died_at is None:
                    self._end_group(process, now)
                elif now - process.died_at > process.wait_seconds:
                    self._start_again(process)

    def _start_again(self, process: Process) -> None:
        try:
            process.start(self._notify_watchdog)
        except OSError as error:
            process.died_at = time.monotonic()
            self._tell(f"{process.name} could not be restarted: {error}")

    def _end_group(self, process: Process, now: float) -> None:
        process.kill()  # the whole group: a server's worker would keep the port
        self._notify_watchdog(f"-{process.pid}\n")
        lived_long = now - process.started_at > HEALTHY_SECONDS
        process.wait_seconds = RESTART_SECONDS if lived_long else min(2 * process.wait_seconds, LONGEST_RESTART_SECONDS)
        process.died_at = now
        self._tell(f"{process.name} ended and will be restarted; its log is {process.log}")
