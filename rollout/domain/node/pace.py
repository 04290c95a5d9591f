"""How often changes of one node are recorded: a node that flaps must not let the log grow without a bound.

Of each kind `AT_ONCE` changes are recorded as they come, then one in `SECONDS`. What is held back costs nothing: the next
heartbeat says it again, and the newest state is recorded once its turn has come.

Two kinds are not held back. That a module which was as it was to be is not any more is recorded at once, of that module
alone. That a node is back is recorded at once too: a node that has come back too often is not declared offline before its
turn, so it may count as online while it is silent, but never as offline while it works.
"""

from enum import StrEnum

AT_ONCE = 10
SECONDS = 600.0


class Change(StrEnum):
    """What a heartbeat may say that is not known: the node is back, gets other builds, is another, has other modules."""

    CONTACT = "contact"
    PLATFORM = "platform"
    PROFILE = "profile"
    INVENTORY = "inventory"


def is_held(full_at: float, now: float) -> bool:
    """Return True if no change may be recorded at `now`. Both are Unix times of the database's clock.

    `full_at`: from when on `AT_ONCE` changes may be recorded at once, 0 at first. One that is further away than it can be
    was noted before the clock was set back.
    """
    return (AT_ONCE - 1) * SECONDS < full_at - now <= AT_ONCE * SECONDS


def full_after(full_at: float, now: float) -> float:
    """Return the `full_at` after a change that was recorded at `now`."""
    left = full_at - now
    return now + SECONDS + (left if 0 < left <= AT_ONCE * SECONDS else 0.0)
