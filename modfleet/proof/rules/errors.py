"""`load_error` and `restart_error`: which errors a client may get, and when."""

from collections import Counter

from modfleet.proof.history import Call
from modfleet.proof.rules.timeline import Timeline
from modfleet.proof.rules.violation import Violation

#: The first words of errors that are allowed while a server restarts, each with its reason.
ON_THE_RESTART_PATH = {
    "MOVED": "the slot has another master after a failover",
    "ASK": "the slot is on its way to another server",
    "TRYAGAIN": "the keys of the command are on two servers for a moment",
    "READONLY": "the server has become a replica",
    "LOADING": "the server reads its data after the start",
    "MASTERDOWN": "the replica has no link to its master, and answers no old data",
    "CLUSTERDOWN": "a slot has no master until the failover has ended",
    "UNBLOCKED": "the server became a replica while the client waited",
    "closed:": "the server has ended, or does not listen yet",
    "timeout:": "the connection ended without a word",
}
#: Those that are allowed while a fault lasts only.
IN_A_FAULT = {
    "NOREPLICAS": "a master refuses writes because its replicas were killed or cut off",
    "MISCONF": "a server refuses writes because it cannot save to a full disk",
}


class Errors:
    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._found: list[Violation] = []
        #: How often each allowed error came, by its first word.
        self.allowed: Counter[str] = Counter()

    def see(self, call: Call) -> None:
        if not call.error:
            return
        word = _first_word(call.error)
        if not self._timeline.restarts.touches(call.called_at, call.answered_at):
            self._report("load_error", call, "while no server restarted")
        elif word in ON_THE_RESTART_PATH or (word in IN_A_FAULT and self._is_in_fault(call)):
            self.allowed[word.rstrip(":")] += 1
        else:
            self._report("restart_error", call, "which no restart explains")

    def violations(self) -> list[Violation]:
        return self._found

    def _is_in_fault(self, call: Call) -> bool:
        return self._timeline.faults.touches(call.called_at, call.answered_at)

    def _report(self, rule: str, call: Call, reason: str) -> None:
        what = f"{call.kind} {call.entry}" if call.entry else call.kind
        message = f"{what} got {call.error!r} {reason} ({self._timeline.words(call.answered_at)})."
        self._found.append(Violation.of(rule, message, call))


def _first_word(error: str) -> str:
    """Return the word that a server's error begins with, or which kind of error it is if no server said it."""
    return next((word for word in ("closed:", "timeout:") if error.startswith(word)), error.partition(" ")[0])
