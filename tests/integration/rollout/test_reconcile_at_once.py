"""Two relays that reconcile at once, on connections of their own, with real commits."""

import pytest

from accounts.services import update_cluster_settings
from eventstore import read
from rollout.delivery import ingestion
from rollout.domain.node.events import NodeDrifted, NodeDriftEnded
from rollout.messages import Action, Phase
from rollout.models import Operation, Rollout
from rollout.reconciliation import desired_state, due_operations
from rollout.reconciliation import reconciler as reconcile_module
from rollout.reconciliation.reconciler import reconcile
from tests.plugins.databases import at_once
from tests.recorded_fleet import differences, fleet, heartbeat_of, installed, inventory, join, report_of, start

pytestmark = pytest.mark.usefixtures("committed_db")


def everywhere(names):
    uid = start()
    has = inventory(installed())
    ingestion.record_reports([report_of(uid, name, inventory=has) for name in names])


def own():
    return Rollout.objects.filter(origin="reconciler").count()


def test_two_start_one_rollout_for_a_node():
    everywhere(fleet(2))
    for number in range(5):
        join(f"late-{number}")
        at_once(reconcile, reconcile, reconcile)
        assert (own(), Operation.objects.filter(node=f"late-{number}").count()) == (number + 1, 1)
    assert differences() == {}


def test_two_record_drift_once():
    names = fleet(3)
    everywhere(names)
    ingestion.record_heartbeats([heartbeat_of(name) for name in names])
    at_once(reconcile, reconcile, reconcile)
    assert sorted(each.event.node for each in read(event_classes=[NodeDrifted])) == names
    assert differences() == {}


def test_two_that_have_both_read_start_one_rollout(race):
    """Each has decided before either writes."""
    everywhere(fleet(2))
    for number in range(3):
        join(f"late-{number}")
        race(reconcile, reconcile)
        assert (own(), Operation.objects.filter(node=f"late-{number}").count()) == (number + 1, 1)
    assert differences() == {}


def test_two_that_have_both_read_record_drift_and_its_end_once(race):
    names = fleet(3)
    everywhere(names)
    for modules, kind in (((), NodeDrifted), ((installed(),), NodeDriftEnded)):
        ingestion.record_heartbeats([heartbeat_of(name, modules=modules) for name in names])
        race(reconcile, reconcile)
        assert sorted(each.event.node for each in read(event_classes=[kind])) == names
    assert differences() == {}


@pytest.mark.parametrize("function", ["differing_modules", "undone_operations", "open_drifts", "current_freeze"])
def test_another_records_drift_while_one_reads(monkeypatch, function):
    names = fleet(3)
    everywhere(names)
    ingestion.record_heartbeats([heartbeat_of(name) for name in names])
    first(monkeypatch, due_operations if function == "current_freeze" else desired_state, function, reconcile)
    reconcile()
    assert sorted(each.event.node for each in read(event_classes=[NodeDrifted])) == names
    assert list(read(event_classes=[NodeDriftEnded])) == []
    assert differences() == {}


def test_another_records_the_end_of_drift_while_one_reads(monkeypatch):
    names = fleet(3)
    everywhere(names)
    ingestion.record_heartbeats([heartbeat_of(name) for name in names])
    reconcile()

    def put_right():
        ingestion.record_heartbeats([heartbeat_of(name, modules=[installed()]) for name in names])
        reconcile()

    first(monkeypatch, desired_state, "undone_operations", put_right)
    reconcile()
    assert sorted(each.event.node for each in read(event_classes=[NodeDrifted])) == names
    assert sorted(each.event.node for each in read(event_classes=[NodeDriftEnded])) == names
    assert differences() == {}


def first(monkeypatch, module, name, action):
    """Carry out `action`, on a connection of its own, just before the function of the module is called for the first
    time."""
    real = getattr(module, name)

    def act_first(*args):
        monkeypatch.setattr(module, name, real)
        at_once(action)
        return real(*args)

    monkeypatch.setattr(module, name, act_first)


def test_what_a_person_has_done_between_read_and_start_stays_so(monkeypatch):
    everywhere(fleet(2))
    join("late")

    def remove():
        uid = start(nodes=("late",), action=Action.REMOVE)
        ingestion.record_reports([report_of(uid, "late", inventory=inventory())])

    first(monkeypatch, reconcile_module, "start_unless", remove)
    reconcile()
    assert own() == 0


def test_drift_is_left_when_its_correction_is_switched_off_between_read_and_start(monkeypatch):
    names = fleet(2)
    everywhere(names)
    update_cluster_settings(correct_drift=True)
    ingestion.record_heartbeats([heartbeat_of(name) for name in names])
    first(monkeypatch, reconcile_module, "start_unless", lambda: update_cluster_settings(correct_drift=False))
    reconcile()
    assert own() == 0


def test_an_operator_and_the_reconciler_never_have_a_node_at_once():
    names = fleet(2)
    everywhere(names)
    update_cluster_settings(correct_drift=True)
    ingestion.record_heartbeats([heartbeat_of(name) for name in names])
    _, uid = at_once(reconcile, lambda: start(released=False, supersede=True))
    live = Operation.objects.filter(finished_at__isnull=True)
    assert sorted(live.values_list("node", "rollout")) == [(name, uid) for name in names]
    assert set(live.values_list("phase", flat=True)) == {Phase.SCHEDULED}
    assert differences() == {}
