"""The order in a shard holds for the reconciler and for the vendor's routes too."""

from datetime import timedelta

import pytest

from eventstore import database_now
from rollout.messages import Action
from rollout.models import Operation, Rollout
from rollout.process.advance import advance
from rollout.queries.explanations import of_node
from rollout.reconciliation.reconciler import reconcile
from tests.integration.rollout.shard_of_four import ALL_AT_ONCE, STATES, order_of, shard
from tests.recorded_fleet import installed, inventory, join, phases, rollout, start, upload
from tests.recorded_fleet import say as answer
from tests.recorded_modules import module_object
from tests.recorded_shards import beat, master_of, replica_of, say

pytestmark = pytest.mark.django_db

GREET = installed()


def reconciled():
    """The uid of the only rollout of the reconciler that has not ended."""
    reconcile()
    uid = Rollout.objects.get(origin="reconciler", finished_at=None).uid
    advance(uid)
    return uid


@pytest.fixture
def late_replicas():
    """All of the shard have the module, and two replicas of its master join."""
    shard()
    upload("other")
    order_of(start(careful=ALL_AT_ONCE), GREET)
    join("n5", "n6")
    say(
        beat("n1", master_of("a:2", "a:3", "a:5", "a:6", addresses=("a:1",)), modules=[GREET]),
        *(beat(name, STATES[name], modules=[GREET]) for name in ("n2", "n3", "n4")),
        beat("n5", replica_of("a:1", addresses=("a:5",))),
        beat("n6", replica_of("a:1", addresses=("a:6",))),
    )


def test_the_reconciler_waits_for_a_rollout_in_the_shard(late_replicas):
    first = start(module_name="other", nodes=("n2",), careful=ALL_AT_ONCE)
    own = reconciled()
    assert (phases(first), phases(own)) == ({"n2": "queued"}, {"n5": "scheduled", "n6": "scheduled"})
    assert "the operation on n2, another copy of the shard of n5" in of_node(own, "n5").document["summary"]
    answer(first, "n2", inventory=inventory(GREET, installed(module_name="other")))
    assert order_of(own, GREET) == ["n5", "n6"]
    assert rollout(own).phase == "succeeded"


def test_a_rollout_waits_for_the_reconciler_in_the_shard(late_replicas):
    own = reconciled()
    assert phases(own) == {"n5": "queued", "n6": "scheduled"}
    uid = start(module_name="other", nodes=("n2",), careful=ALL_AT_ONCE)
    assert phases(uid) == {"n2": "scheduled"}
    answer(own, "n5", inventory=inventory(GREET))
    advance(uid)
    queued = {name for name, phase in (phases(own) | phases(uid)).items() if phase == "queued"}
    assert len(queued) == 1


def test_the_reconciler_goes_to_a_replica_before_its_master():
    """A whole shard joins late."""
    upload()
    join("first")
    answer(start(), "first", inventory=inventory(GREET))
    join(*STATES)
    say(*(beat(name, state) for name, state in STATES.items()))
    assert order_of(reconciled(), GREET) == ["n2", "n4", "n3", "n1"]


@pytest.mark.parametrize("route", ["/v1/modules", "/v2/modules"])
def test_a_deletion_by_the_vendors_route_goes_to_the_master_first(route, admin):
    shard()
    module_object("greet", 1)
    order_of(start(careful=ALL_AT_ONCE), GREET)
    (module,) = admin.get("/v1/modules").json()
    uid = admin.delete(f"{route}/{module['uid']}").json()["action_uid"]
    assert rollout(uid).action == Action.REMOVE
    assert order_of(uid) == ["n1", "n2", "n3", "n4"]
    assert rollout(uid).phase == "succeeded"


def test_the_reconciler_goes_to_a_master_again_that_joined_just_after_its_replica():
    """The replica did not have the module yet when the master's turn was judged, so the master was skipped."""
    upload()
    join("first")
    answer(start(), "first", inventory=inventory(GREET))
    join("replica")
    say(beat("replica", replica_of("a:1", addresses=("a:2",))))
    own = reconciled()
    join("master")
    say(beat("master", master_of("a:2", addresses=("a:1",))))
    reconcile()
    skipped = Operation.objects.get(node="master")
    assert (skipped.phase, skipped.reason) == ("skipped", "replica_lacks_module")
    answer(own, "replica", inventory=inventory(GREET))
    advance(own)
    say(
        beat("replica", replica_of("a:1", addresses=("a:2",)), modules=[GREET]),
        beat("master", master_of("a:2", addresses=("a:1",))),
    )
    ended = database_now() - timedelta(seconds=3601)  # the backoff is over
    Operation.objects.filter(node="master").update(finished_at=ended)
    reconcile()
    for uid in Rollout.objects.filter(finished_at=None).values_list("uid", flat=True):
        advance(uid)
    phases_there = Operation.objects.filter(node="master").values_list("phase", flat=True)
    assert sorted(phases_there) == ["queued", "skipped"]
