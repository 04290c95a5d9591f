"""A node that leaves the fleet during a rollout is no failure: its outcome, its thresholds and its rollback go on as if
it had not been there."""

from functools import partial

import pytest

from eventstore import acting_as, append, load_state, read
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import NodeDecommissioned, node_stream
from rollout.domain.placement.events import PlacementForgotten
from rollout.messages import Phase, Reason
from rollout.models import ClusterTarget
from rollout.process import timeouts
from rollout.process.advance import advance
from rollout.projections.rollout_document import progress
from rollout.services.nodes import decommission_node
from rollout.services.rollback import roll_back_rollout
from tests.recorded_fleet import differences, fleet, grew, installed, inventory, operation, phases, rollout, say, start

pytestmark = pytest.mark.django_db


def leave_scheduled(uid, name):
    assert phases(uid)[name] == "scheduled"
    decommission_node(name)


def leave_in_hand(uid, name):
    advance(uid)
    decommission_node(name)


def leave_at_work(uid, name):
    advance(uid)
    say(uid, name, Phase.FETCHING)
    decommission_node(name)


def leave_unnoticed(uid, name):
    """It was scheduled in the moment in which the node left."""
    append(load_state(node_stream(name), NODE).append([NodeDecommissioned(node=name)]))
    assert timeouts.end_operations_of_decommissioned_nodes() == 1


def test_what_is_repeated_after_a_node_has_left_names_no_event_that_there_is_not():
    """It had left before it answered, and its answer is to be forgotten."""
    (name,) = fleet(1)
    uid = start()
    append(load_state(node_stream(name), NODE).append([NodeDecommissioned(node=name)]))
    say(uid, name, inventory=inventory(installed()))
    with acting_as("user:bob", correlation_id="his"):
        decommission_node(name)
    (forgotten,) = read(event_classes=[PlacementForgotten])
    assert (forgotten.metadata.requested_by, forgotten.metadata.correlation_id) == ("user:bob", "his")
    known = {each.event_id.hex for each in read()}
    assert {each.metadata.causation_id for each in read()} <= {"", *known}


def test_what_a_node_has_that_has_left_is_not_recorded():
    (name,) = fleet(1)
    uid = start()
    say(uid, name, inventory=inventory(installed()))
    decommission_node(name)
    for number in range(3):
        has = inventory(installed(content=f"c{number}"))
        assert grew(partial(say, uid, name, inventory=has)) == 0


WAYS = [leave_scheduled, leave_in_hand, leave_at_work, leave_unnoticed]


@pytest.mark.parametrize("leave", WAYS)
def test_it_succeeds_when_all_others_have(leave):
    first, second, third = fleet(3)
    uid = start(released=False, careful={"canary": 0, "max_failures": 0})
    leave(uid, first)
    advance(uid)
    for name in (second, third):
        say(uid, name)
    assert (rollout(uid).phase, rollout(uid).reason) == ("succeeded", "")
    assert (operation(uid, first).phase, operation(uid, first).reason) == ("canceled", "node_decommissioned")
    counted = progress(rollout(uid))
    assert (counted["succeeded"], counted["canceled"], counted["failed"]) == (2, 1, 0)
    assert ClusterTarget.objects.get().version == 1
    assert differences() == {}


def test_it_counts_against_no_threshold():
    names = fleet(4)
    uid = start(careful={"canary": 0, "max_failures": 1})
    for name in names[:2]:
        decommission_node(name)
    say(uid, names[2], Phase.FAILED, reason=Reason.LOAD_FAILED)
    assert rollout(uid).phase == "running"
    say(uid, names[3])
    assert rollout(uid).phase == "completed_with_failures"


def test_a_failure_before_it_left_stays_a_failure():
    first, second = fleet(2)
    uid = start()
    say(uid, first, Phase.FAILED, reason=Reason.LOAD_FAILED)
    decommission_node(first)
    say(uid, second)
    assert rollout(uid).phase == "completed_with_failures"


def test_when_all_have_left_it_is_aborted():
    names = fleet(2)
    uid = start()
    for name in names:
        decommission_node(name)
    row = rollout(uid)
    assert (row.phase, row.reason, row.message) == (
        "aborted",
        "node_decommissioned",
        "All nodes of the rollout were decommissioned.",
    )
    assert not ClusterTarget.objects.exists()
    assert differences() == {}


def test_a_rollback_goes_on_without_it():
    first, second = fleet(2)
    uid = start()
    for name in (first, second):
        say(uid, name, inventory=inventory(installed()))
    back = roll_back_rollout(uid)
    decommission_node(first)
    say(back, second, inventory=inventory())
    assert rollout(back).phase == "rolled_back"
    assert differences() == {}
