"""Runs the doctor in a thread of its own, so that a heartbeat never waits for it."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from rollout.messages import Finding, FindingStatus

log = logging.getLogger(__name__)

#: Seconds between two runs, if no check has failed.
EXAMINE_SECONDS = 600.0
#: After a failed check, the doctor runs again after so many heartbeat intervals.
FAILED_INTERVALS = 3
#: Limit of the texts of a finding in a heartbeat, characters.
LONGEST = 300


class Examinations:
    """Runs `doctor` at the start, then every 10 minutes, and after three heartbeat intervals if a check has failed.

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
        #: What the findings are about, and when to run next by the monotonic clock.
        self._about: str | None = None
        self._due_at = 0.0
        self._is_running = False

    def newest(self, about: str) -> tuple[Finding, ...] | None:
        """Return the newest findings about the server in this state, None if there are none yet. Never waits.

        If `about` is another state than the last time, the doctor runs again.
        """
        with self._lock:
            is_other = about != self._about
            if not self._is_running and (is_other or time.monotonic() >= self._due_at):
                self._is_running, self._about = True, about
                self._findings = None if is_other else self._findings
                threading.Thread(target=self._run, name="doctor", daemon=True).start()
            return self._findings if about == self._about else None

    def _run(self) -> None:
        findings: tuple[Finding, ...] = ()
        try:
            findings = tuple(_shortened(each) for each in self._doctor())
        except Exception:  # the thread's outermost loop: the next run may succeed
            log.exception("The doctor could not run")
        has_failed = any(each.status == FindingStatus.FAIL for each in findings)
        with self._lock:
            is_changed = findings != self._findings
            self._findings, self._is_running = findings, False
            self._due_at = time.monotonic() + (self._failed_seconds if has_failed else EXAMINE_SECONDS)
        if is_changed:
            self._changed()


def _shortened(finding: Finding) -> Finding:
    return replace(finding, message=finding.message[:LONGEST], fix=finding.fix[:LONGEST])
