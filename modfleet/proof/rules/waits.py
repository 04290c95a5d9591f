"""`slow_retry` and `stall`: how long clients waited for what they wanted, over all attempts."""

from modfleet.proof.history import CONTROL, Call
from modfleet.proof.rules.timeline import Timeline
from modfleet.proof.rules.violation import Violation


class Waits:
    """An operation is the first attempt of a call, and all attempts after it until one is acknowledged."""

    def __init__(self, timeline: Timeline, *, retry_seconds: float, stall_ratio: float | None) -> None:
        self._timeline = timeline
        self._retry_seconds = retry_seconds
        self._stall_ratio = stall_ratio
        #: The first and the newest attempt of each client's operation that is not acknowledged yet.
        self._open: dict[str, tuple[Call, Call]] = {}
        self._found: list[Violation] = []
        #: The longest operation while no server restarts, and while one does, in seconds.
        self.longest = 0.0
        self.longest_restart = 0.0
        self.control = 0.0
        self._longest_call: Call | None = None

    def see(self, call: Call) -> None:
        former = self._open.pop(call.client, None) if self._open else None
        if former and call.attempt == 1:
            self._report(*former, "was never acknowledged: the client went on to another command")
            former = None
        first = former[0] if former else call
        if call.error:
            self._open[call.client] = first, call
        else:
            self._answered(first, call)

    def violations(self) -> list[Violation]:
        for first, last in self._open.values():
            if last.answered_at > self._deadline(first):
                self._report(first, last, "was not acknowledged until the history ended")
        self._open = {}
        ratio, call = self._stall_ratio, self._longest_call
        if ratio is not None and call is not None and self.longest > ratio * self.control:
            message = (
                f"{call.kind} took {self.longest:.3f} s while no server restarted, more than {ratio:g} x the "
                f"{self.control:.3f} s of the client {CONTROL} ({self._timeline.words(call.answered_at)})."
            )
            self._found.append(Violation.of("stall", message, call))
        return self._found

    def _answered(self, first: Call, last: Call) -> None:
        seconds = last.answered_at - first.called_at
        if seconds > self._retry_seconds and last.answered_at > self._deadline(first):
            self._report(first, last, "was acknowledged")
        if first.client == CONTROL:
            self.control = max(self.control, seconds)
        elif seconds > self.longest or seconds > self.longest_restart:
            self._measure(first, last, seconds)

    def _measure(self, first: Call, last: Call, seconds: float) -> None:
        if self._timeline.restarts.touches(first.called_at, last.answered_at):
            self.longest_restart = max(self.longest_restart, seconds)
        elif seconds > self.longest:
            self.longest, self._longest_call = seconds, last

    def _deadline(self, first: Call) -> float:
        """Return when the operation must have been acknowledged. What a fault delays counts from the fault's end."""
        due = first.called_at + self._retry_seconds
        return max(due, self._timeline.recovered_at(first, due))

    def _report(self, first: Call, last: Call, how: str) -> None:
        seconds = last.answered_at - first.called_at
        attempts = "1 attempt" if last.attempt == 1 else f"{last.attempt} attempts"
        error = f", last {last.error!r}" if last.error else ""
        what = f"{first.kind} {first.entry}" if first.entry else first.kind
        message = (
            f"{what} {how} after {seconds:.3f} s and {attempts}{error}. The limit is {self._retry_seconds:g} s "
            f"({self._timeline.words(first.called_at)})."
        )
        self._found.append(Violation.of("slow_retry", message, last))
