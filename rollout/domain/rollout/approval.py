"""Approval: another person than the one who started a rollout approves or rejects it."""

from rollout.domain.errors import SecondPersonError
from rollout.domain.rollout.commands import Approve, Reject
from rollout.domain.rollout.events import RolloutApproved, RolloutEvent, RolloutRejected


def refuse_own_approval(command: Approve) -> None:
    """Raises: `SecondPersonError` if the person has started the rollout. Rejecting it is allowed."""
    if not command.by_another:
        raise SecondPersonError


def decide_approval(command: Approve | Reject) -> list[RolloutEvent]:
    match command:
        case Approve(rollout=uid, remark=remark):
            return [RolloutApproved(rollout=uid, remark=remark)]
        case Reject(rollout=uid, remark=remark):
            return [RolloutRejected(rollout=uid, remark=remark)]
