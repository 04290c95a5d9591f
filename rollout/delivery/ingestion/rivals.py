"""Two agents with one identity: the node's disk was copied, or an agent was moved while the old one still runs.

The agent that was heard first keeps the node. The other one is its rival: it gets no commands, and takes over when the first
is silent. A restart on the same host takes over at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from rollout.domain.node.inventory_order import InventoryOrder
from rollout.messages import Inventory
from rollout.models import Liveness
from rollout.process.offline_nodes import MISSED_HEARTBEATS

#: The most rivals of one node that are remembered.
REMEMBERED = 8

#: By incarnation of a rival: when it was first heard and when it was last heard, Unix time.
Times = dict[str, tuple[float, float]]


@dataclass(slots=True)
class Rivals:
    """The rivals in a batch of heartbeats. `now` is Unix time by the database's clock."""

    now: float
    #: By node, those that are not silent.
    heard: dict[str, Times] = field(default_factory=dict)

    def note(self, row: Liveness, incarnation: str) -> None:
        """Note that a rival was heard. If there are too many, those that were heard first are remembered."""
        times = self._times(row)
        since, _ = times.get(incarnation, (self.now, self.now))
        if incarnation in times or len(times) < REMEMBERED:
            times[incarnation] = (since, self.now)
        self.heard[row.node] = times

    def is_duplicate(self, row: Liveness, incarnation: str) -> bool | None:
        """Return True if the node's agent and a rival are both heard, False if only one is, None if that is not known yet.

        `incarnation`: that of the node's agent, which may have been a rival before. Messages of an agent that has ended may
        still wait in the queue, for one interval at most. So both must have been heard for longer than that.
        """
        rivals = [times for rival, times in self._times(row).items() if rival != incarnation]
        if not rivals:
            return False
        last_seen = row.last_seen.timestamp()
        both = any(min(heard_at, last_seen) - since > row.interval_seconds for since, heard_at in rivals)
        return True if both else None

    def _times(self, row: Liveness) -> Times:
        """Return the rivals that are not silent."""
        silence = MISSED_HEARTBEATS * row.interval_seconds
        times = self.heard.get(row.node) or row.rival
        return {
            incarnation: (since, heard_at)
            for incarnation, (since, heard_at) in times.items()
            if 0 <= self.now - heard_at <= silence
        }

    def save(self, rows: Iterable[Liveness]) -> None:
        """Store the rivals that were heard. `rows` are locked."""
        changed = [row for row in rows if row.node in self.heard]
        for row in changed:
            row.rival = self.heard[row.node]
        Liveness.objects.bulk_update(changed, ["rival"])


def is_rival(agent_host: str, order: InventoryOrder, inventory: Inventory, host: str | None) -> bool:
    """Return True if the message is from another start of an agent than the one that speaks for the node, which is not
    silent.

    `agent_host`: where the node's agent runs; empty if it does not say. `host`: where the sender runs; None if a message of
    this kind never says so. Agents that do not name their host are ordered by their incarnations alone.
    """
    if not agent_host or host == "" or inventory.incarnation == order.incarnation:
        return False
    return host != agent_host or inventory.incarnation in order.former
