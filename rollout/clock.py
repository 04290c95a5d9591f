"""What time brings: silent nodes, overdue operations, and what has become impossible meanwhile."""

import math
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from eventstore.context import acting_as
from eventstore.store import Condition, append, database_now, head
from eventstore.transact import load_state, retry_on_conflict
from rollout import selectors
from rollout.advance import advance_all
from rollout.decider.node import NODE, DeclareOffline
from rollout.decider.placement import End, GiveBack
from rollout.events import node_stream, placement_stream
from rollout.messages import Phase, Reason
from rollout.models import Liveness, Node, Operation
from rollout.placements import caused_changes, end_of_gone, placement_changes
from rollout.premises import SCHEDULING

#: The actor of what time brings.
CLOCK = "system:clock"
#: A node that has been silent for so many of its intervals is offline.
MISSED_BEATS = 3
#: Operations that are ended in one transaction.
ENDED_AT_ONCE = 500


def declare_silent_nodes_offline(*, heard_seconds: float = math.inf) -> list[str]:
    """Names of the nodes that are offline from now on. Gives back what they had not started.

    Whose three intervals are longer than `heard_seconds`, the time since when heartbeats could be heard, is not judged.
    """
    now = database_now()
    online = Node.objects.filter(online=True).values("name")
    silent = [
        each.node
        for each in Liveness.objects.filter(node__in=online)
        if MISSED_BEATS * each.interval_seconds < heard_seconds and is_silent(each, now)
    ]
    with acting_as(CLOCK):
        for name in silent:
            _declare_offline(name)
    advance_all(selectors.unfinished_rollouts_of(*silent))
    return silent


def is_silent(liveness: Liveness, now: datetime, *, at_most: float = math.inf) -> bool:
    """Return whether the node missed its heartbeats, or was silent for `at_most` seconds."""
    seconds = min(MISSED_BEATS * liveness.interval_seconds, at_most)
    return liveness.last_seen + timedelta(seconds=seconds) < now


@retry_on_conflict
def _declare_offline(name: str) -> None:
    after = head()
    loaded = load_state(node_stream(name), NODE)
    operations = selectors.unfinished_operations_of(name)
    given_back = [
        GiveBack(node=name, module_name=operation.module_name)
        for operation in operations
        if operation.phase == Phase.QUEUED
    ]
    as_read = Condition(
        after=after,
        streams=[placement_stream(name, each.module_name) for each in operations],  # one may be released meanwhile
        event_types=SCHEDULING,
    )
    offline = loaded.append(NODE.decide(loaded.state, DeclareOffline(node=name)))
    following = [each.with_metadata(offline.leads_to) for each in placement_changes(given_back)]
    append(offline, *following, unless=[as_read])


def end_overdue_operations() -> int:
    """How many operations were timed out: released, and not ended by their deadline."""
    return _end_all(selectors.overdue_operations(database_now()), _timed_out)


def _timed_out(operation: Operation) -> End:
    return End(
        rollout=operation.rollout,
        node=operation.node,
        module_name=operation.module_name,
        phase=Phase.TIMED_OUT,
        reason=Reason.NODE_DEADLINE,
        message=f"{operation.node} did not finish in time; it was last {operation.phase}.",
        attempt=operation.attempt,
    )


def end_operations_of_gone_nodes() -> int:
    """How many operations were ended that were scheduled on a node in the moment in which it left the fleet."""
    return _end_all(selectors.operations_of_gone_nodes(), end_of_gone)


def end_for_lack_of_a_build(operations: Sequence[Operation]) -> int:
    """How many operations were ended because the build that they were to bring is not there any more."""
    return _end_all(operations, _without_a_build)


def _without_a_build(operation: Operation) -> End:
    return End(
        rollout=operation.rollout,
        node=operation.node,
        module_name=operation.module_name,
        phase=Phase.FAILED,
        reason=Reason.FETCH_FAILED,
        message=f"The build of {operation.module_name} {operation.version} for {operation.node} is gone.",
        attempt=operation.attempt,
    )


def _end_all(operations: Sequence[Operation], end: Callable[[Operation], End]) -> int:
    """What each of the operations has come to leads to its end."""

    @retry_on_conflict
    def attempt(some: Sequence[Operation]) -> int:
        return len(append(*caused_changes((end(each), each.leads_to(CLOCK)) for each in some)))

    ended = sum(
        attempt(operations[start : start + ENDED_AT_ONCE]) for start in range(0, len(operations), ENDED_AT_ONCE)
    )
    advance_all(dict.fromkeys(each.rollout for each in operations))
    return ended
