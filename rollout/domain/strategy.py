"""The strategy of a rollout: how many nodes at a time, how many failures, and what happens then. All fields have defaults.

An amount is a number of nodes, or a percentage such as `"10%"`. Each field says what the percentage refers to, and how it
is rounded: always to the cautious side. Nodes that are skipped from the start do not count. `docs/reference/strategy.md`
has the same for users.
"""

import math
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from rollout.domain.retries import Retries
from rollout.messages import FailedCalls

#: A number of nodes, or `"<0 to 100>%"`.
Amount = int | str

#: The longest `settle_seconds`, seconds: an agent stops any operation after 3,000 s.
LONGEST_SETTLING_SECONDS = 1800.0


class OnFailure(StrEnum):
    """What a rollout does after too many failures: pause, abort, or roll back."""

    PAUSE = "pause"
    ABORT = "abort"
    ROLLBACK = "rollback"


class OnAbort(StrEnum):
    """What an abort does to nodes in progress: let them finish, or have them undo their changes."""

    FINISH = "finish"
    UNDO = "undo"


class Gate(StrEnum):
    """`manual`: after each wave except the last, a person must promote the rollout."""

    NONE = "none"
    MANUAL = "manual"


class Offline(StrEnum):
    """What happens to a node that is offline when its turn comes: wait for it, skip it, or fail it."""

    WAIT = "wait"
    SKIP = "skip"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What makes a server unhealthy while a module settles, apart from a crash, a lost link or lost writes."""

    #: What happens if more than twice the share of the calls of the module's commands fails as before the load, with at
    #: least 100 calls before and after it. `stop`: the node fails. Default: warn.
    failed_calls: FailedCalls = FailedCalls.WARN


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """How a rollout proceeds. Times are in seconds. The API checks the limits that are named here."""

    #: Size of the first wave: an amount of the rollout's nodes, rounded up. The canary prefers nodes that are online and
    #: do not have the module yet. Default 1; 0: no canary.
    canary: Amount = 1
    #: Sizes of the waves after the canary: at most 100 amounts above 0 of the rollout's nodes, each rounded up. All nodes
    #: that are left form one more wave. Default: none.
    waves: tuple[Amount, ...] = ()
    #: The most nodes in progress at a time, over all waves: an amount of the rollout's nodes, rounded down, at least 1.
    #: Default 10.
    max_parallel: Amount = 10
    #: The fewest nodes that stay online, not in progress and without a failure: an amount of the rollout's nodes, rounded
    #: up. Default 0: no limit.
    min_healthy: Amount = 0
    #: The most failures that are accepted: an amount of each wave's nodes and of the rollout's nodes, rounded down. One
    #: more stops the rollout. Default 0.
    max_failures: Amount = 0
    #: What the rollout does when it stops. Default: pause.
    on_failure: OnFailure = OnFailure.PAUSE
    #: What an abort does to nodes in progress. Default: let them finish.
    on_abort: OnAbort = OnAbort.FINISH
    #: How long health is watched after each wave, the last one too. 0 to 86,400 s, default 0.
    soak_seconds: float = 0.0
    #: `manual`: a person must promote the rollout after each wave but the last. Default: none.
    gate: Gate = Gate.NONE
    #: How long a server must run after a load before its node has succeeded. 0 to 1,800 s, and less than
    #: `node_deadline_seconds`, which includes it. Default 10; 0: no wait.
    settle_seconds: float = 10.0
    #: What makes a server unhealthy while it settles.
    health: Health = field(default_factory=Health)
    #: The longest time from a node's release to its end. 1 to 86,400 s, default 300.
    node_deadline_seconds: float = 300.0
    #: The longest time without a success while a wave is in progress. 1 to 604,800 s (7 days), default 600.
    progress_deadline_seconds: float = 600.0
    #: Automatic retries of failed nodes.
    retries: Retries = field(default_factory=Retries)
    #: How long a node may wait for its server, for example while it loads data, over all releases that its agent returns. Then
    #: the node is skipped. 1 to 604,800 s (7 days), default 3,600.
    ready_deadline_seconds: float = 3600.0
    #: A label such as `zone`. Nodes in progress, of any rollout, then have one value of this label at a time. Default none.
    domain: str = ""
    #: The weekly window in which servers are restarted, such as `Sat 01:00-05:00 Europe/Berlin` or `02:00-04:00 UTC`. Outside of
    #: it, nothing is released that restarts a server. Default empty: always.
    window: str = ""
    #: The longest time for which the writes of a shard wait while one of its replicas becomes the master. 0.1 to 60 s, default 5.
    pause_seconds: float = 5.0
    #: What happens to a node that is offline when its turn comes. Default: wait.
    offline: Offline = Offline.WAIT
    #: The rollout does not start before this time. Default None: it starts at once.
    start_at: datetime | None = None
    #: True: the rollout does not start before a second person has approved it. Default False.
    approval: bool = False

    def wave_sizes(self, nodes: int) -> tuple[int, ...]:
        """Return the sizes of all waves, the canary first. Their sum is `nodes`."""
        sizes: list[int] = []
        for amount in (self.canary, *self.waves):
            size = min(rounded_up(amount, nodes), nodes - sum(sizes))
            if size:
                sizes.append(size)
        rest = nodes - sum(sizes)
        return (*sizes, rest) if rest else tuple(sizes)

    def parallel(self, nodes: int) -> int:
        """Return how many of `nodes` may be in progress at a time."""
        return max(1, rounded_down(self.max_parallel, nodes))

    def tolerated(self, nodes: int) -> int:
        """Return how many of `nodes` may fail."""
        return rounded_down(self.max_failures, nodes)

    def kept_healthy(self, nodes: int) -> int:
        """Return how many of `nodes` must stay healthy."""
        return rounded_up(self.min_healthy, nodes)


def rounded_down(amount: Amount, of: int) -> int:
    return amount if isinstance(amount, int) else _percent(amount) * of // 100


def rounded_up(amount: Amount, of: int) -> int:
    return amount if isinstance(amount, int) else math.ceil(_percent(amount) * of / 100)


def _percent(amount: str) -> int:
    return int(amount.removesuffix("%"))
