"""Advances rollouts as the log grows and time passes: those that may have a next step, and no others.

A rollout is advanced again when an event concerns it, when the place of one of its nodes changes (`process.wakes`), at the
moment that its last `advance` has named, and after an error. A rollout that only waits costs nothing.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import get_args
from uuid import UUID

from eventstore import RecordedEvent, Subscription, database_now, head, stale_projections
from rollout.domain.fleet.events import FleetFrozen, FleetThawed, ReplicaIgnored, ReplicaUnignored
from rollout.domain.node.events import NODE_PHASES, NodeAddressSet, NodeDrifted, NodeDriftEnded
from rollout.domain.placement.events import PlacementEvent, ReportRejected
from rollout.domain.rollout.events import RolloutEvent, RolloutFinished
from rollout.process.advance import advance_all
from rollout.process.wakes import stamps
from rollout.queries.rollouts import unfinished_rollouts, unfinished_rollouts_among, unfinished_rollouts_that_need

#: If the log has grown by more events since the last poll, all unfinished rollouts are advanced instead.
MOST_EVENTS = 10_000

#: Without rejected reports: they change nothing, and may name any rollout.
_OF_PLACES = (*(set(get_args(PlacementEvent)) - {ReportRejected}), NodeDrifted, NodeDriftEnded)
_OF_ROLLOUTS = get_args(RolloutEvent)
_OF_ALL = (FleetFrozen, FleetThawed, ReplicaIgnored, ReplicaUnignored, NodeAddressSet)


class ProcessManager:
    """Knows for one process which unfinished rollouts may have a next step. The first poll advances all of them. So does
    each poll while a projection waits for its rebuild, because its rows change without an event."""

    def __init__(self) -> None:
        #: The events that are not handled yet; None if all rollouts must be advanced.
        self._subscription: Subscription | None = None
        self._wakes: dict[str, datetime] = {}
        self._failed: set[str] = set()
        #: The newest wake of each rollout that was seen (`process.wakes`).
        self._stamps: Mapping[str, UUID] = {}

    def poll(self) -> datetime | None:
        """Advance rollouts. Return when the next one is due even if nothing happens, None if none is."""
        is_stale = bool(stale_projections())
        if is_stale:
            self._subscription = None
        end = head()
        newest = stamps()  # before the rollouts are read
        woken = [uid for uid, stamp in newest.items() if self._stamps.get(uid) != stamp]
        uids = self._to_advance(end, woken)
        moments = advance_all(uids)
        self._wakes = {uid: at for uid, at in (self._wakes | moments).items() if at is not None}
        self._failed, self._stamps = set(uids) - moments.keys(), newest
        self._subscription = None if is_stale else Subscription(after=end, event_classes=CONCERNING)
        return min(self._wakes.values(), default=None)

    def _to_advance(self, end: int, woken: Collection[str]) -> Collection[str]:
        new = self._subscription
        if new is None or not 0 <= new.lag(end) <= MOST_EVENTS:
            self._wakes = {}
            return unfinished_rollouts()
        now = database_now()
        due = [uid for uid, at in self._wakes.items() if at <= now]
        concerned = concerned_by(new.pending(up_to=end))
        return list(dict.fromkeys([*concerned, *due, *woken, *sorted(self._failed)]))


CONCERNING: tuple[type, ...] = (*_OF_PLACES, *NODE_PHASES, *_OF_ROLLOUTS, *_OF_ALL)


def concerned_by(events: Iterable[RecordedEvent]) -> list[str]:
    """Return the unfinished rollouts that may have a next step because of the events. At most two queries."""
    happened = [each.event for each in events]
    if any(isinstance(each, _OF_ALL) for each in happened):
        return unfinished_rollouts()
    # Other rollouts too: an operation that ends frees the one that waits for it, and changes the module on the node.
    places = [each for each in happened if isinstance(each, _OF_PLACES)]
    concerned = unfinished_rollouts_among(
        {each.rollout for each in happened if hasattr(each, "rollout")},
        nodes={each.node for each in happened if isinstance(each, NODE_PHASES)},
        places={(each.node, each.module_name) for each in places},
    )
    ended = {each.rollout for each in happened if isinstance(each, RolloutFinished)}
    return [*concerned, *(unfinished_rollouts_that_need(ended) if ended else ())]
