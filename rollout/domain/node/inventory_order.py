"""Which inventory of a node is newer. A node's clock orders nothing: it may be wrong or be set.

Each start of an agent has an id, its incarnation, and counts its inventories. An incarnation that was never heard is
newer than all others. Agents of older releases have no incarnations: their sequence number orders them.
"""

from dataclasses import dataclass, replace

from rollout.messages import Inventory

#: The most by which a counter may grow from one inventory to the next: all in between may have been lost.
LARGEST_STEP = 1_000_000
#: How many earlier incarnations of a node are kept.
REMEMBERED = 16
#: An inventory without an incarnation is older than another if its sequence is lower by less than this, nanoseconds.
#: If it is lower by more, the node's clock was set back.
RECENT = 600 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryOrder:
    """The node's current incarnation, the counter of its newest inventory, and its `former` incarnations."""

    incarnation: str = ""
    counter: int = 0
    former: tuple[str, ...] = ()

    def after(self, inventory: Inventory, *, hello: bool, silent: bool) -> "InventoryOrder | None":
        """Return the order after `inventory`, or None if it is older than the newest one or implausible.

        `hello`: the agent has just started. `silent`: the node has been silent for so long that it counts as offline. Then
        any inventory is accepted, so that a wrong order lasts no longer than that.
        """
        same = inventory.incarnation == self.incarnation
        if same and not inventory.incarnation:
            return self  # `sequence` orders it
        if not silent and (self._is_former(inventory, hello=hello) or not self.is_plausible(inventory)):
            return None
        if same:
            is_newer = silent or inventory.counter > self.counter
            return replace(self, counter=inventory.counter) if is_newer else None
        former = [each for each in (*self.former, self.incarnation) if each not in {"", inventory.incarnation}]
        return InventoryOrder(
            incarnation=inventory.incarnation, counter=inventory.counter, former=tuple(former[-REMEMBERED:])
        )

    def is_plausible(self, inventory: Inventory) -> bool:
        """Return True if the counter has grown by `LARGEST_STEP` at most."""
        before = self.counter if inventory.incarnation == self.incarnation else 0
        return inventory.counter - before <= LARGEST_STEP

    def _is_former(self, inventory: Inventory, *, hello: bool) -> bool:
        """A start of an agent without incarnations can be new: an older release was installed over a newer one."""
        return inventory.incarnation in self.former or not (inventory.incarnation or hello)


def is_earlier(inventory: Inventory, sequence: int) -> bool:
    """Return True if an agent without incarnations made this inventory before the one with the number `sequence`."""
    return not inventory.incarnation and 0 <= sequence - inventory.sequence < RECENT
