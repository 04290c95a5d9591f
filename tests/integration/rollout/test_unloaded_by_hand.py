"""A module that a person has unloaded is drift with a reason, and is never loaded again automatically."""

from dataclasses import replace

import msgspec
import pytest

from accounts.services import update_cluster_settings
from eventstore import load
from rollout.delivery import ingestion
from rollout.domain.node.events import NodeDrifted, node_stream
from rollout.messages import Action, Phase, ServerModule
from rollout.models import Rollout
from rollout.process.advance import advance
from rollout.reconciliation.reconciler import reconcile
from tests.recorded_fleet import ALONE, differences, fleet, heartbeat_of, installed, inventory, say, start, state_of

A = "n0000"
LOADED, FILES = installed(), installed(loaded=False)
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def rebuilt_equals_live():
    yield
    assert differences() == {}


def beat(*modules, run_id="a", **facts):
    state = replace(ALONE, run_id=run_id, **facts)
    ingestion.record_heartbeats([heartbeat_of(A, modules=modules) | {"facts": msgspec.to_builtins(state)}])


def reconciled():
    """The reconciler's rollouts."""
    reconcile()
    return list(Rollout.objects.filter(origin="reconciler").values_list("uid", flat=True))


def drift_reasons():
    return [each.event.reason for each in load(node_stream(A)) if isinstance(each.event, NodeDrifted)]


def shown(client):
    (module,) = client.get(f"/v2/nodes/{A}").json()["modules"]
    return module["state"], module["drift_reason"]


@pytest.fixture
def uid():
    """A rollout that has loaded the module on the node, whose server is the process `a`. Drift is corrected."""
    update_cluster_settings(correct_drift=True)
    fleet(1)
    uid = start()
    say(uid, A, inventory=inventory(LOADED))
    beat(LOADED)
    return uid


def test_it_works(uid, admin):
    beat(FILES)
    assert reconciled() == []
    assert drift_reasons() == ["unloaded_by_hand"]
    assert shown(admin) == ("drifted", "unloaded_by_hand")
    why = admin.get(f"/v2/rollouts/{uid}/nodes/{A}/why").json()
    assert "Since then: unloaded_by_hand: A person unloaded the module" in why["summary"]


def test_after_a_restart_of_the_server_it_is_corrected(uid, admin):
    beat(FILES, run_id="b")
    assert len(reconciled()) == 1
    assert drift_reasons() == [""]


def test_after_a_later_restart_it_stays_unloaded(uid, admin):
    beat(FILES)
    reconcile()
    for _ in range(2):
        beat(FILES, run_id="b")
        assert reconciled() == []
    assert drift_reasons() == ["unloaded_by_hand"]
    assert shown(admin) == ("drifted", "unloaded_by_hand")


@pytest.mark.parametrize("unknown", [{"run_id": ""}, {"problem": "server_loading"}])
def test_while_the_modules_are_not_known_nobody_has_unloaded_them(uid, admin, unknown):
    beat(FILES, **unknown)
    reconcile()
    assert "unloaded_by_hand" not in drift_reasons()
    assert shown(admin)[1] is None


def test_a_person_may_load_it_again(uid, admin):
    beat(FILES)
    reconcile()
    again = start(nodes=(A,))
    advance(again)
    assert shown(admin) == ("pending", None)
    say(again, A, inventory=inventory(LOADED))
    beat(LOADED)
    assert state_of(A) == ("load", "load", "in_sync")


def test_a_person_who_loads_it_by_hand_ends_it(uid, admin):
    beat(FILES)
    reconcile()
    beat(LOADED)
    assert reconciled() == []
    assert shown(admin) == ("in_sync", None)


def test_an_operation_that_unloads_is_no_person(uid, admin):
    removal = start(action=Action.REMOVE)
    beat(FILES)
    say(removal, A, Phase.FAILED, inventory=inventory(FILES))
    reconcile()
    assert "unloaded_by_hand" not in drift_reasons()


def test_a_module_whose_files_were_deleted_is_still_loaded(uid, admin):
    beat(modules=(ServerModule(name="greet", version=1, path="/m/greet/1/greet.so", ours=True),))
    assert len(reconciled()) == 1
    assert drift_reasons() == [""]
