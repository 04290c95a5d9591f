"""Which nodes may be released now: `max_parallel`, `min_healthy` and `domain` of the strategy, one copy of a shard at a
time, and one node of a host at a time. A frozen fleet releases none."""

from collections.abc import Sequence

from rollout.domain.rollout.events import NodesReleased, RolloutEvent
from rollout.domain.rollout.snapshot import Ready, Snapshot
from rollout.domain.rollout.state import RolloutState


def release(state: RolloutState, snapshot: Snapshot) -> list[RolloutEvent]:
    nodes = _nodes_to_release(state, snapshot)
    return [NodesReleased(rollout=state.uid, nodes=nodes)] if nodes else []


def _nodes_to_release(state: RolloutState, snapshot: Snapshot) -> tuple[str, ...]:
    """Return the first ready nodes, as many as all limits allow."""
    if snapshot.frozen:
        return ()
    slots, spare = free_slots(state, snapshot), spare_nodes(state, snapshot)
    chosen: list[Ready] = []
    for each in snapshot.ready:
        if len(chosen) == slots:
            break
        if (each.is_healthy and spare <= 0) or not _fits(each, chosen, snapshot):
            continue
        chosen.append(each)
        spare -= each.is_healthy
    return tuple(each.node for each in chosen)


def _fits(ready: Ready, chosen: Sequence[Ready], snapshot: Snapshot) -> bool:
    """Return True if no other node of its shard or host is chosen, and all are in one failure domain."""
    if ready.domain and ready.domain not in (
        snapshot.busy_domains or {each.domain for each in chosen} or {ready.domain}
    ):
        return False
    return not any(
        (ready.shard and each.shard == ready.shard) or (ready.host and each.host == ready.host) for each in chosen
    )


def free_slots(state: RolloutState, snapshot: Snapshot) -> int:
    """Return how many more nodes `max_parallel` allows to be in progress."""
    return max(0, state.strategy.parallel(state.nodes) - snapshot.in_progress)


def spare_nodes(state: RolloutState, snapshot: Snapshot) -> int:
    """Return how many healthy nodes `min_healthy` allows to be released."""
    kept = state.strategy.kept_healthy(state.nodes)
    return snapshot.healthy - kept if kept else free_slots(state, snapshot)
