"""The order in which nodes sent their messages, and how often what is known about a node changes."""

from collections.abc import Iterable, Mapping

from eventstore import database_now
from rollout.delivery.ingestion.rivals import Rivals, is_rival
from rollout.domain.node.inventory_order import InventoryOrder
from rollout.domain.node.pace import Change, after_operation, full_after, is_limited
from rollout.messages import Inventory
from rollout.models import Liveness
from rollout.process.offline_nodes import is_silent
from rollout.transport import DROPPED

#: A wrong order counts for three heartbeat intervals of the node, and for no longer than this, seconds.
LONGEST_ORDER_SECONDS = 180.0


class MessageOrder:
    """What was received from some nodes, up to the message that is being read."""

    def __init__(self, queue: str, names: Iterable[str]) -> None:
        self.now = database_now()
        #: By node, if the batch has a newer message of the node.
        self.heard: dict[str, InventoryOrder] = {}
        #: Nodes whose counter is higher than it can be.
        self.doubted: set[str] = set()
        #: Why a message is not accepted, and words about it.
        self._rejected: list[tuple[str, str]] = []
        self._queue = queue
        self.rivals = Rivals(self.now.timestamp())
        #: Nodes with a message of a new start of their agent.
        self.restarted: set[str] = set()
        self._rows = {row.node: row for row in Liveness.objects.filter(node__in=names)}
        #: Where the agents of the batch run that speak for their nodes.
        self._hosts: dict[str, str] = {}
        self._paces: dict[str, dict[str, float]] = {name: dict(row.pace) for name, row in self._rows.items()}
        #: Nodes with a change that is being recorded.
        self.changed: set[str] = set()

    def accepts(self, node: str, inventory: Inventory, *, hello: bool = False, host: str | None = None) -> bool:
        """Return True if `inventory` is newer than all that was received from the node. Later messages must be newer still.

        `host`: where the agent runs; None if a message of this kind never says so.
        """
        row = self._rows.get(node)
        before = self.heard.get(node) or _heard(row)
        silent = node not in self.heard and (row is None or is_silent(row, self.now, at_most=LONGEST_ORDER_SECONDS))
        if row is not None and not silent and is_rival(self._hosts.get(node, row.host), before, inventory, host):
            if host:
                self.rivals.note(row, inventory.incarnation)
            return False
        after = before.after(inventory, hello=hello, silent=silent)
        if after is not None:
            if after.incarnation != before.incarnation:
                self.restarted.add(node)
            self.heard[node] = after
            if host is not None:
                self._hosts[node] = host
            return True
        if not before.is_plausible(inventory):
            self.doubted.add(node)
            self.reject("implausible", f"{node} counted {inventory.counter} after {before.counter}")
        return False

    def overtook(self, node: str, inventory: Inventory, *, recorded: int) -> bool:
        """Return True if a newer inventory was received before this one, and was not recorded, because a change must wait.

        `recorded`: the number of the newest recorded inventory.
        """
        heard = self.heard.get(node) or _heard(self._rows.get(node))
        is_current = inventory.incarnation == heard.incarnation != ""
        return is_current and recorded < inventory.counter <= heard.counter

    def has_row(self, node: str) -> bool:
        return node in self._rows

    def is_duplicate(self, node: str) -> bool | None:
        """Return True if two agents of the node are heard now, None if that is not known yet."""
        row = self._rows.get(node)
        heard = self.heard.get(node) or _heard(row)
        return False if row is None else self.rivals.is_duplicate(row, heard.incarnation)

    def must_wait(self, node: str, change: Change) -> bool:
        """Return True if the node has changed so often that this change is not recorded yet."""
        return is_limited(self.pace(node).get(change, 0.0), self.now.timestamp())

    def count_change(self, node: str, change: Change) -> None:
        """Count a change that is being recorded."""
        self.changed.add(node)
        if not self.must_wait(node, change):
            pace = self._paces.setdefault(node, {})
            pace[change] = full_after(pace.get(change, 0.0), self.now.timestamp())

    def allow_more(self, nodes: Iterable[str]) -> None:
        """An operation that was in progress has ended on each of these nodes. Call this after `refresh`."""
        for node in nodes:
            self._paces[node] = {change: after_operation(full_at) for change, full_at in self.pace(node).items()}

    def refresh(self, rows: Iterable[Liveness]) -> None:
        """Take over the changes that other processes have counted since, from rows that are locked.

        Nodes with a change that is being recorded have none: the append would have been refused.
        """
        self._paces |= {row.node: dict(row.pace) for row in rows if row.node not in self.changed}

    def save_paces(self, rows: Iterable[Liveness]) -> None:
        """Store the changes that were counted. `rows` are locked."""
        changed = [row for row in rows if row.node in self.changed]
        for row in changed:
            row.pace = self.pace(row.node)
        Liveness.objects.bulk_update(changed, ["pace"])

    def pace(self, node: str) -> Mapping[str, float]:
        return self._paces.get(node, {})

    def reject(self, reason: str, words: str) -> None:
        self._rejected.append((reason, words))

    def count_rejected(self) -> None:
        """Count the messages that were not accepted. Call this once, after the others are recorded: an attempt may be
        repeated."""
        for reason, words in self._rejected:
            DROPPED.note(self._queue, reason, words)


def _heard(row: Liveness | None) -> InventoryOrder:
    return (
        InventoryOrder(incarnation=row.incarnation, counter=row.counter, former=tuple(row.former))
        if row
        else InventoryOrder()
    )


def locked_rows(names: Iterable[str]) -> list[Liveness]:
    """Return the rows of the nodes, locked until the transaction ends.

    They are always locked in the same order: two workers that lock the same rows in different orders would wait for
    each other.
    """
    return list(Liveness.objects.filter(node__in=names).order_by("node").select_for_update())
