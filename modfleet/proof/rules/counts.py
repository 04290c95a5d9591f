"""What was recorded, in numbers, and `empty`: a proof of nothing. What was not recorded cannot be judged, and must not pass."""

from collections import Counter
from collections.abc import Iterator

from modfleet.proof.history import CONTROL, Call, Kind
from modfleet.proof.rules.dumps import Dumps, master_of
from modfleet.proof.rules.timeline import Timeline
from modfleet.proof.rules.violation import Violation


class Counts:
    def __init__(self) -> None:
        #: The acknowledged calls of each client and kind.
        self.acknowledged: dict[str, Counter[Kind]] = {}
        self._first, self._last = float("inf"), float("-inf")

    def begin(self, client: str) -> None:
        """Note a client that has a history, which may be empty."""
        self.acknowledged.setdefault(client, Counter())

    def see(self, call: Call) -> None:
        if call.answered_at > self._last:
            self._last = call.answered_at
        if call.called_at < self._first:
            self._first = call.called_at
        if not call.error:
            self.acknowledged[call.client][call.kind] += 1

    @property
    def seconds(self) -> float:
        """From the first call to the last answer."""
        return max(0.0, self._last - self._first)

    def of(self, *kinds: Kind) -> int:
        """Return the acknowledged calls of these kinds."""
        return sum(counts[kind] for counts in self.acknowledged.values() for kind in kinds)


def check_presence(
    counts: Counts, timeline: Timeline, final: Dumps, restarted: Dumps, *, needs_control: bool
) -> Iterator[Violation]:
    clients = counts.acknowledged
    if not clients.keys() - {CONTROL}:
        yield _empty("There is no history of a client.")
    for client, acknowledged in clients.items():
        if not acknowledged:
            yield _empty(f"The client {client} has no acknowledged call.", client=client)
    if needs_control and CONTROL not in clients:
        yield _empty(f"There is no client {CONTROL}, so stalls cannot be judged.", client=CONTROL)
    if not final:
        yield _empty("There is no dump of the end.")
    for server in sorted(
        {each for change in timeline.changes for each in change.servers} - final.keys() - restarted.keys()
    ):
        yield _empty(f"There is no dump of {server}, which a change names.", server=server)
    for server in final:
        if not master_of(server, final):
            yield _empty(
                f"{server} is a replica of {final[server].dump.master}, and there is no dump of a master.",
                server=server,
            )


def _empty(message: str, *, client: str = "", server: str = "") -> Violation:
    return Violation(rule="empty", message=message, client=client, server=server)
