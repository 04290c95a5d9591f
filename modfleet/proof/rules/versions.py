"""`version`: each server has the configuration that the changes allow at that time, and does not go back."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate

from modfleet.proof.history import Call, Change, Kind
from modfleet.proof.rules.timeline import Timeline
from modfleet.proof.rules.violation import Violation


class Versions:
    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        changes: dict[tuple[str, str], list[Change]] = defaultdict(list)
        for change in timeline.changes:
            for server in change.servers if change.module else ():
                changes[server, change.module].append(change)
        self._stories = {place: _Story(each) for place, each in changes.items()}
        self._found: list[Violation] = []

    def see(self, call: Call) -> None:
        if call.error or not call.server or not (call.configuration or call.kind is Kind.ASK):
            return
        place = call.server, call.module
        story = self._stories.get(place)
        if story is None:
            story = self._stories[place] = _Story([], call.configuration)
        if expected := story.see(call):
            self._report(call, f"answered {call.configuration!r}. Expected: {expected}")

    def violations(self) -> Iterable[Violation]:
        for story in self._stories.values():
            for call, reason in story.went_back():
                self._report(call, reason)
        return self._found

    def _report(self, call: Call, reason: str) -> None:
        message = f"{call.server}: {call.module} {reason} ({self._timeline.words(call.called_at)})."
        self._found.append(Violation.of("version", message, call))


class _Story:
    """The configurations of one module on one server, in order. Where changes overlap, the versions of all of them are allowed."""

    def __init__(self, changes: list[Change], first: str = "") -> None:
        self._starts = [change.started_at for change in changes]
        self._ends = list(accumulate((change.ended_at for change in changes), max))
        #: The configuration before each change, and after the last.
        self._states = [changes[0].before if changes else first]
        self._turns: list[_Turn] = []
        for change in changes:
            self._turns.append(_Turn(change, before=self._states[-1]))
            self._states.append(self._states[-1] if change.is_undone else change.after)

    def see(self, call: Call) -> str:
        """Return what the answer should have been, empty if it is as it should be."""
        # A call sees the server at any moment from its call to its answer.
        first = bisect_left(self._ends, call.called_at)
        last = bisect_right(self._starts, call.answered_at)
        if call.configuration == self._states[first] and first >= last:
            return ""
        turns = self._turns[first:last]
        allowed = {self._states[first], *(turn.change.after for turn in turns), *self._states[first + 1 : last + 1]}
        if call.configuration not in allowed:
            return " or ".join(repr(each) if each else "no answer" for each in sorted(allowed))
        if len(turns) == 1:
            turns[0].see(call)
        return ""

    def went_back(self) -> Iterable[tuple[Call, str]]:
        """Yield a call that saw a server go back, for each change with one, and what it saw."""
        for turn in self._turns:
            if found := turn.went_back():
                yield found


class _Turn:
    """What the calls saw of one change on one server.

    Several clients look at one server: one answer is older than another if it was there before the other was called for.
    """

    def __init__(self, change: Change, *, before: str) -> None:
        self.change = change
        self._before = before
        #: When the first answer of the new configuration was there, and when the last one was called for.
        self._first_after, self._last_after = float("inf"), float("-inf")
        #: The answers of the old configuration; the newest is enough if the change is not undone.
        self._old: list[Call] = []

    def see(self, call: Call) -> None:
        if call.configuration == self.change.after:
            self._first_after = min(self._first_after, call.answered_at)
            self._last_after = max(self._last_after, call.called_at)
        elif self.change.is_undone or not self._old:
            self._old.append(call)
        elif call.called_at > self._old[0].called_at:
            self._old[0] = call

    def went_back(self) -> tuple[Call, str] | None:
        for old in self._old:
            was_newer_before = self._first_after < old.called_at
            is_newer_again = old.answered_at < self._last_after
            if was_newer_before and (is_newer_again or not self.change.is_undone):
                again = ", and then forward again" if self.change.is_undone else ""
                return old, f"went back from {self.change.after!r} to {self._before!r}{again}"
        return None
