"""Plans that are started while the fleet changes; with real commits."""

import pytest

from eventstore import read
from rollout.domain.errors import PlanChangedError, RolloutInProgressError
from rollout.domain.node.events import NodeDrained
from rollout.domain.request import RolloutRequest
from rollout.domain.rollout.events import RolloutStarted
from rollout.messages import Action
from rollout.planning.planner import plan_of
from rollout.services.nodes import drain_node
from rollout.services.start import start_rollout
from tests.plugins.databases import at_once
from tests.recorded_fleet import fleet

pytestmark = pytest.mark.usefixtures("committed_db")


def as_planned():
    request = RolloutRequest(action=Action.INSTALL, module_name="greet", version=1)
    return RolloutRequest(action=Action.INSTALL, module_name="greet", version=1, plan_hash=plan_of(request).hash)


def tried(request):
    try:
        return start_rollout(request)
    except (PlanChangedError, RolloutInProgressError) as error:
        return error


def position_of(kind):
    return [each.position for each in read(event_classes=[kind])]


def test_nothing_changes_between_the_look_at_the_fleet_and_the_start():
    fleet(3)
    request = as_planned()
    outcome, _ = at_once(lambda: tried(request), lambda: drain_node("n0002"))
    if isinstance(outcome, str):
        assert position_of(RolloutStarted) < position_of(NodeDrained)
    else:
        assert isinstance(outcome, PlanChangedError)
        assert position_of(RolloutStarted) == []


def test_a_plan_is_started_once():
    fleet(3)
    request = as_planned()
    outcomes = at_once(*[lambda: tried(request)] * 3)
    assert len([each for each in outcomes if isinstance(each, str)]) == 1
    assert len(position_of(RolloutStarted)) == 1
