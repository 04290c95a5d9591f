"""The expiry of commands, also on a node whose clock is wrong."""

import time
from collections.abc import Callable

from rollout.agent.failure import Failure
from rollout.messages import Command, Reason

#: Clocks may differ by so much without an error, seconds.
SLACK = 60.0


class Expiry:
    """Compares commands with the node's clock, and with `reference` where that may be wrong: Unix time, or None."""

    def __init__(self, reference: Callable[[], float | None] = lambda: None) -> None:
        self._reference = reference

    def has_expired(self, command: Command) -> bool:
        """Return True if `command` has expired by each clock that can be right. A clock that shows a time before the
        command was sent is wrong.

        Raises: `Failure` (clock_skew) if the command has expired by the node's clock, and no other clock can be asked.
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
                f"By this node's clock the command arrived {own - sent_at:.0f} s after it was sent, and the broker's clock "
                "could not be read. Set the node's clock, then retry.",
            )
        return True
