"""Remembers how many calls of the modules' commands failed, so that an upgrade is compared with the same time before it.

A server counts calls since the module's load: of weeks, a bad last minute would not be seen.
"""

import re
import threading
from collections.abc import Collection, Mapping

#: The longest time to settle that a strategy may have, seconds.
LONGEST_SECONDS = 1800.0
#: The least time between two samples, seconds.
SAMPLE_SECONDS = 10.0

#: Calls, and those of them that failed or were rejected.
Outcomes = tuple[int, int]


class CallOutcomes:
    """The calls of one server's commands over the longest time to settle. Times are of one clock, in seconds.

    Threads may share it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._run_id = ""
        self._counts: dict[str, Outcomes] = {}
        #: Since the first look, with what the server had counted then.
        self._totals: dict[str, Outcomes] = {}
        #: Totals at earlier times, the oldest first. The first one is before any call.
        self._samples: list[tuple[float, Mapping[str, Outcomes]]] = [(float("-inf"), {})]

    def add(self, at: float, run_id: str, counts: Mapping[str, Outcomes]) -> None:
        """Add what the server process `run_id` has counted, by command."""
        with self._lock:
            if run_id != self._run_id:
                self._run_id, self._counts, self._totals = run_id, {}, {}
                self._samples = [(float("-inf"), {})]
            for name, now in counts.items():
                before = self._counts.get(name, (0, 0))
                if min(_less(now, before)) < 0:  # it began at zero again
                    before = (0, 0)
                self._totals[name] = _more(self._totals.get(name, (0, 0)), _less(now, before))
            self._counts |= counts
            if at - self._samples[-1][0] >= SAMPLE_SECONDS:
                self._samples.append((at, dict(self._totals)))
            while len(self._samples) > 1 and at - self._samples[1][0] >= LONGEST_SECONDS:
                del self._samples[0]

    def since(self, at: float, names: Collection[str]) -> Outcomes:
        """Return the outcomes of these commands from the last look before `at` on; without one, since the module's load."""
        with self._lock:
            before = next((totals for when, totals in reversed(self._samples) if when <= at), self._samples[0][1])
            found = [_less(self._totals.get(name, (0, 0)), before.get(name, (0, 0))) for name in names]
        return sum(calls for calls, _ in found), sum(failed for _, failed in found)


def outcomes_in(info: Mapping[str, str], commands: Collection[str]) -> dict[str, Outcomes]:
    """Return the outcomes of these commands, with those of their subcommands, in INFO's commandstats. Names are in small
    letters."""
    found = {each.lower(): (0, 0) for each in commands}
    for key, value in info.items():
        name = key.removeprefix("cmdstat_").partition("|")[0].lower()
        if not key.startswith("cmdstat_") or name not in found:
            continue
        counts = {word: int(count) for word, count in re.findall(r"(\w+)=(\d{1,18})(?![\d.])", value)}
        rejected = counts.get("rejected_calls", 0)
        found[name] = _more(found[name], (counts.get("calls", 0) + rejected, counts.get("failed_calls", 0) + rejected))
    return found


def _more(one: Outcomes, other: Outcomes) -> Outcomes:
    return one[0] + other[0], one[1] + other[1]


def _less(one: Outcomes, other: Outcomes) -> Outcomes:
    return one[0] - other[0], one[1] - other[1]
