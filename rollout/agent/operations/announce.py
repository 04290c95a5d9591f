"""Sends the reports of one operation: a report of each phase that lasts, and at once the final report and those with a reason."""

import threading

from rollout.agent.control_plane.publisher import Publisher
from rollout.messages import REPORTS, Report, Reports

#: Shorter phases are not reported, seconds: most operations send only their final report.
LASTING_SECONDS = 0.1
#: Seconds that a final report waits for a broker that is away. If it is lost, the journal answers the next command.
#: Other reports do not wait: they would delay the operation.
FINAL_PATIENCE = 30.0


class Announcer:
    """Called with each report in order. Nothing is sent after the final report."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        #: Only one thread at a time may use a publisher.
        self._lock = threading.Lock()
        self._newest: Report | None = None
        self._timer: threading.Timer | None = None

    def __call__(self, report: Report) -> None:
        with self._lock:
            self._newest = report
            if self._timer is not None:
                self._timer.cancel()
            if report.is_last:
                self._publisher.send(Reports(reports=(report,)), queue=REPORTS, patience=FINAL_PATIENCE)
                return
            if report.reason is not None:
                self._publisher.send(Reports(reports=(report,)), queue=REPORTS, patience=0)
                return
            self._timer = threading.Timer(LASTING_SECONDS, self._send_if_it_lasts, [report])
            self._timer.daemon = True
            self._timer.start()

    def _send_if_it_lasts(self, report: Report) -> None:
        with self._lock:
            if report is self._newest:
                self._publisher.send(Reports(reports=(report,)), queue=REPORTS, patience=0)
