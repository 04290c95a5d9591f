"""What the operator has done, arranged by time: when errors are allowed, and which change a moment belongs to."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable

from modfleet.proof.history import Call, Change, Kind, Way
from modfleet.proof.rules.windows import Windows

#: The action of a fault that kills a server which has not saved its last writes.
KILL_UNSAVED = "kill unsaved"
#: So many seconds of writes before such a kill may be lost.
UNSAVED_SECONDS = 10.0


class Timeline:
    def __init__(self, changes: Iterable[Change], *, retry_seconds: float) -> None:
        self.changes = sorted(changes, key=lambda change: change.started_at)
        self._starts = [change.started_at for change in self.changes]
        #: While a server restarts or a fault lasts, and until the clients must have recovered.
        self.restarts = _windows((change for change in self.changes if _restarts(change)), retry_seconds)
        #: While a fault lasts, and until the clients must have recovered.
        self.faults = _windows((change for change in self.changes if change.is_fault), retry_seconds)
        self._kills = _unsaved(self.changes)

    def may_be_unsaved(self, server: str, answered_at: float) -> bool:
        """Return True if the server was killed before it must have saved a write that it answered at this time."""
        kills = self._kills.get(server)
        return kills is not None and kills.touches(answered_at, answered_at)

    def recovered_at(self, call: Call, due: float) -> float:
        """Return until when the faults around a call, which was due at this time, may delay it; minus infinity without any.

        No other server can answer the question to one server, so its restart delays it too.
        """
        return (self.restarts if call.kind is Kind.ASK else self.faults).last_end(due)

    def words(self, at: float) -> str:
        """Return where the moment is: `during the upgrade 7f (greet)`, or `1.50 s after` it."""
        number = bisect_right(self._starts, at)
        if not number:
            return "before the first change"
        begun = self.changes[:number]
        change = next((each for each in reversed(begun) if at <= each.ended_at), begun[-1])
        name = f"the {change.action} {change.uid}" + (f" ({change.module})" if change.module else "")
        return f"during {name}" if at <= change.ended_at else f"{at - change.ended_at:.2f} s after {name}"


def _restarts(change: Change) -> bool:
    return change.way is Way.RESTART or change.is_fault or change.action == "restart"


def _windows(changes: Iterable[Change], retry_seconds: float) -> Windows:
    return Windows((change.started_at, change.ended_at + retry_seconds) for change in changes)


def _unsaved(changes: Iterable[Change]) -> dict[str, Windows]:
    intervals: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for change in changes:
        if change.is_fault and change.action == KILL_UNSAVED:
            for server in change.servers:
                intervals[server].append((change.started_at - UNSAVED_SECONDS, change.ended_at))
    return {server: Windows(each) for server, each in intervals.items()}
