"""`went_back`: no client reads less from a key than it has read before."""

from modfleet.proof.history import Call, Kind
from modfleet.proof.rules.timeline import Timeline
from modfleet.proof.rules.violation import Violation


class Reads:
    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._client = ""
        #: What this client saw last at each key.
        self._lists: dict[str, tuple[int, ...]] = {}
        self._values: dict[str, int] = {}
        #: The entries at each key that a killed server may have lost.
        self._unsaved: dict[str, set[int]] = {}
        self._found: list[Violation] = []

    def see(self, call: Call) -> None:
        if call.error or call.kind is Kind.ASK:
            return
        if call.client != self._client:
            self._client, self._lists, self._values, self._unsaved = call.client, {}, {}, {}
        if call.entry and self._timeline.may_be_unsaved(call.server, call.answered_at):
            self._unsaved.setdefault(call.key, set()).add(call.entry)
        if call.kind is Kind.SET or call.key in self._values:
            self._see_value(call)
        elif call.kind is Kind.GET or call.entries:  # a user's command may append without saying what the key has
            self._see_list(call)

    def violations(self) -> list[Violation]:
        return self._found

    def _see_value(self, call: Call) -> None:
        former = self._values.get(call.key, 0)
        value = call.entries[0] if call.entries else call.entry
        unsaved = self._unsaved.get(call.key, ())
        if value < former and not all(entry in unsaved for entry in range(value + 1, former + 1)):
            self._report(call, f"has {value or 'nothing'}, and had {former} before")
        self._values[call.key] = value

    def _see_list(self, call: Call) -> None:
        former = self._lists.get(call.key, ())
        if call.entries[: len(former)] != former and not starts_with(
            call.entries, former, self._unsaved.get(call.key, frozenset())
        ):
            self._report(call, f"has {list(call.entries)}, which does not begin with {list(former)} from before")
        self._lists[call.key] = call.entries

    def _report(self, call: Call, reason: str) -> None:
        message = f"The key {reason} ({self._timeline.words(call.called_at)})."
        self._found.append(Violation.of("went_back", message, call))


def starts_with(entries: tuple[int, ...], former: tuple[int, ...], without: set[int] | frozenset[int]) -> bool:
    """Return True if the entries begin with the former ones, where those in `without` may be there or not."""
    kept = [entry for entry in former if entry not in without]
    return [entry for entry in entries if entry not in without][: len(kept)] == kept
