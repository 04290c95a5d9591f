"""GET /v2/nodes: node x module with what is wanted, what is there, and since when that differs."""

import pytest

from rollout.delivery import ingestion
from rollout.reconciliation.reconciler import reconcile
from tests.recorded_fleet import fleet, heartbeat_of, installed, inventory, report_of, start

pytestmark = pytest.mark.django_db


def everywhere(names):
    uid = start(max_parallel=len(names))
    ingestion.record_reports([report_of(uid, name, inventory=inventory(installed())) for name in names])


def test_a_module_as_it_is_to_be(admin):
    everywhere(fleet(1))
    (module,) = admin.get("/v2/nodes/n0000").json()["modules"]
    assert module == {
        "module_name": "greet",
        "version": 1,
        "desired": "load",
        "desired_sha256": "c1",
        "observed": "load",
        "state": "in_sync",
        "drifted_at": None,
        "drift_reason": None,
        "content_sha256": "c1",
        "loaded": True,
    }


def test_a_module_that_has_drifted(admin):
    everywhere(fleet(1))
    ingestion.record_heartbeats([heartbeat_of("n0000", modules=[installed(content="patched")])])
    reconcile()
    (module,) = admin.get("/v2/nodes").json()["results"][0]["modules"]
    assert (module["state"], module["desired_sha256"], module["content_sha256"]) == ("drifted", "c1", "patched")
    assert module["drifted_at"].endswith("Z")


@pytest.mark.parametrize("count", [3, 50])
def test_the_queries_do_not_depend_on_the_rows(admin, count, django_assert_num_queries):
    everywhere(fleet(count))
    # The user, the nodes, when they were heard of, their modules, their places, the doctor's counts.
    with django_assert_num_queries(6):
        answer = admin.get("/v2/nodes?limit=50").json()
    assert len(answer["results"]) == count
