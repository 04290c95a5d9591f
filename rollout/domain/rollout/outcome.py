"""How a rollout ends: succeeded, completed with failures, failed, aborted, rejected, superseded, rolled back."""

from rollout.domain.rollout.events import RolloutEvent, RolloutFinished, RolloutPhase
from rollout.domain.rollout.snapshot import Snapshot
from rollout.domain.rollout.state import RolloutState
from rollout.messages import Phase, Reason

#: The message of an end where nothing was done because people canceled every node.
ALL_CANCELED = "A person canceled the rollout on all remaining nodes."


def finish(state: RolloutState, snapshot: Snapshot) -> list[RolloutEvent]:
    """Return the end of a rollout whose operations have all ended."""
    if state.rejected:
        return [finished(state, RolloutPhase.REJECTED, Reason.MANUAL, state.message)]
    if state.phase == RolloutPhase.ABORTING:
        return [finished(state, RolloutPhase.ABORTED, state.reason, state.message)]
    if state.phase == RolloutPhase.ROLLING_BACK:
        return [_rolled_back(state, snapshot)]
    phase = outcome(snapshot)
    if phase in {RolloutPhase.ABORTED, RolloutPhase.SUPERSEDED}:
        return [_nothing_done(state, snapshot)]
    if phase == RolloutPhase.SUCCEEDED:
        return [finished(state, phase, None, "")]
    return [finished(state, phase, state.reason, state.message)]


def outcome(snapshot: Snapshot) -> RolloutPhase:
    """Return the final phase by what became of the nodes.

    Nodes that left the fleet or that a person canceled do not count. If no other node is left, nothing was done.
    """
    good = snapshot.counts.get(Phase.SUCCEEDED, 0) + snapshot.counts.get(Phase.SKIPPED, 0)
    counted = snapshot.total - snapshot.decommissioned - snapshot.canceled_by_person
    if snapshot.total and not counted:
        return RolloutPhase.ABORTED
    if good == counted:
        return RolloutPhase.SUCCEEDED
    if good + snapshot.superseded == counted:
        return RolloutPhase.SUPERSEDED
    return RolloutPhase.COMPLETED_WITH_FAILURES if good else RolloutPhase.FAILED


def _rolled_back(state: RolloutState, snapshot: Snapshot) -> RolloutFinished:
    """Return the end of a rollback. A canceled restoration is no failure, unless no node at all was restored."""
    if snapshot.unrestored:
        return finished(state, RolloutPhase.ROLLBACK_FAILED, state.reason, state.message)
    is_own = state.started is not None and state.started.rollback_of
    if state.restoring and not snapshot.counts.get(Phase.ROLLED_BACK, 0):
        if snapshot.superseded or (is_own and (snapshot.canceled_by_person or snapshot.decommissioned)):
            return _nothing_done(state, snapshot)
        if snapshot.canceled_by_person:
            return finished(state, RolloutPhase.ROLLBACK_FAILED, None, ALL_CANCELED)
    return finished(state, RolloutPhase.ROLLED_BACK, state.reason, state.message)


def _nothing_done(state: RolloutState, snapshot: Snapshot) -> RolloutFinished:
    """Return the end of a rollout whose nodes were superseded or canceled, or have left the fleet."""
    if snapshot.superseded:
        return finished(state, RolloutPhase.SUPERSEDED, Reason.NEWER_ROLLOUT, "")
    if snapshot.canceled_by_person:
        return finished(state, RolloutPhase.ABORTED, None, ALL_CANCELED)
    return finished(
        state, RolloutPhase.ABORTED, Reason.NODE_DECOMMISSIONED, "All nodes of the rollout were decommissioned."
    )


def finished(state: RolloutState, phase: RolloutPhase, reason: Reason | None, message: str) -> RolloutFinished:
    return RolloutFinished(rollout=state.uid, phase=phase, reason=reason, message=message)
