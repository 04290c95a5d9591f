"""How often changes of one node are recorded: a rate limit, so that a flapping node cannot fill the log.

Of each kind, `BURST` changes are recorded at once, then one each `SECONDS`. An operation of a rollout
allows `OPERATION` more: what Modfleet itself changes must be known, or the next plan would rely on what is old. A change that is not recorded now is not lost:
the next heartbeat contains it again.

Four kinds of changes are always recorded at once. One is that a module has left its desired state; then only that module
is recorded. Another is that a node is degraded; in exchange, it recovers only when the limit allows it. The third is that
two agents of a node are heard; in exchange, this ends only when the limit allows it. The fourth is that a node is back. In
exchange, a node that has come back too often is declared offline only when the limit allows it: it may count as online
while it is silent, but never as offline while it works.
"""

from enum import StrEnum

BURST = 10
SECONDS = 600.0
#: So many more changes of each kind may be recorded after each operation that the node was asked for: its files, its loaded modules and
#: its server's process are others then.
OPERATION = 3


class Change(StrEnum):
    """What a heartbeat can change: the node is back, has another platform, another profile, other modules, is degraded or
    recovers, has two agents or one, or its server has another configuration."""

    CONTACT = "contact"
    PLATFORM = "platform"
    PROFILE = "profile"
    INVENTORY = "inventory"
    HEALTH = "health"
    DUPLICATE = "duplicate"
    CONFIGURATION = "configuration"


def is_limited(full_at: float, now: float, *, burst: int = BURST, seconds: float = SECONDS) -> bool:
    """Return True if no change may be recorded at `now`. Both are Unix times of the database's clock.

    `full_at`: from when on `burst` changes may be recorded at once, 0 at first. A value further in the future than
    possible was stored before the clock was set back, and limits nothing.
    """
    return (burst - 1) * seconds < full_at - now <= burst * seconds


def after_operation(full_at: float, *, seconds: float = SECONDS) -> float:
    """Return the `full_at` after an operation has ended on the node. A node cannot use this without limit:
    only operations that a rollout has released count."""
    return max(0.0, full_at - OPERATION * seconds)


def full_after(full_at: float, now: float, *, burst: int = BURST, seconds: float = SECONDS) -> float:
    """Return the `full_at` after a change that was recorded at `now`."""
    left = full_at - now
    return now + seconds + (left if 0 < left <= burst * seconds else 0.0)
