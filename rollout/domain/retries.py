"""Automatic retries of one node: how many, for which reasons, and after which wait."""

from dataclasses import dataclass
from hashlib import sha256

from rollout.messages import Reason

#: The longest wait before an automatic retry, seconds.
LONGEST_BACKOFF_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """Which failures of a node are retried automatically."""

    #: The most automatic retries of one node. 0 to 10, default 2.
    limit: int = 2
    #: The wait before the first retry. 0 to 300 s, default 5. It doubles with each retry, up to 300 s, and is shortened at
    #: random by at most half.
    backoff_seconds: float = 5.0
    #: The failures that are retried. Default: those that another attempt may overcome.
    reasons: tuple[Reason, ...] = (Reason.FETCH_FAILED, Reason.SERVER_UNREACHABLE, Reason.MODULE_BUSY)

    def delay_seconds(self, attempt: int, *, key: str) -> float:
        """Return the wait after the attempt with this number, seconds. `key` spreads nodes that failed together."""
        longest = min(self.backoff_seconds * 2.0 ** min(attempt - 1, 30), LONGEST_BACKOFF_SECONDS)
        jitter = int.from_bytes(sha256(f"{key}:{attempt}".encode()).digest()[:4]) / 2**32
        return longest * (1 - jitter / 2)
