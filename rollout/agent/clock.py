"""Whether a command has expired, also on a node whose clock is wrong."""

import time
from collections.abc import Callable

from rollout.agent.failure import Failure
from rollout.messages import Command, Reason

#: How far apart clocks are that nobody need set, seconds.
SLACK = 60.0


class Clock:
    """The node's clock, and another one for when they may differ: `reference` returns Unix time, or None."""

    def __init__(self, reference: Callable[[], float | None] = lambda: None) -> None:
        self._reference = reference

    def is_over(self, command: Command) -> bool:
        """Return True if `command` has expired by each clock that can be right: none that is before it was sent can.

        Raises: `Failure` (clock_skew) when only the node's clock says so, and cannot be checked.
        """
        sent_at = command.sent_at or 0.0
        own = time.time()
        if sent_at - SLACK <= own < command.expires:
            return False
        other = self._reference()
        clocks = [each for each in (own, other) if each is not None and each >= sent_at - SLACK]
        if not clocks or any(each < command.expires for each in clocks):
            return False
        if other is None and command.sent_at is not None:
            raise Failure(
                Reason.CLOCK_SKEW,
                f"By this node's clock the command came {own - sent_at:.0f} s after it was sent, and the broker's clock "
                "could not be asked. Set the node's clock, then retry.",
            )
        return True
