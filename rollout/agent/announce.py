"""Sends the reports of one operation: its end at once, and of the phases before it those that last."""

import threading

from rollout.agent.publisher import Publisher
from rollout.messages import REPORTS, Report

#: A phase that is over sooner is not worth a message, seconds: most operations are told by their end alone.
LASTING_SECONDS = 0.1
#: Seconds that a final report waits for a broker that is away; when it is lost, the journal answers the next time.
#: Other phases do not wait: they would hold up the work.
FINAL_PATIENCE = 30.0


class Announcer:
    """Called with each report in turn, the final one last. Nothing is sent after that one."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        #: A publisher is for one thread at a time.
        self._lock = threading.Lock()
        self._newest: Report | None = None
        self._timer: threading.Timer | None = None

    def __call__(self, report: Report) -> None:
        with self._lock:
            self._newest = report
            if self._timer is not None:
                self._timer.cancel()
            if report.phase.is_final:
                self._publisher.send(report, queue=REPORTS, patience=FINAL_PATIENCE)
                return
            self._timer = threading.Timer(LASTING_SECONDS, self._send_if_it_lasts, [report])
            self._timer.daemon = True
            self._timer.start()

    def _send_if_it_lasts(self, report: Report) -> None:
        with self._lock:
            if report is self._newest:
                self._publisher.send(report, queue=REPORTS, patience=0)
