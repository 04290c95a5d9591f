"""Rollback of a rollout: wait until no operation is in progress, then restore each node that it changed.

Which nodes a newer rollout has changed since, and so stay unchanged, is decided in `placement.rollback`.
"""

from collections.abc import Sequence

from rollout.domain.rollout.events import LeftUnchanged, NodesRetried, RollbackStarted, RolloutEvent, RolloutPhase
from rollout.domain.rollout.outcome import finish
from rollout.domain.rollout.release_limits import release
from rollout.domain.rollout.snapshot import Snapshot
from rollout.domain.rollout.state import RolloutState
from rollout.domain.words import MOST_NAMED, counted, some_of

#: A rollout that ended in one of these phases is rolled back by a new rollout.
ROLLED_BACK_BY_A_NEW_ROLLOUT = frozenset(
    {
        RolloutPhase.SUCCEEDED,
        RolloutPhase.COMPLETED_WITH_FAILURES,
        RolloutPhase.FAILED,
        RolloutPhase.ABORTED,
        RolloutPhase.SUPERSEDED,
    }
)


def restore(state: RolloutState, snapshot: Snapshot) -> list[RolloutEvent]:
    if not state.restoring:
        if not snapshot.has_ended:
            return []
        if snapshot.to_restore or snapshot.unchanged:
            started = RollbackStarted(rollout=state.uid, nodes=snapshot.to_restore, left_alone=snapshot.unchanged)
            return [] if snapshot.frozen else [started]
    if snapshot.has_ended:
        return finish(state, snapshot)
    if snapshot.retriable:
        nodes = tuple(node for node, _ in snapshot.retriable)
        return [NodesRetried(rollout=state.uid, nodes=nodes, automatic=True)]
    return release(state, snapshot)


def left_unchanged_sentence(left: Sequence[LeftUnchanged]) -> str:
    """Return a sentence that names some of the nodes and the newer rollouts; empty if there are none."""
    if not left:
        return ""
    groups = [f"{some_of(each.nodes)} by rollout {each.rollout}" for each in left[:MOST_NAMED]]
    if (more := len(left) - MOST_NAMED) > 0:
        groups.append(f"others by {counted(more, 'more rollout')}")
    return f"Left unchanged, because a newer rollout has changed them or is about to: {'; '.join(groups)}."
