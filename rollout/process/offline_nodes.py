"""Declares nodes offline that missed their heartbeats."""

import logging
import math
import time
from datetime import datetime, timedelta
from itertools import islice

from eventstore import Append, Condition, acting_as, append, database_now, head, load_states, retry_on_conflict
from rollout.domain.conditions import SCHEDULING
from rollout.domain.node.commands import DeclareOffline
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import node_stream
from rollout.domain.node.pace import Change, is_limited
from rollout.domain.placement.events import placement_stream
from rollout.models import Liveness, Node
from rollout.process.advance import advance_all
from rollout.process.placements import giving_back, placement_changes
from rollout.process.timeouts import CLOCK
from rollout.queries.operations import unfinished_operations_of
from rollout.queries.rollouts import unfinished_rollouts_of

logger = logging.getLogger(__name__)

#: The database's clock was set if it differs by more from one look to the next, seconds.
JUMP_SECONDS = 5.0
#: A node that has been silent for so many of its intervals is offline.
MISSED_HEARTBEATS = 3
#: Nodes that are declared offline in one transaction. Heartbeats are taken in between two of them.
DECLARED_AT_ONCE = 250


class EvenClock:
    """Since when the database's clock has run as fast as this process's. For one thread."""

    def __init__(self) -> None:
        self._offset: float | None = None
        self._since = -math.inf

    def even_seconds(self, by_database: datetime) -> float:
        now = time.monotonic()
        offset = by_database.timestamp() - now
        if self._offset is not None and abs(offset - self._offset) > JUMP_SECONDS:
            logger.warning("The database's clock was set by %.0f s", offset - self._offset)
            self._since = now
        self._offset = offset
        return now - self._since


clock = EvenClock()


def declare_silent_nodes_offline(*, heard_seconds: float = math.inf) -> list[str]:
    """Declare up to `DECLARED_AT_ONCE` silent nodes offline in one append, and withdraw what they had not started.

    Return their names. Do not judge nodes whose three intervals are longer than `heard_seconds`, the time since when
    heartbeats could be heard, or than the time since the database's clock was set.
    """
    with acting_as(CLOCK):
        silent = _declare_offline(heard_seconds)
    advance_all(unfinished_rollouts_of(*silent))
    return silent


def _silent_nodes(heard_seconds: float) -> list[str]:
    """Return the names of silent online nodes, by name, at most `DECLARED_AT_ONCE`.

    A node that came back too often is declared offline later (`domain.node.pace`).
    """
    now = database_now()
    if math.isfinite(heard_seconds):
        heard_seconds = min(heard_seconds, clock.even_seconds(now))
    online = Node.objects.filter(online=True).values("name")
    silent = (
        each.node
        for each in Liveness.objects.filter(node__in=online).order_by("node")
        if MISSED_HEARTBEATS * each.interval_seconds < heard_seconds
        and is_silent(each, now)
        and not is_limited(each.pace.get(Change.CONTACT, 0.0), now.timestamp())
    )
    return list(islice(silent, DECLARED_AT_ONCE))


def is_silent(liveness: Liveness, now: datetime, *, at_most: float = math.inf) -> bool:
    """Return True if the node missed its heartbeats, or was silent for `at_most` seconds."""
    seconds = min(MISSED_HEARTBEATS * liveness.interval_seconds, at_most)
    return liveness.last_seen + timedelta(seconds=seconds) < now


@retry_on_conflict
def _declare_offline(heard_seconds: float) -> list[str]:
    """Declare silent nodes offline. Each attempt reads them again: another writer may have recorded a heartbeat."""
    after = head()
    silent = _silent_nodes(heard_seconds)
    nodes = load_states([node_stream(name) for name in silent], NODE)
    operations = unfinished_operations_of(*silent)
    withdrawn = placement_changes(giving_back(operations))
    by_stream = {each.stream: each for each in withdrawn}
    places: dict[str, set[str]] = {name: set() for name in silent}
    for each in operations:
        places[each.node].add(placement_stream(each.node, each.module_name))
    appends: list[Append] = []
    for name in silent:
        loaded = nodes[node_stream(name)]
        if events := NODE.decide(loaded.state, DeclareOffline(node=name)):
            offline = loaded.append(events)
            following = [by_stream[place] for place in sorted(places[name]) if place in by_stream]
            appends += [offline, *(each.with_metadata(offline.leads_to) for each in following)]
    as_read = Condition(
        after=after,
        streams=[place for of_node in places.values() for place in of_node],  # one of them may be released in between
        event_types=SCHEDULING,
    )
    append(*appends, unless=[as_read])
    return silent
