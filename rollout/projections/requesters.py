"""Finds out who requested an operation, and who canceled it."""

from eventstore import RecordedEvent, is_person, shown
from rollout.domain.placement.events import OperationScheduled
from rollout.messages import Reason
from rollout.models import Rollout


def requester_of(rollout: Rollout, recorded: RecordedEvent) -> str:
    """Return the user who requested the operation, or else the actor who started the rollout."""
    requested_by = recorded.metadata.requested_by
    return shown(requested_by) if is_person(requested_by) else rollout.actor


def is_automatic(rollout: Rollout, recorded: RecordedEvent) -> bool:
    """Return True if the strategy retries or undoes it, and no person."""
    event: OperationScheduled = recorded.event
    if event.attempt > 1:
        return not is_person(recorded.actor)
    return event.rollback and rollout.reason not in {"", Reason.MANUAL}


def canceler_of(rollout: Rollout, recorded: RecordedEvent) -> str:
    """Return the user who cancels the operation: directly, by stopping the rollout, or by a newer rollout. Empty if a rule,
    a deadline or the node cancels it."""
    if is_person(recorded.actor):
        return recorded.shown_actor
    requested_by = recorded.metadata.requested_by
    is_stop = (
        rollout.reason in {"", Reason.MANUAL} and getattr(recorded.event, "reason", Reason.MANUAL) == Reason.MANUAL
    )
    is_by_person = is_person(requested_by) and recorded.actor.startswith("system:")
    return shown(requested_by) if is_stop and is_by_person else ""
