"""How many nodes may be released now: `max_parallel` and `min_healthy` of the strategy. A frozen fleet releases none."""

from rollout.domain.rollout.events import NodesReleased, RolloutEvent
from rollout.domain.rollout.snapshot import Snapshot
from rollout.domain.rollout.state import RolloutState


def release(state: RolloutState, snapshot: Snapshot) -> list[RolloutEvent]:
    nodes = _nodes_to_release(state, snapshot)
    return [NodesReleased(rollout=state.uid, nodes=nodes)] if nodes else []


def _nodes_to_release(state: RolloutState, snapshot: Snapshot) -> tuple[str, ...]:
    """Return the first ready nodes, as many as both limits allow."""
    if snapshot.frozen:
        return ()
    slots, spare = free_slots(state, snapshot), spare_nodes(state, snapshot)
    chosen: list[str] = []
    for each in snapshot.ready:
        if len(chosen) == slots:
            break
        if each.is_healthy and spare <= 0:
            continue
        chosen.append(each.node)
        spare -= each.is_healthy
    return tuple(chosen)


def free_slots(state: RolloutState, snapshot: Snapshot) -> int:
    """Return how many more nodes `max_parallel` allows to be in progress."""
    return max(0, state.strategy.parallel(state.nodes) - snapshot.in_progress)


def spare_nodes(state: RolloutState, snapshot: Snapshot) -> int:
    """Return how many healthy nodes `min_healthy` allows to be released."""
    kept = state.strategy.kept_healthy(state.nodes)
    return snapshot.healthy - kept if kept else free_slots(state, snapshot)
