"""What a node is to have of a module, what it has, and the word for it: (desired, observed, state)."""

import pytest

from eventstore import append, load_state
from rollout.delivery import ingestion
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import NodeDecommissioned, node_stream
from rollout.domain.placement.decider import PLACEMENT
from rollout.domain.placement.events import placement_stream
from rollout.messages import Action, Activation, Phase, Reason
from rollout.models import NodeModule, Placement
from rollout.process import offline_nodes, timeouts
from rollout.process.advance import advance
from rollout.projections.nodes import state_of as state_of_row
from rollout.queries import explanations
from rollout.queries.modules import users_of
from rollout.services.nodes import decommission_node
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import abort_rollout
from tests.recorded_fleet import (
    differences,
    fleet,
    heartbeat_of,
    installed,
    inventory,
    operation,
    overdue,
    say,
    silence,
    start,
    state_of,
    upload,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def n():
    (name,) = fleet(1)
    return name


@pytest.fixture(autouse=True)
def rebuilt_equals_live(db):
    yield
    assert differences() == {}


def install(node, version=1, phase=Phase.SUCCEEDED, has=(), reason=None, **more):
    """A rollout to its end, after which the node has `has`."""
    uid = start(version=version, **more)
    say(uid, node, phase, inventory=inventory(*has), reason=reason)
    return uid


def test_it_works(n):
    uid = start()
    assert state_of(n) == ("load", "absent", "pending")
    say(uid, n, inventory=inventory(installed()))
    assert state_of(n) == ("load", "load", "in_sync")


def test_nothing_is_wanted_before_the_release(n):
    start(released=False)
    assert state_of(n) is None


def test_a_load_that_failed_and_left_nothing(n):
    install(n, phase=Phase.FAILED)
    assert state_of(n) == ("absent", "absent", "error")


def test_a_time_out_that_succeeds_late_is_in_sync(n):
    uid = start()
    overdue(n)
    timeouts.end_overdue_operations()
    assert state_of(n) == ("absent", "absent", "error")
    say(uid, n, inventory=inventory(installed()))
    assert state_of(n) == ("load", "load", "in_sync")


def test_files_that_somebody_deleted_are_missing(n):
    install(n, has=[installed()])
    ingestion.record_heartbeats([heartbeat_of(n)])
    assert state_of(n) == ("load", "absent", "missing")


def test_other_bytes_or_unloaded_is_drift(n):
    install(n, has=[installed()])
    ingestion.record_heartbeats([heartbeat_of(n, modules=[installed(content="c9")])])
    assert state_of(n) == ("load", "load", "drifted")
    ingestion.record_heartbeats([heartbeat_of(n, modules=[installed(loaded=False)])])
    assert state_of(n) == ("load", "files", "drifted")
    ingestion.record_heartbeats([heartbeat_of(n, modules=[installed()])])
    assert state_of(n) == ("load", "load", "in_sync")


def test_what_nobody_asked_for_is_drift(n):
    ingestion.record_heartbeats([heartbeat_of(n, modules=[installed()])])
    assert state_of(n) == ("absent", "load", "drifted")


def test_a_removal(n):
    install(n, has=[installed()])
    uid = start(action=Action.REMOVE)
    assert state_of(n) == ("absent", "load", "pending")
    say(uid, n, inventory=inventory())
    assert state_of(n) is None


def test_a_removal_that_failed(n):
    install(n, has=[installed()])
    install(n, action=Action.REMOVE, phase=Phase.FAILED, has=[installed()])
    assert state_of(n) == ("load", "load", "error")


def test_files_only(n):
    install(n, activation=Activation.FILES, has=[installed(loaded=False)])
    assert state_of(n) == ("files", "files", "in_sync")


def test_an_upgrade_is_no_drift_while_it_runs(n):
    install(n, has=[installed()])
    upload(version=2, content="c2")
    uid = start(version=2)
    assert (state_of(n, 1), state_of(n, 2)) == (("files", "load", "pending"), ("load", "absent", "pending"))
    say(uid, n, inventory=inventory(installed(loaded=False), installed(2, "c2")))
    assert (state_of(n, 1), state_of(n, 2)) == (("files", "files", "in_sync"), ("load", "load", "in_sync"))


def test_an_upgrade_that_failed_and_was_undone(n):
    install(n, has=[installed()])
    upload(version=2, content="c2")
    install(n, 2, phase=Phase.FAILED, has=[installed()])
    assert (state_of(n, 1), state_of(n, 2)) == (("load", "load", "in_sync"), ("absent", "absent", "error"))
    install(n, 1, has=[installed()])
    assert (state_of(n, 1), state_of(n, 2)) == (("load", "load", "in_sync"), None)


def test_what_is_given_back_is_still_to_come(n):
    start()
    silence(n)
    offline_nodes.declare_silent_nodes_offline()
    assert state_of(n) == ("load", "absent", "pending")


def test_an_abort_of_what_was_given_back_withdraws_it(n):
    uid = start()
    silence(n)
    offline_nodes.declare_silent_nodes_offline()
    abort_rollout(uid)
    assert state_of(n) is None


def test_a_version_that_never_worked_is_not_brought_back(n):
    install(n, phase=Phase.FAILED, reason=Reason.LOAD_FAILED)
    upload(version=2, content="c2")
    second = install(n, 2, has=[installed(2, "c2")])
    assert (state_of(n, 1), state_of(n, 2)) == (None, ("load", "load", "in_sync"))
    back = roll_back_rollout(second)
    advance(back)
    row = operation(back, n)
    assert (row.action, row.version) == ("remove", 2)
    say(back, n, inventory=inventory())
    assert (state_of(n, 1), state_of(n, 2)) == (None, None)


def test_what_the_inventory_showed_before_the_first_operation_is_brought_back(n):
    ingestion.record_heartbeats([heartbeat_of(n, modules=[installed(7, "c7")])])
    first = install(n, has=[installed(), installed(7, "c7", loaded=False)])
    assert state_of(n, 7) == ("files", "files", "in_sync")
    back = roll_back_rollout(first)
    advance(back)
    row = operation(back, n)
    assert (row.action, row.version, row.content_sha256, row.undoes) == ("install", 7, "c7", 1)
    say(back, n, inventory=inventory(installed(7, "c7")))
    assert (state_of(n, 1), state_of(n, 7)) == (None, ("load", "load", "in_sync"))


def test_rows_say_what_the_decider_says(n):
    install(n, has=[installed()])
    upload(version=2, content="c2")
    install(n, 2, phase=Phase.FAILED, has=[installed()])
    state = load_state(placement_stream(n, "greet"), PLACEMENT).state
    assert state_of_row(Placement.objects.get()) == state
    rows = {row.version: row.desired for row in NodeModule.objects.all() if row.desired != "absent"}
    assert rows == {each.version: each.activation for each in state.desired}


def test_a_check_sees_a_state_that_the_log_does_not_tell(n):
    install(n, has=[installed()])
    before = Placement.objects.get().state
    Placement.objects.update(state=before.replace("load", "files"))
    assert "nodes" in differences()
    Placement.objects.update(state=before)


def test_a_version_that_failed_holds_no_artifact(n):
    install(n, phase=Phase.FAILED)
    assert users_of("greet", 1) == []


def test_a_node_that_left_forgets(n):
    uid = install(n, has=[installed()])
    decommission_node(n)
    assert len(explanations.of_node(uid, n).events) == 3
    assert state_of(n) == ("absent", "load", "drifted")
    assert load_state(placement_stream(n, "greet"), PLACEMENT).state.had is None


def test_a_node_that_left_in_an_old_log_is_forgotten_when_it_joins_again(n):
    install(n, has=[installed()])
    loaded = load_state(node_stream(n), NODE)
    append(loaded.append([NodeDecommissioned(node=n)]))
    assert state_of(n) == ("load", "load", "in_sync")
    ingestion.record_heartbeats([heartbeat_of(n, hello=True, modules=[installed()])])
    assert state_of(n) == ("absent", "load", "drifted")


def test_other_modules_are_left_alone(n):
    install(n, has=[installed()])
    upload("other")
    uid = start(module_name="other")
    say(uid, n, inventory=inventory(installed(), installed(module_name="other")))
    assert (state_of(n), state_of(n, module_name="other")) == (("load", "load", "in_sync"),) * 2
