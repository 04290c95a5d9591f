"""One failure domain at a time, over all rollouts."""

import pytest

from rollout.models import Operation, Rollout
from rollout.process.advance import advance
from rollout.queries.explanations import of_node
from rollout.reconciliation.reconciler import reconcile
from rollout.services.nodes import label_node
from tests.recorded_fleet import installed, inventory, join, phases, say, start, upload

pytestmark = [pytest.mark.django_db, pytest.mark.dialect]

ALL_AT_ONCE = {"canary": 0, "max_parallel": "100%", "max_failures": "100%"}


def zones(**zone_of):
    upload()
    upload("other")
    join(*zone_of)
    for name, zone in zone_of.items():
        label_node(name, {"zone": zone} if zone else {})


IN_ONE_ZONE = ALL_AT_ONCE | {"domain": "zone"}


def test_a_rollout_without_a_domain_stays_in_the_domain_of_another_one():
    zones(n1="a", n2="b", n3="a", n4="")
    first = start(nodes=("n1",), careful=IN_ONE_ZONE)
    uid = start(module_name="other", nodes=("n2", "n3", "n4"), careful=ALL_AT_ONCE)
    assert phases(uid) == {"n2": "scheduled", "n3": "queued", "n4": "scheduled"}
    why = of_node(uid, "n2").document
    assert why["rule"]["id"] == "domain"
    assert "the operations in zone a" in why["summary"]
    say(first, "n1", inventory=inventory(installed()))
    advance(uid)
    assert phases(uid) == {"n2": "queued", "n3": "queued", "n4": "queued"}


def test_a_rollout_with_a_domain_waits_for_one_without():
    zones(n1="a", n2="b", n4="")
    first = start(module_name="other", nodes=("n4",), careful=ALL_AT_ONCE)
    uid = start(nodes=("n1", "n2"), careful=IN_ONE_ZONE)
    assert phases(uid) == {"n1": "scheduled", "n2": "scheduled"}
    assert "the operations in no zone" in of_node(uid, "n1").document["summary"]
    say(first, "n4", module_name="other")
    advance(uid)
    assert phases(uid) == {"n1": "queued", "n2": "scheduled"}


def test_the_reconciler_stays_in_the_domain_of_a_rollout():
    zones(n1="a", n2="b")
    say(start(), "n1", inventory=inventory(installed()))
    say(Operation.objects.get(node="n2").rollout, "n2", inventory=inventory(installed()))
    first = start(module_name="other", nodes=("n1",), careful=IN_ONE_ZONE)
    join("n3", "n5")
    for name, zone in (("n3", "a"), ("n5", "b")):
        label_node(name, {"zone": zone})
    reconcile()
    own = Rollout.objects.get(origin="reconciler").uid
    advance(own)
    assert phases(own) == {"n3": "queued", "n5": "scheduled"}
    say(own, "n3", inventory=inventory(installed()))
    advance(own)
    assert phases(own)["n5"] == "scheduled"
    say(first, "n1", module_name="other")
    advance(own)
    assert phases(own)["n5"] == "queued"


def test_one_failure_domain_at_a_time():
    upload()
    join("n1", "n2", "n3")
    for name, zone in (("n1", "a"), ("n2", "b"), ("n3", "a")):
        label_node(name, {"zone": zone})
    uid = start(careful=ALL_AT_ONCE | {"domain": "zone"})
    assert phases(uid) == {"n1": "queued", "n2": "scheduled", "n3": "queued"}
    say(uid, "n1", inventory=inventory(installed()))
    assert phases(uid)["n2"] == "scheduled"
    say(uid, "n3", inventory=inventory(installed()))
    assert phases(uid)["n2"] == "queued"
