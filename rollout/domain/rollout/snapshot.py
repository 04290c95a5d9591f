"""A snapshot of a rollout's operations, nodes and dependencies: all that `Advance` decides from.

`rollout.queries.snapshot` reads it from the database.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rollout.domain.rollout.events import LeftUnchanged
from rollout.domain.rollout.releasable import Ready, Waiting
from rollout.domain.rollout.turns import Blocked
from rollout.messages import FINAL_PHASES, Phase, WayBack


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveCounts:
    """How many nodes of one wave there are and have ended.

    `failed`: those that failed or timed out and are not retried automatically. `lost`: those that succeeded and are now
    offline or have drifted.
    """

    total: int
    ended: int
    failed: int = 0
    lost: int = 0

    @property
    def bad(self) -> int:
        return self.failed + self.lost


class Needs(StrEnum):
    """The state of the rollouts that must succeed first."""

    MET = "met"
    PENDING = "pending"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The rollout's operations at `now`, by the database's clock. Groups of nodes are in the rollout's order.

    Of the waves up to the open one, or of all waves while the nodes are restored:
    `ready`: nodes that may be released. `offline`: scheduled nodes that are offline. `retriable`: failed nodes to retry
    automatically, each with the number of its attempts.

    `healthy`: how many nodes are online, not in progress and have not failed. `to_restore`: nodes that a rollback
    restores; `unchanged`: nodes that it leaves unchanged. `scheduled`: all scheduled nodes; `cancelable`: nodes in
    progress that were not asked to cancel; both only while the rollout is aborted or rolled back.

    Canceled operations: `superseded` by a newer rollout; `decommissioned`, because the node left the fleet, and
    `canceled_by_person`, both only after all operations have ended.

    `blocked`: scheduled nodes that may not be released because of their servers or shards, the first ones. `waits`: what
    some of them wait for, where it is not recorded yet. `unfit`: nodes that no wait makes ready, with the reason to skip
    them. `is_waiting`: a scheduled node waits for its server, or for operations of other rollouts or late ones.

    `behind`: scheduled nodes whose older operation has not ended, if no node is ready or in progress.

    `one_way`: the first node whose former version cannot read what the new one has written, or where that is not known, until the
    rollout is one-way. `tries_way_back`: the first node that replaces a version by a restart is in progress, and shows that: others
    wait for it.

    `restarted_at`: when a server of the open wave was last restarted, as far as its agent has reported it; only while the wave
    soaks. `unrestored`: how many nodes could not be restored. `progressed_at`: the last success, or when the wait for the next
    one began. `wake_at`: when the wait of the next scheduled node ends.
    """

    now: datetime
    counts: Mapping[Phase, int]
    waves: Sequence[WaveCounts] = ()
    ready: tuple[Ready, ...] = ()
    blocked: tuple[Blocked, ...] = ()
    waits: tuple[Waiting, ...] = ()
    unfit: tuple[Waiting, ...] = ()
    is_waiting: bool = False
    behind: tuple[str, ...] = ()
    offline: tuple[str, ...] = ()
    retriable: tuple[tuple[str, int], ...] = ()
    healthy: int = 0
    to_restore: tuple[str, ...] = ()
    unchanged: tuple[LeftUnchanged, ...] = ()
    scheduled: tuple[str, ...] = ()
    cancelable: tuple[str, ...] = ()
    superseded: int = 0
    decommissioned: int = 0
    canceled_by_person: int = 0
    one_way: tuple[str, WayBack] | None = None
    tries_way_back: bool = False
    restarted_at: datetime | None = None
    unrestored: int = 0
    progressed_at: datetime | None = None
    wake_at: datetime | None = None
    needs: Needs = Needs.MET
    frozen: bool = False

    @property
    def in_progress(self) -> int:
        """How many nodes were released and have not ended."""
        return self.total - self.counts.get(Phase.SCHEDULED, 0) - self.ended

    @property
    def ended(self) -> int:
        return sum(self.counts.get(phase, 0) for phase in FINAL_PHASES)

    @property
    def has_ended(self) -> bool:
        """Return True if every operation has ended."""
        return self.ended == self.total

    @property
    def total(self) -> int:
        return sum(self.counts.values())
