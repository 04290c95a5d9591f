"""The rules of docs/reference/desired-state.md, each with the tests that are named after it."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.services import update_cluster_settings
from artifacts_app.events import artifact_stream
from eventstore import Append, append, database_now, load, read
from rollout.delivery import ingestion
from rollout.delivery.commands import commands_of
from rollout.domain.node.events import NodeDrifted, NodeDriftEnded
from rollout.domain.retries import Retries
from rollout.domain.strategy import Offline
from rollout.management.commands import relay
from rollout.messages import Action, Activation, Phase, Reason
from rollout.models import NodeModule, Operation, Rollout
from rollout.process import offline_nodes, timeouts
from rollout.process.advance import advance
from rollout.reconciliation.reconciler import Reconciler, reconcile
from rollout.services.freeze import freeze_fleet, thaw_fleet
from rollout.services.nodes import activate_node, decommission_node, drain_node
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import abort_rollout, cancel_node, resume_rollout, retry_rollout
from tests.recorded_fleet import (
    differences,
    fleet,
    heartbeat_of,
    installed,
    inventory,
    join,
    node,
    operation,
    overdue,
    phases,
    report_of,
    rollout,
    say,
    silence,
    start,
    state_of,
    upload,
)

pytestmark = pytest.mark.django_db
GREET = installed()


@pytest.fixture(autouse=True)
def rebuilt_equals_live(db):
    yield
    assert differences() == {}


def succeed(uid, *has):
    """All that are asked say that they have done it, and have `has` from then on."""
    advance(uid)
    while asked := [name for name, phase in phases(uid).items() if phase == Phase.QUEUED]:
        ingestion.record_reports([report_of(uid, name, inventory=inventory(*has)) for name in asked])
    return uid


def everywhere(*has, **more):
    """A rollout that names no nodes, and succeeds."""
    return succeed(start(released=False, **more), *(has or (GREET,)))


def own():
    """The reconciler's rollouts, oldest first."""
    return list(Rollout.objects.filter(origin="reconciler").order_by("started_position").values_list("uid", flat=True))


def reconciled(*has):
    """Reconciles once. All nodes do what they are asked; returns the rollouts that were started."""
    before = own()
    reconcile()
    new = [uid for uid in own() if uid not in before]
    for uid in new:
        succeed(uid, *(has or (GREET,)))
    return new


def hello(*names, modules=()):
    ingestion.record_heartbeats([heartbeat_of(name, hello=True, modules=modules) for name in names])


def recorded(kind):
    return [each.event for each in read(event_classes=[kind])]


def drift(name="n0000", *modules):
    """Somebody has changed the node by hand; a heartbeat says so."""
    ingestion.record_heartbeats([heartbeat_of(name, modules=modules)])


@pytest.fixture
def later():
    """`later(seconds)`: all that has ended did so that much longer ago; put back at the end, for a rebuild to agree."""
    moments: dict[str, datetime | None] = {}

    def move(seconds):
        for row in Operation.objects.filter(finished_at__isnull=False):
            moments.setdefault(row.key, row.finished_at)
            assert row.finished_at
            row.finished_at -= timedelta(seconds=seconds)
            row.save()

    yield move
    for key, finished_at in moments.items():
        Operation.objects.filter(key=key).update(finished_at=finished_at)


# --- What the cluster's target asks for -------------------------------------------------------------------------------


def test_a_late_joiner_gets_the_target():
    fleet(2)
    everywhere()
    join("late")
    (uid,) = reconciled()
    assert phases(uid) == {"late": "succeeded"}
    assert state_of("late") == ("load", "load", "in_sync")
    assert reconciled() == []


def test_its_work_is_a_rollout_of_its_own():
    fleet(1)
    everywhere()
    join("late")
    (uid,) = reconciled()
    row = rollout(uid)
    assert (row.origin, row.actor, row.named, row.strategy["on_failure"]) == (
        "reconciler",
        "system:reconciler",
        True,
        "abort",
    )


def test_the_relay_starts_and_releases_it_in_one_run(dead_broker):
    fleet(1)
    everywhere()
    join("late")
    relay.run_once()
    assert [phases(uid) for uid in own()] == [{"late": "queued"}]


def test_nodes_that_miss_the_same_share_a_rollout():
    fleet(1)
    upload("other")
    everywhere()
    everywhere(installed(module_name="other"), GREET, module_name="other")
    join("late-1", "late-2")
    reconcile()
    assert sorted((rollout(uid).module_name, tuple(sorted(phases(uid)))) for uid in own()) == [
        ("greet", ("late-1", "late-2")),
        ("other", ("late-1", "late-2")),
    ]


def test_the_activation_is_the_targets():
    fleet(1)
    everywhere(installed(loaded=False), activation=Activation.FILES)
    join("late")
    reconciled(installed(loaded=False))
    assert state_of("late") == ("files", "files", "in_sync")


def test_a_late_joiner_that_has_it_already_is_asked_all_the_same():
    fleet(1)
    everywhere()
    join("late", modules=[GREET])
    (uid,) = reconciled()
    assert (phases(uid), state_of("late")) == ({"late": "succeeded"}, ("load", "load", "in_sync"))
    assert recorded(NodeDrifted) == []


def test_a_rollout_that_named_nodes_sets_no_target():
    (name,) = fleet(1)
    succeed(start(nodes=(name,)), GREET)
    join("late")
    assert reconciled() == []


def test_a_rollout_that_did_not_succeed_sets_no_target():
    names = fleet(2)
    uid = start()
    say(uid, names[0], inventory=inventory(GREET))
    say(uid, names[1], Phase.FAILED, reason=Reason.LOAD_FAILED)
    join("late")
    assert reconciled() == []


def test_a_node_that_was_skipped_while_it_was_offline_catches_up():
    names = fleet(2)
    silence(names[1])
    offline_nodes.declare_silent_nodes_offline()
    uid = everywhere(careful={"canary": 0, "offline": Offline.SKIP})
    assert operation(uid, names[1]).reason == "node_unreachable"
    assert reconciled() == []
    ingestion.record_heartbeats([heartbeat_of(names[1])])
    reconciled()
    assert state_of(names[1]) == ("load", "load", "in_sync")


def test_a_node_that_was_drained_catches_up_when_it_is_activated():
    names = fleet(2)
    drain_node(names[1])
    everywhere()
    assert reconciled() == []
    activate_node(names[1])
    reconciled()
    assert state_of(names[1]) == ("load", "load", "in_sync")


def test_what_was_released_to_a_node_since_counts_more_than_the_target():
    names = fleet(2)
    upload(version=2, content="c2")
    everywhere()
    succeed(start(version=2, nodes=(names[0],)), installed(2, "c2"))
    assert reconciled() == []
    assert state_of(names[0], 2) == ("load", "load", "in_sync")


def test_a_rollback_restores_the_target():
    fleet(1)
    upload(version=2, content="c2")
    everywhere()
    newer = everywhere(installed(2, "c2"), version=2)
    succeed(roll_back_rollout(newer), GREET)
    join("late")
    (uid,) = reconciled()
    assert rollout(uid).version == 1


def test_a_late_joiner_keeps_what_it_got_when_the_target_is_rolled_back():
    fleet(1)
    upload(version=2, content="c2")
    everywhere()
    newer = everywhere(installed(2, "c2"), version=2)
    join("late")
    reconciled(installed(2, "c2"))
    succeed(roll_back_rollout(newer), GREET)
    assert reconciled() == []
    assert state_of("late", 2) == ("load", "load", "in_sync")


@pytest.mark.parametrize("has_ended", [False, True])
def test_only_a_retry_before_the_end_sets_the_target(has_ended):
    names = fleet(1 if has_ended else 2)
    uid = start(careful={"canary": 1, "retries": Retries(limit=0)})
    say(uid, names[0], Phase.FAILED, reason=Reason.LOAD_FAILED)
    assert rollout(uid).phase == ("failed" if has_ended else "paused")
    again = retry_rollout(uid)
    if not has_ended:
        resume_rollout(uid)
    succeed(again, GREET)
    assert rollout(again).phase == "succeeded"
    join("late")
    assert bool(reconciled()) is not has_ended


def test_a_removal_that_a_node_missed_is_made_up_for():
    names = fleet(2)
    everywhere()
    drain_node(names[1])
    succeed(start(action=Action.REMOVE, released=False))
    activate_node(names[1])
    reconcile()
    assert own() == [], "the module is loaded there: only a person unloads it"
    ingestion.record_heartbeats([heartbeat_of(names[1], modules=[installed(loaded=False)])])
    reconcile()
    (uid,) = own()
    assert (rollout(uid).action, phases(uid)) == ("remove", {names[1]: "scheduled"})
    advance(uid)
    say(uid, names[1], inventory=inventory())
    assert state_of(names[1]) is None
    assert reconciled() == []


def test_a_target_that_was_removed_asks_nothing_of_late_joiners():
    fleet(1)
    everywhere()
    succeed(start(action=Action.REMOVE, released=False))
    join("late", modules=[GREET])
    assert reconciled() == []


def test_a_node_that_left_and_joins_again_is_treated_as_new():
    names = fleet(2)
    everywhere()
    decommission_node(names[1])
    assert reconciled() == []
    hello(names[1])
    reconciled()
    assert state_of(names[1]) == ("load", "load", "in_sync")


def test_a_node_without_a_build_waits_for_one():
    fleet(1)
    everywhere()
    join("late", platform="linux/aarch64")
    assert reconciled() == []
    (first,) = load(artifact_stream("greet", 1))
    another = replace(first.event, platform="linux/aarch64", content_sha256="arm", storage_key="arm")
    append(Append(artifact_stream("greet", 1), 1, [another]))
    reconciled(installed(content="arm"))
    assert state_of("late") == ("load", "load", "in_sync")


def test_what_a_person_has_canceled_is_not_started_again():
    fleet(1)
    everywhere()
    join("late")
    reconcile()
    (uid,) = own()
    abort_rollout(uid)
    assert phases(uid) == {"late": "canceled"}
    assert reconciled() == []


# --- What did not succeed ---------------------------------------------------------------------------------------------


def failed(name, reason):
    uid = start(nodes=(name,))
    say(uid, name, Phase.FAILED, reason=reason)


@pytest.mark.parametrize(
    "reason", [Reason.FETCH_FAILED, Reason.SERVER_UNREACHABLE, Reason.IO_ERROR, Reason.MODULE_BUSY]
)
def test_what_failed_for_a_passing_reason_is_repeated_once_the_node_has_started(reason):
    (name,) = fleet(1)
    failed(name, reason)
    assert reconciled() == []
    hello(name)
    reconciled()
    assert state_of(name) == ("load", "load", "in_sync")


def test_a_time_out_is_repeated_once_the_node_is_back():
    (name,) = fleet(1)
    uid = start()
    overdue(name)
    timeouts.end_overdue_operations()
    assert phases(uid) == {name: "timed_out"}
    silence(name)
    offline_nodes.declare_silent_nodes_offline()
    assert reconciled() == []
    ingestion.record_heartbeats([heartbeat_of(name)])
    reconciled()
    assert state_of(name) == ("load", "load", "in_sync")


@pytest.mark.parametrize("reason", [Reason.LOAD_FAILED, Reason.PROBE_FAILED, Reason.SERVER_CRASHED, Reason.DISK_FULL])
def test_what_failed_for_a_permanent_reason_is_not_repeated(reason):
    (name,) = fleet(1)
    failed(name, reason)
    hello(name)
    assert reconciled() == []


def test_what_a_person_had_a_node_give_up_is_not_repeated():
    (name,) = fleet(1)
    uid = start(nodes=(name,))
    cancel_node(uid, name, force=False)
    say(uid, name, Phase.CANCELED, reason=Reason.MANUAL)
    hello(name)
    assert reconciled() == []
    assert recorded(NodeDrifted) == []


def test_a_removal_that_failed_for_a_passing_reason_is_repeated():
    (name,) = fleet(1)
    everywhere()
    uid = start(action=Action.REMOVE)
    say(uid, name, Phase.FAILED, reason=Reason.SERVER_UNREACHABLE, inventory=inventory(GREET))
    hello(name, modules=[GREET])
    assert reconciled() == [], "the module is loaded: only a person unloads it"
    hello(name, modules=[installed(loaded=False)])
    before = own()
    reconcile()
    (again,) = [each for each in own() if each not in before]
    advance(again)
    ((_, command),) = commands_of(list(Operation.objects.filter(rollout=again)))
    assert (command.action, command.may_unload) == (Action.REMOVE, False)
    ((_, of_a_person),) = commands_of(list(Operation.objects.filter(rollout=uid)))
    assert of_a_person.may_unload


def test_an_undo_that_would_unload_is_not_repeated():
    """A rollback to files unloads the module, and failed for a passing reason."""
    (name,) = fleet(1)
    succeed(start(nodes=(name,), activation=Activation.FILES), installed(loaded=False))
    loaded = succeed(start(nodes=(name,)), GREET)
    back = roll_back_rollout(loaded)
    advance(back)
    say(back, name, Phase.FAILED, reason=Reason.SERVER_UNREACHABLE, inventory=inventory(GREET))
    (undo,) = Operation.objects.filter(rollout=back)
    assert (undo.phase, undo.activation, undo.undoes) == ("failed", "files", 1)
    advance(back)
    hello(name, modules=[GREET])
    assert reconciled() == []


def test_drift_correction_unloads_nothing():
    """Loaded, though its files are desired, or nothing is."""
    update_cluster_settings(correct_drift=True)
    one, other = fleet(2)
    succeed(start(nodes=(one,), activation=Activation.FILES), installed(loaded=False))
    ingestion.record_heartbeats([heartbeat_of(each, modules=[GREET]) for each in (one, other)])
    assert reconciled() == []


def test_a_rollback_that_an_offline_node_missed_is_made_up_for():
    names = fleet(2)
    old, new = installed(loaded=False), installed(2, "c2")
    upload(version=2, content="c2")
    everywhere()
    newer = everywhere(old, new, version=2)
    silence(names[1])
    offline_nodes.declare_silent_nodes_offline()
    back = succeed(roll_back_rollout(newer), GREET)
    row, progressed_at = Rollout.objects.filter(uid=back), rollout(back).progressed_at
    assert progressed_at
    row.update(progressed_at=progressed_at - timedelta(seconds=601))
    advance(back)
    row.update(progressed_at=progressed_at)
    assert reconciled() == []
    ingestion.record_heartbeats([heartbeat_of(names[1], modules=[old, new])])
    reconciled(GREET)
    assert (state_of(names[1], 1), state_of(names[1], 2)) == (("load", "load", "in_sync"), None)


# --- Drift ------------------------------------------------------------------------------------------------------------


def test_drift_is_recorded_once():
    (name,) = fleet(1)
    everywhere()
    drift(name)
    for _ in range(3):
        assert reconciled() == []
    (event,) = recorded(NodeDrifted)
    assert (event.node, event.version, event.desired, event.observed) == (name, 1, "load", "absent")
    assert NodeModule.objects.get().drifted_at is not None


def test_each_other_observation_is_recorded():
    (name,) = fleet(1)
    everywhere()
    for modules in [(), (installed(loaded=False),), (installed(content="patched"),)]:
        drift(name, *modules)
        reconciled()
    assert [each.observed for each in recorded(NodeDrifted)] == ["absent", "files", "load"]


def test_the_end_of_drift_is_recorded():
    (name,) = fleet(1)
    everywhere()
    for _ in range(2):
        drift(name)
        reconciled()
        drift(name, GREET)
        reconciled()
    assert (len(recorded(NodeDrifted)), len(recorded(NodeDriftEnded))) == (2, 2)
    assert (NodeModule.objects.get().drifted_at, node(name).drifts) == (None, [])


def test_drift_ends_when_something_else_is_desired():
    (name,) = fleet(1)
    everywhere()
    drift(name)
    reconciled()
    start()
    reconciled()
    assert len(recorded(NodeDriftEnded)) == 1


def test_drift_is_not_corrected_by_default():
    (name,) = fleet(1)
    everywhere()
    drift(name)
    assert reconciled() == []
    assert state_of(name) == ("load", "absent", "missing")


def test_drift_is_corrected_if_the_cluster_says_so():
    (name,) = fleet(1)
    everywhere()
    drift(name)
    reconciled()
    update_cluster_settings(correct_drift=True)
    (uid,) = reconciled()
    reconciled()
    assert (rollout(uid).version, state_of(name)) == (1, ("load", "load", "in_sync"))
    assert (len(recorded(NodeDrifted)), len(recorded(NodeDriftEnded))) == (1, 1)


def test_drift_is_corrected_to_what_was_released_to_the_node():
    names = fleet(2)
    update_cluster_settings(correct_drift=True)
    upload(version=2, content="c2")
    everywhere()
    succeed(start(version=2, nodes=(names[0],)), installed(2, "c2"))
    drift(names[0])
    (uid,) = reconciled(installed(2, "c2"))
    assert (rollout(uid).version, list(phases(uid))) == (2, [names[0]])


def test_what_nobody_wants_is_recorded_and_left():
    (name,) = fleet(1)
    update_cluster_settings(correct_drift=True)
    drift(name, installed(7))
    assert reconciled() == []
    assert [each.desired for each in recorded(NodeDrifted)] == ["absent"]
    drift(name)
    reconciled()
    assert len(recorded(NodeDriftEnded)) == 1


def test_files_that_a_person_has_loaded_are_recorded_and_left():
    (name,) = fleet(1)
    update_cluster_settings(correct_drift=True)
    everywhere(installed(loaded=False), activation=Activation.FILES)
    drift(name, GREET)
    assert reconciled() == []
    assert len(recorded(NodeDrifted)) == 1


def test_what_differs_while_an_operation_is_under_way_is_no_drift():
    (name,) = fleet(1)
    update_cluster_settings(correct_drift=True)
    everywhere()
    start()
    drift(name)
    assert reconciled() == []
    assert recorded(NodeDrifted) == []


@pytest.mark.parametrize("take_away", [drain_node, silence])
def test_nodes_that_are_offline_or_draining_are_left_alone(take_away):
    (name,) = fleet(1)
    update_cluster_settings(correct_drift=True)
    everywhere()
    drift(name)
    take_away(name)
    offline_nodes.declare_silent_nodes_offline()
    assert reconciled() == []
    assert recorded(NodeDrifted) == []


# --- How it goes about it ---------------------------------------------------------------------------------------------


def test_nothing_is_started_while_the_fleet_is_frozen():
    fleet(1)
    everywhere()
    join("late")
    freeze_fleet("an incident")
    assert reconciled() == []
    thaw_fleet()
    assert len(reconciled()) == 1


def test_drift_is_recorded_while_the_fleet_is_frozen():
    (name,) = fleet(1)
    everywhere()
    drift(name)
    freeze_fleet("an incident")
    assert reconciled() == []
    assert len(recorded(NodeDrifted)) == 1


def test_it_does_nothing_while_a_projection_waits_for_its_rebuild(monkeypatch):
    monkeypatch.setattr("rollout.reconciliation.reconciler.POLL_SECONDS", 0.0)
    monkeypatch.setattr("rollout.reconciliation.reconciler.stale_projections", lambda: ["nodes"])
    (name,) = fleet(1)
    everywhere()
    drift(name)
    join("late")
    reconciler = Reconciler()
    reconciler.poll()
    assert (own(), recorded(NodeDrifted)) == ([], [])
    monkeypatch.setattr("rollout.reconciliation.reconciler.stale_projections", list)
    reconciler.poll()
    assert (len(own()), len(recorded(NodeDrifted))) == (1, 1)


def test_it_never_supersedes_an_operators_rollout():
    fleet(1)
    everywhere()
    join("late", "later")
    uid = start(nodes=("late",), released=False)
    reconcile()
    assert [phases(each) for each in own()] == [{"later": "scheduled"}]
    assert phases(uid) == {"late": "scheduled"}


def test_a_node_that_is_taken_after_all_keeps_no_other_from_its_work():
    fleet(1)
    everywhere()
    join("a", "b", "c", "d", "e")
    taken = Operation.objects.filter(rollout=start(nodes=("c",), released=False))
    taken.update(finished_at=database_now())  # so says its row, but not its stream
    reconcile()
    taken.update(finished_at=None)
    assert sorted(name for uid in own() for name in phases(uid)) == ["a", "b", "d", "e"]


def test_the_next_try_waits_twice_as_long_each_time(later):
    (name,) = fleet(1)
    update_cluster_settings(correct_drift=True)
    everywhere()
    drift(name)
    assert len(reconciled()) == 1
    for seconds in (30, 60, 120, 240):
        drift(name)
        later(seconds - 20)
        assert reconciled() == []
        later(20)
        assert len(reconciled()) == 1


def test_after_an_hour_without_any_nothing_waits(later):
    (name,) = fleet(1)
    update_cluster_settings(correct_drift=True)
    everywhere()
    for seconds in (0, 30, 3600, 30):
        later(seconds)
        drift(name)
        assert len(reconciled()) == 1


def test_it_says_when_it_wants_to_look_again(later):
    (name,) = fleet(1)
    update_cluster_settings(correct_drift=True)
    everywhere()
    drift(name)
    reconciled()
    drift(name)
    next_at = reconcile()
    assert next_at
    seconds = (next_at - database_now()).total_seconds()
    assert 20 < seconds <= 30


@pytest.mark.slow
def test_a_run_reads_by_the_same_number_of_queries_for_any_fleet():
    update_cluster_settings(correct_drift=True)
    fleet(1)
    everywhere()
    costs = []
    for count in (3, 50):
        old, late = ([f"{kind}-{count}-{number}" for number in range(count)] for kind in ("old", "late"))
        join(*old)
        succeed(start(nodes=tuple(old), max_parallel=count), GREET)
        ingestion.record_heartbeats([heartbeat_of(name) for name in old])
        join(*late)
        with CaptureQueriesContext(connection) as queries:
            reconcile()
        costs.append(sum(each["sql"].strip().startswith("SELECT") for each in queries))
        for uid in own():
            succeed(uid, GREET)
    assert costs[0] == costs[1]


def test_a_run_with_nothing_to_do_is_five_queries(django_assert_num_queries):
    fleet(50)
    everywhere(max_parallel=50)
    with django_assert_num_queries(5):  # the position, and what is missed, differs, did not succeed and has drifted
        reconcile()


def test_it_polls_only_when_something_may_have_changed(monkeypatch):
    monkeypatch.setattr("rollout.reconciliation.reconciler.POLL_SECONDS", 0.0)
    fleet(1)
    everywhere()
    reconciler = Reconciler()
    reconciler.poll()
    with CaptureQueriesContext(connection) as again:
        reconciler.poll()
    assert len(again) == 2
    join("late")
    reconciler.poll()
    assert len(own()) == 1
