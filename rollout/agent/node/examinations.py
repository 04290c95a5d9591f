"""Runs the doctor in a thread of its own, so that a heartbeat never waits for it."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from rollout.messages import Finding, FindingStatus

log = logging.getLogger(__name__)

#: Seconds between two runs, if no check must be asked sooner.
EXAMINE_SECONDS = 600.0
#: After a failed check, the doctor runs again after so many heartbeat intervals.
FAILED_INTERVALS = 3
#: What these checks find may pass by itself, and a plan skips a node for their warnings. So they are soon asked again, once.
MOMENTARY = frozenset({"failover"})
#: Limit of the texts of a finding in a heartbeat, characters.
LONGEST = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What the doctor has found, and how long ago, in seconds."""

    findings: tuple[Finding, ...]
    seconds_ago: float


class Examinations:
    """Runs `doctor` at the start, then every 10 minutes, and after three heartbeat intervals if a check has failed or must be asked
    again.

    `changed` is called from another thread when there are other findings. `interval`: between two heartbeats, seconds.
    """

    def __init__(
        self, doctor: Callable[[], tuple[Finding, ...]], *, changed: Callable[[], None], interval: float
    ) -> None:
        self._doctor = doctor
        self._changed = changed
        self._failed_seconds = FAILED_INTERVALS * interval
        self._lock = threading.Lock()
        self._findings: tuple[Finding, ...] | None = None
        #: The server and its setup that the newest run is about. When it ended, and when to run next, by the monotonic clock.
        self._server = self._setup = ""
        self._ended_at = self._due_at = 0.0
        self._is_running = False

    def newest(self, server: str, setup: str = "") -> Examination | None:
        """Return the newest findings about the server in this state, None if there are none yet. Never waits.

        The doctor runs again if `server` or its `setup`, such as its modules, differs from the last run. Until that run has
        ended, the findings about the same server with another setup are the newest.
        """
        with self._lock:
            is_other = (server, setup) != (self._server, self._setup)
            if not self._is_running and (is_other or time.monotonic() >= self._due_at):
                if server != self._server:
                    self._findings = None
                self._is_running, self._server, self._setup = True, server, setup
                threading.Thread(target=self._run, name="doctor", daemon=True).start()
            if self._findings is None or server != self._server:
                return None
            return Examination(findings=self._findings, seconds_ago=time.monotonic() - self._ended_at)

    def _run(self) -> None:
        findings: tuple[Finding, ...] = ()
        try:
            findings = tuple(_shortened(each) for each in self._doctor())
        except Exception:  # the thread's outermost loop: the next run may succeed
            log.exception("The doctor could not run")
        has_failed = any(each.status == FindingStatus.FAIL for each in findings)
        may_pass = any(each.check in MOMENTARY and each.status != FindingStatus.PASS for each in findings)
        with self._lock:
            is_changed = findings != self._findings
            is_soon_due = has_failed or (may_pass and is_changed)
            self._findings, self._is_running = findings, False
            self._ended_at = time.monotonic()
            self._due_at = self._ended_at + (self._failed_seconds if is_soon_due else EXAMINE_SECONDS)
        if is_changed:
            self._changed()


def _shortened(finding: Finding) -> Finding:
    return replace(finding, message=finding.message[:LONGEST], fix=finding.fix[:LONGEST])
