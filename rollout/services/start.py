"""Starts rollouts."""

import uuid

from eventstore import Condition, append, head, retry_on_conflict, snapshot
from rollout.domain.conditions import PLANNING
from rollout.domain.errors import PlanChangedError
from rollout.domain.request import RolloutRequest
from rollout.planning.planner import plan_of
from rollout.services.schedule import appends_of


def start_rollout(request: RolloutRequest) -> str:
    """The uid of the new rollout, of which every node is scheduled; nothing has been sent to any node yet.

    Raises: `RolloutError`, `artifacts_app.errors.ArtifactNotFoundError`.
    """
    return retry_on_conflict(start_unless)(request)


def start_unless(request: RolloutRequest, *conditions: Condition) -> str:
    """As `start_rollout`, if these conditions hold too. For a caller that tries again by itself.

    Raises: what `start_rollout` raises, `ConcurrencyError`.
    """
    uid = uuid.uuid4().hex
    with snapshot():
        after = head()
        plan = plan_of(request)
        if request.plan_hash and plan.hash != request.plan_hash:
            raise PlanChangedError
        appends = appends_of(plan, uid)
    append(*appends, unless=[Condition(after=after, event_types=PLANNING), *conditions])
    return uid
