"""Remembers how often commands were called, to answer what was called in the last 10 minutes.

A server only counts calls since its start, since the module's load, or since CONFIG RESETSTAT, whichever is newest.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

#: A command counts as used for so long after a call, seconds.
WINDOW_SECONDS = 600.0
#: The least time between two samples, seconds: at most 12 are kept.
SAMPLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentCalls:
    """Calls in the last 10 minutes, by command; commands without a call are left out.

    `unknown_seconds`: there may have been other calls, and after so many seconds without a call it is known that there
    were none. 0 if it is known now.
    """

    calls: Mapping[str, int] = field(default_factory=dict)
    unknown_seconds: float = 0.0

    @property
    def total(self) -> int | None:
        """Return the number of calls, None if it is not known if there were any."""
        count = sum(self.calls.values())
        return None if not count and self.unknown_seconds else count

    @property
    def most_called(self) -> str:
        return max(self.calls, key=lambda name: self.calls[name], default="")


class CallHistory:
    """The calls of one server's commands. Times are of one clock, in seconds. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._run_id = ""
        self._counts: Mapping[str, int] = {}
        #: Calls since the start of the server, as far as they are known.
        self._totals: dict[str, int] = {}
        #: Totals at earlier times, the oldest first.
        self._samples: list[tuple[float, Mapping[str, int]]] = []

    def add(self, at: float, *, run_id: str, uptime: float, counts: Mapping[str, int]) -> None:
        """Add what the server process `run_id` has counted. `uptime`: seconds since it started."""
        with self._lock:
            if run_id != self._run_id:
                self._run_id, self._counts, self._totals = run_id, {}, {}
                self._samples = [(at - uptime, {})]
            for name, count in counts.items():
                before = self._counts.get(name, 0)
                # A smaller count began at zero again.
                self._totals[name] = self._totals.get(name, 0) + (count - before if count >= before else count)
            self._counts = dict(counts)
            if at - self._samples[-1][0] >= SAMPLE_SECONDS:
                self._samples.append((at, dict(self._totals)))
            while len(self._samples) > 1 and at - self._samples[1][0] >= WINDOW_SECONDS:
                del self._samples[0]

    def recent(self, at: float, commands: Iterable[str]) -> RecentCalls:
        """Return the calls of these commands, by what was added until now."""
        names = set(commands)
        with self._lock:
            if not self._samples:
                return RecentCalls(unknown_seconds=WINDOW_SECONDS)
            older = [each for each in self._samples if at - each[0] >= WINDOW_SECONDS]
            newer = [each for each in self._samples if at - each[0] < WINDOW_SECONDS]
            since, known = newer[0] if newer else (at, self._totals)
            calls = {name: self._totals.get(name, 0) - known.get(name, 0) for name in names}
            # Calls between the two samples: some of them may be less than 10 minutes ago.
            between = bool(older) and any(known.get(name, 0) > older[-1][1].get(name, 0) for name in names)
        return RecentCalls(
            calls={name: count for name, count in sorted(calls.items()) if count},
            unknown_seconds=since + WINDOW_SECONDS - at if between else 0.0,
        )
