"""Two agents with one identity: the node's disk was copied, or an agent was moved while the old one still runs.

The agent that was heard first keeps the node. The other one is its rival: it gets no commands, and takes over when the first
is silent. A restart on the same host takes over at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rollout.domain.node.inventory_order import InventoryOrder
from rollout.messages import Inventory
from rollout.models import Liveness
from rollout.process.offline_nodes import MISSED_HEARTBEATS


@dataclass(slots=True)
class Rivals:
    """The rivals in a batch of heartbeats. `now` is Unix time by the database's clock."""

    now: float
    #: By node: the rival's incarnation, when it was first heard, and when it was last heard.
    heard: dict[str, dict[str, Any]] = field(default_factory=dict)

    def note(self, row: Liveness, incarnation: str) -> None:
        before = self.heard.get(row.node) or row.rival
        is_known = before.get("incarnation") == incarnation and not self._is_over(row, before)
        since = before["since"] if is_known else self.now
        self.heard[row.node] = {"incarnation": incarnation, "since": since, "heard_at": self.now}

    def duplicate(self, row: Liveness) -> bool | None:
        """Return True if both agents are heard now, False if only one is, None if that is not known yet.

        Messages of an agent that has ended may still have waited in the queue, for one interval at most.
        """
        rival = self.heard.get(row.node) or row.rival
        if not rival or self._is_over(row, rival):
            return False
        is_heard_long = self.now - rival["since"] > row.interval_seconds
        return True if is_heard_long and row.last_seen.timestamp() > rival["since"] else None

    def _is_over(self, row: Liveness, rival: dict[str, Any]) -> bool:
        return not 0 <= self.now - rival.get("heard_at", 0.0) <= MISSED_HEARTBEATS * row.interval_seconds

    def save(self, rows: Iterable[Liveness]) -> None:
        """Store the rivals that were heard. `rows` are locked."""
        changed = [row for row in rows if row.node in self.heard]
        for row in changed:
            row.rival = self.heard[row.node]
        Liveness.objects.bulk_update(changed, ["rival"])


def is_rival(row: Liveness | None, order: InventoryOrder, inventory: Inventory, host: str) -> bool:
    """Return True if the message is from another start of an agent than the one that speaks for the node, which is not
    silent. Agents that do not name their host are ordered by their incarnations alone."""
    if row is None or not row.host or inventory.incarnation == order.incarnation:
        return False
    return host != row.host or inventory.incarnation in order.former
