"""How carefully a rollout goes about it: one JSON object, every field with a safe default. Knows no Django.

An amount is a number of nodes, or a share of them such as `"10%"`. What it is a share of, and how it is rounded, is
said beside each field and in `docs/reference/strategy.md`: always to the cautious side. Nodes that are skipped from the
start count nowhere.
"""

import math
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from rollout.messages import Reason

#: A number of nodes, or `"<0 to 100>%"`.
Amount = int | str

#: The longest wait before an automatic retry, seconds.
LONGEST_BACKOFF_SECONDS = 300.0
#: The longest settling, seconds: an agent gives up any operation that takes longer than 3,000 s.
LONGEST_SETTLING_SECONDS = 1800.0


class OnFailure(StrEnum):
    """What happens when more nodes have failed than `max_failures`."""

    PAUSE = "pause"
    ABORT = "abort"
    ROLLBACK = "rollback"


class OnAbort(StrEnum):
    """What an abort does to nodes that have it in hand: let them finish, or have them undo it."""

    FINISH = "finish"
    UNDO = "undo"


class Gate(StrEnum):
    NONE = "none"
    MANUAL = "manual"


class Offline(StrEnum):
    """What becomes of a node that is offline when it is its wave's turn."""

    WAIT = "wait"
    SKIP = "skip"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """`limit`: automatic retries of one node. The wait before them doubles from `backoff_seconds` on, shortened by a
    jitter of at most half. `reasons`: those worth a retry."""

    limit: int = 2
    backoff_seconds: float = 5.0
    reasons: tuple[Reason, ...] = (Reason.FETCH_FAILED, Reason.SERVER_UNREACHABLE)

    def delay_seconds(self, attempt: int, *, key: str) -> float:
        """How long to wait after so many attempts; `key` spreads nodes that failed at the same moment."""
        longest = min(self.backoff_seconds * 2.0 ** min(attempt - 1, 30), LONGEST_BACKOFF_SECONDS)
        jitter = int.from_bytes(sha256(f"{key}:{attempt}".encode()).digest()[:4]) / 2**32
        return longest * (1 - jitter / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """Every field may be left out."""

    #: Size of the first wave; of the rollout's nodes, rounded up. Chosen among those that are online and do not have
    #: it yet. 0: none.
    canary: Amount = 1
    #: Sizes of the waves after the canary; of the rollout's nodes, rounded up. What is left is one more wave.
    waves: tuple[Amount, ...] = ()
    #: Nodes that may have it in hand at once; of the rollout's nodes, rounded down, at least 1.
    max_parallel: Amount = 10
    #: Nodes that stay online, untouched and without a failure; of the rollout's nodes, rounded up.
    min_healthy: Amount = 0
    #: Failures that are accepted: more of them stop the rollout. Of a wave's nodes and of the rollout's, rounded down.
    max_failures: Amount = 0
    on_failure: OnFailure = OnFailure.PAUSE
    on_abort: OnAbort = OnAbort.FINISH
    #: How long health is watched after each wave.
    soak_seconds: float = 0.0
    #: `manual`: after each wave but the last a person has to promote.
    gate: Gate = Gate.NONE
    #: How long a server has to run after a module was loaded before its node has succeeded; 0: not at all. It counts
    #: towards the node's deadline, and has to be shorter.
    settle_seconds: float = 10.0
    #: Longest for one node, from its release on.
    node_deadline_seconds: float = 300.0
    #: Longest without any success while a wave is running.
    progress_deadline_seconds: float = 600.0
    retries: Retries = field(default_factory=Retries)
    offline: Offline = Offline.WAIT
    #: Not before then.
    start_at: datetime | None = None
    #: Not before a second person has approved.
    approval: bool = False

    def wave_sizes(self, nodes: int) -> tuple[int, ...]:
        """Sizes of all waves, the canary first; their sum is `nodes`."""
        sizes: list[int] = []
        for amount in (self.canary, *self.waves):
            size = min(rounded_up(amount, nodes), nodes - sum(sizes))
            if size:
                sizes.append(size)
        rest = nodes - sum(sizes)
        return (*sizes, rest) if rest else tuple(sizes)

    def parallel(self, nodes: int) -> int:
        return max(1, rounded_down(self.max_parallel, nodes))

    def tolerated(self, nodes: int) -> int:
        """How many of `nodes` may fail before that is too many."""
        return rounded_down(self.max_failures, nodes)

    def kept_healthy(self, nodes: int) -> int:
        return rounded_up(self.min_healthy, nodes)


def rounded_down(amount: Amount, of: int) -> int:
    return amount if isinstance(amount, int) else _percent(amount) * of // 100


def rounded_up(amount: Amount, of: int) -> int:
    return amount if isinstance(amount, int) else math.ceil(_percent(amount) * of / 100)


def _percent(amount: str) -> int:
    return int(amount.removesuffix("%"))
