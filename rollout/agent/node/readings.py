"""What the server was last seen to have, and the numbers that order what is sent of it."""

import threading
import time
import uuid

from rollout.agent.server.facts import ServerFacts
from rollout.messages import Inventory


class Readings:
    """The newest reading of the server. Threads share it: a heartbeat may read it while an operation changes it."""

    def __init__(self) -> None:
        #: New at each start. With a counter, it orders the inventories, also if the clock is wrong.
        self.incarnation = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._counter = self._sequence = 0
        self._newest: tuple[Inventory, ServerFacts] | None = None

    def begin(self) -> Inventory:
        """Return an empty inventory with the next number. It is numbered before it is read: an inventory with a larger
        number is never older."""
        with self._lock:
            self._counter += 1
            self._sequence = max(time.time_ns(), self._sequence + 1)
            return Inventory(sequence=self._sequence, incarnation=self.incarnation, counter=self._counter)

    def keep(self, inventory: Inventory, facts: ServerFacts) -> None:
        """Keep what was read, unless a reading that began later has ended before."""
        with self._lock:
            if self._newest is None or self._newest[0].counter < inventory.counter:
                self._newest = inventory, facts

    @property
    def facts(self) -> ServerFacts:
        """The newest facts; empty if nothing was read yet."""
        newest = self._newest
        return newest[1] if newest else ServerFacts()

    def newest(self) -> tuple[Inventory, ServerFacts] | None:
        """Return the newest reading with the number that it was read under, so that it does not pass for a newer one. None if
        nothing was read yet."""
        return self._newest
