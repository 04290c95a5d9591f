"""Moves rollouts on as the log grows and time passes: those that may have something to do, and no others.

What `advance` looks at changes with events, and at the moment that it names itself. So a rollout is looked at again when
an event concerns it, when its moment has come, and when it could not be moved on. One that only waits costs nothing.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import get_args

from eventstore import RecordedEvent, Subscription, database_now, head, stale_projections
from rollout.domain.fleet.events import FleetFrozen, FleetThawed
from rollout.domain.node.events import NODE_PHASES, NodeDrifted, NodeDriftEnded
from rollout.domain.placement.events import PlacementEvent, ReportRejected
from rollout.domain.rollout.events import RolloutEvent, RolloutFinished
from rollout.process.advance import advance_all
from rollout.queries.rollouts import unfinished_rollouts, unfinished_rollouts_among, unfinished_rollouts_that_need

#: When the log has grown by more events since the last look, all rollouts that have not ended are looked at instead.
MOST_EVENTS = 10_000

#: Not a rejected report, which changes nothing and may name any rollout.
_OF_PLACES = (*(set(get_args(PlacementEvent)) - {ReportRejected}), NodeDrifted, NodeDriftEnded)
_OF_ROLLOUTS = get_args(RolloutEvent)
_OF_ALL = (FleetFrozen, FleetThawed)


class Follower:
    """What one process knows of the rollouts that have not ended: nothing at first, and then it looks at all of them. So
    it does while a projection waits for its rebuild, whose rows change without an event."""

    def __init__(self) -> None:
        #: The events that no look has handled; None if all rollouts have to be looked at.
        self._subscription: Subscription | None = None
        self._wakes: dict[str, datetime] = {}
        self._failed: set[str] = set()

    def look(self) -> datetime | None:
        """Move on what can be moved on. When to look again though nothing has happened, if ever."""
        is_stale = bool(stale_projections())
        if is_stale:
            self._subscription = None
        end = head()
        uids = self._to_look_at(end)
        moments = advance_all(uids)
        self._wakes = {uid: at for uid, at in (self._wakes | moments).items() if at is not None}
        self._failed = set(uids) - moments.keys()
        self._subscription = None if is_stale else Subscription(after=end, event_classes=CONCERNING)
        return min(self._wakes.values(), default=None)

    def _to_look_at(self, end: int) -> Collection[str]:
        new = self._subscription
        if new is None or not 0 <= new.lag(end) <= MOST_EVENTS:
            self._wakes = {}
            return unfinished_rollouts()
        now = database_now()
        due = [uid for uid, at in self._wakes.items() if at <= now]
        concerned = concerned_by(new.pending(up_to=end))
        return list(dict.fromkeys([*concerned, *due, *sorted(self._failed)]))


CONCERNING: tuple[type, ...] = (*_OF_PLACES, *NODE_PHASES, *_OF_ROLLOUTS, *_OF_ALL)


def concerned_by(events: Iterable[RecordedEvent]) -> list[str]:
    """The unfinished rollouts that may have something to do because of the events. At most two queries."""
    happened = [each.event for each in events]
    if any(isinstance(each, _OF_ALL) for each in happened):
        return unfinished_rollouts()
    # Of others too: an operation that ends sets free what waits behind it, and changes what the module is on the node.
    places = [each for each in happened if isinstance(each, _OF_PLACES)]
    concerned = unfinished_rollouts_among(
        {each.rollout for each in happened if hasattr(each, "rollout")},
        nodes={each.node for each in happened if isinstance(each, NODE_PHASES)},
        places={(each.node, each.module_name) for each in places},
    )
    ended = {each.rollout for each in happened if isinstance(each, RolloutFinished)}
    return [*concerned, *(unfinished_rollouts_that_need(ended) if ended else ())]
