"""Counts the full synchronizations with its master that a replica begins.

One may begin and fail within milliseconds, and the server begins the next one at once. Its log names each, INFO shows those
that last until a sample or that have ended well. So both are counted, and the larger number is the right one.
"""

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from rollout.agent.server.texts import number

#: For how long a synchronization counts, seconds.
WINDOW_SECONDS = 600.0
#: Moments that are kept.
MOST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """`read`: bytes of the synchronization in progress, None if there is none. `end`: the replication offset. `first`: the oldest
    one in the backlog, which begins anew with the data. `surplus`: bytes from the master that are not in the offset."""

    run_id: str
    read: int | None
    end: int | None
    first: int | None
    surplus: int | None


class FullSyncs:
    """Those that this agent has seen. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: _Sample | None = None
        self._sampled: deque[float] = deque(maxlen=MOST)
        self._logged: deque[float] = deque(maxlen=MOST)

    def look(self, info: Mapping[str, str], logged: int = 0) -> None:
        """Take a sample. `info`: the sections `server`, `replication` and `stats` of INFO. `logged`: how many the server's log
        has named since the last call that gave a number."""
        now, sample = time.monotonic(), _sample(info)
        with self._lock:
            if sample and _has_begun(self._last, sample):
                self._sampled.append(now)
            self._last = sample
            self._logged.extend([now] * min(logged, MOST))

    def forget(self) -> None:
        """Begin to count anew: an operation restarts the server, which may need one."""
        with self._lock:
            self._sampled.clear()
            self._logged.clear()

    def since(self, moment: float) -> int:
        """Return how many have begun since the moment, by the monotonic clock."""
        with self._lock:
            return max(sum(each >= moment for each in seen) for seen in (self._sampled, self._logged))

    def lately(self) -> int:
        """Return how many have begun within the last `WINDOW_SECONDS`."""
        return self.since(time.monotonic() - WINDOW_SECONDS)


def _sample(info: Mapping[str, str]) -> _Sample | None:
    if info.get("role") != "slave":
        return None
    received, offset = number(info.get("total_net_repl_input_bytes")), number(info.get("slave_read_repl_offset"))
    return _Sample(
        run_id=info.get("run_id", ""),
        read=(number(info.get("master_sync_read_bytes")) or 0) if info.get("master_sync_in_progress") == "1" else None,
        end=number(info.get("master_repl_offset")),
        first=number(info.get("repl_backlog_first_byte_offset")),
        surplus=None if received is None or offset is None else received - offset,
    )


def _has_begun(before: _Sample | None, now: _Sample) -> bool:
    """Return True if a full synchronization has begun since the sample `before`."""
    if before is None or before.run_id != now.run_id:
        return now.read is not None
    if now.read is not None:
        return before.read is None or now.read < before.read
    return before.read is None and _has_been(before, now)


def _has_been(before: _Sample, now: _Sample) -> bool:
    """Return True if one has begun and ended in between. Else all bytes from the master are in the offset, but for a part of a
    command at which the link broke; then the backlog goes on."""
    if None in {before.surplus, now.surplus, before.end, now.first}:
        return False
    return now.surplus != before.surplus and (now.first or 0) > (before.end or 0)


def continued(info: Mapping[str, str]) -> bool:
    """Return True if the server is a replica that has continued where it was before its start: then it has received nothing from
    its master but the commands in its backlog. `info`: the sections `replication` and `stats`."""
    received, kept = number(info.get("total_net_repl_input_bytes")), number(info.get("repl_backlog_histlen"))
    is_linked = info.get("role") == "slave" and info.get("master_link_status") == "up"
    return is_linked and received is not None and kept is not None and received <= kept
