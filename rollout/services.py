"""What people ask for: rollouts started, aborted and retried; nodes labelled, drained, taken out.

Everything here may be repeated. `advance`, `intake` and `clock` do what follows from it.
"""

import uuid

from django.db import transaction

from eventstore import Condition, append, head, load_state, retry_on_conflict, snapshot, transact
from rollout import selectors
from rollout.advance import advance_all
from rollout.decider.node import NODE, ActivateNode, DecommissionNode, DrainNode, ForgetNode, LabelNode
from rollout.errors import PlanChangedError
from rollout.events import node_stream, placement_stream
from rollout.models import Liveness
from rollout.placements import end_of_gone, forgetting, placement_changes
from rollout.planning.planner import appends_of, plan_of
from rollout.premises import PLANNING, SCHEDULING
from rollout.requests import RolloutRequest


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


def label_node(name: str, labels: dict[str, str]) -> None:
    """Raises: `NodeNotFoundError`, `NodePhaseError`."""
    transact(node_stream(name), NODE, LabelNode(node=name, labels=labels))


def drain_node(name: str) -> None:
    """It gets nothing new. Raises: `NodeNotFoundError`, `NodePhaseError`."""
    transact(node_stream(name), NODE, DrainNode(node=name))


def activate_node(name: str) -> None:
    """Raises: `NodeNotFoundError`, `NodePhaseError`."""
    transact(node_stream(name), NODE, ActivateNode(node=name))
    advance_all(selectors.unfinished_rollouts_of(name))


@transaction.atomic
def forget_node(name: str) -> None:
    """What it has said of itself counts no more: it is offline until its next heartbeat, which is taken as its first.

    Raises: `NodeNotFoundError`, `NodePhaseError`.
    """
    transact(node_stream(name), NODE, ForgetNode(node=name))
    Liveness.objects.filter(node=name).delete()


def decommission_node(name: str) -> None:
    """It leaves the fleet, and every rollout that still counts on it goes on without it. Raises: `NodeNotFoundError`."""
    rollouts = selectors.unfinished_rollouts_of(name)
    _decommission(name)
    advance_all(rollouts)


@retry_on_conflict
def _decommission(name: str) -> None:
    after = head()
    loaded = load_state(node_stream(name), NODE)
    events = NODE.decide(loaded.state, DecommissionNode(node=name))
    operations = selectors.unfinished_operations_of(name)
    ends = [end_of_gone(each) for each in operations]
    as_read = Condition(
        after=after,
        streams=[placement_stream(name, each.module_name) for each in operations],  # their phases decide how they end
        event_types=SCHEDULING,
    )
    first = loaded.append(events)
    following = placement_changes([*ends, *forgetting(name)])
    if events:  # else it had left, and what is still to end or to be forgotten follows from this request alone
        following = [each.with_metadata(first.leads_to) for each in following]
    append(first, *following, unless=[as_read])
