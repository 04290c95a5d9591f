"""The process manager advances the rollouts that events and time concern, and none that only waits."""

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.services import update_cluster_settings
from eventstore import database_now
from eventstore.models import ProjectionVersion
from eventstore.projections import rebuild, registered
from rollout.delivery import ingestion, outbox
from rollout.delivery.ingestion import heartbeats, reports
from rollout.domain.retries import Retries
from rollout.domain.strategy import Gate, Offline
from rollout.management.commands.relay import run_once
from rollout.messages import Phase
from rollout.models import Liveness
from rollout.process import advance, manager, offline_nodes, timeouts
from rollout.process.manager import ProcessManager
from rollout.reconciliation.reconciler import reconcile
from rollout.services import freeze, nodes, rollback, rollouts
from rollout.services.freeze import freeze_fleet, thaw_fleet
from rollout.services.nodes import activate_node, decommission_node, drain_node, forget_node
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import (
    abort_rollout,
    approve_rollout,
    cancel_node,
    pause_rollout,
    promote_rollout,
    reject_rollout,
)
from tests.recorded_fleet import (
    fleet,
    heartbeat_of,
    installed,
    inventory,
    join,
    overdue,
    phases,
    rollout,
    say,
    silence,
    start,
    upload,
)

pytestmark = pytest.mark.django_db

AT_ONCE = {"canary": 0, "max_failures": "100%", "retries": Retries(limit=0)}
LATER = 100.0
NEVER = 1e6


@pytest.fixture
def sent(monkeypatch):
    """The nodes to which commands are sent."""
    found = []
    monkeypatch.setattr(outbox, "_send", lambda command, _, **__: found.append(command.node))
    return found


@pytest.fixture
def relay(sent):
    """Runs all steps once, without a reconciler."""
    process_manager = ProcessManager()
    return lambda: run_once(lambda: None, process_manager)


@pytest.fixture
def dies(monkeypatch):
    """Whoever appends dies before it moves any rollout on."""
    for module, name in (
        (rollouts, "advance"),
        (rollback, "advance"),
        (freeze, "advance_all"),
        (heartbeats, "advance_all"),
        (reports, "advance_all"),
    ):
        monkeypatch.setattr(module, name, lambda *_: None)
    for module in (timeouts, offline_nodes, nodes):
        monkeypatch.setattr(module, "advance_all", lambda *_: None)


@pytest.fixture
def later(monkeypatch):
    """So many seconds pass for the relay."""

    def go(seconds):
        for module in (advance, manager):
            monkeypatch.setattr(module, "database_now", lambda: database_now() + timedelta(seconds=seconds))

    return go


@pytest.fixture
def advanced(monkeypatch):
    """The rollouts that were advanced."""
    found, real = [], advance.advance

    def look_at(uid):
        found.append(uid)
        return real(uid)

    monkeypatch.setattr(advance, "advance", look_at)
    return found


# --- What only waits --------------------------------------------------------------------------------------------------


def waiting(names, number):
    """A rollout that waits, in one of five ways, on two nodes of its own."""
    ways: tuple[dict[str, Any], ...] = (
        {"approval": True},
        {"start_at": database_now() + timedelta(days=30)},
        {"canary": 1, "gate": Gate.MANUAL},
        {"canary": 1, "soak_seconds": NEVER},
        {},
    )
    mine = names[2 * number : 2 * number + 2]
    uid = start(nodes=tuple(mine), careful=AT_ONCE | ways[number % 5])
    if number % 5 in {2, 3}:
        say(uid, mine[0], inventory=inventory(installed()))
    if number % 5 == 4:
        pause_rollout(uid)
    return uid


def test_what_waits_costs_nothing(sent):
    names = fleet(80)
    process_manager = ProcessManager()
    seen: dict[int, list[int]] = {}
    for count in range(40):
        waiting(names, count)
        if count in {0, 39}:
            for event in (lambda: None, lambda count=count: join(f"stranger-{count}")):
                run_once(reconcile, process_manager)
                event()
                with CaptureQueriesContext(connection) as queries:
                    run_once(reconcile, process_manager)
                seen.setdefault(count, []).append(len(queries))
    assert seen[39] == seen[0]


def test_only_what_an_event_is_about_is_advanced(relay, advanced):
    names = fleet(10)
    uids = [waiting(names, number) for number in range(5)]
    relay()
    relay()
    advanced.clear()
    relay()
    assert advanced == []
    approve_rollout(uids[0], by=2, remark="")
    silence(names[3])
    offline_nodes.declare_silent_nodes_offline()
    advanced.clear()
    relay()
    assert set(advanced) == {uids[0], uids[1]}
    advanced.clear()
    thaw_fleet()
    freeze_fleet("night")
    relay()
    assert set(advanced) == set(uids)


# --- What moves a rollout on ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("dies")
@pytest.mark.parametrize(
    ("strategy", "verb", "expected"),
    [
        ({"approval": True}, lambda uid: approve_rollout(uid, by=2, remark=""), "running"),
        ({"approval": True}, lambda uid: reject_rollout(uid, remark=""), "rejected"),
        ({"approval": True}, abort_rollout, "aborted"),
        ({}, roll_back_rollout, "rolling_back"),
        ({}, lambda uid: cancel_node(uid, "n0000", force=True), "aborted"),
        ({}, lambda _: decommission_node("n0000"), "aborted"),
        ({}, lambda _: overdue("n0000"), "failed"),
    ],
)
def test_a_verb_of_another_process(relay, strategy, verb, expected):
    fleet(1)
    uid = start(careful=AT_ONCE | strategy)
    relay()
    verb(uid)
    relay()
    relay()
    assert rollout(uid).phase == expected


@pytest.mark.usefixtures("dies")
def test_a_report(relay):
    fleet(2)
    uid = start(max_parallel=1)
    relay()
    relay()
    say(uid, "n0000")
    relay()
    assert phases(uid) == {"n0000": "succeeded", "n0001": "queued"}


@pytest.mark.usefixtures("dies")
def test_a_gate_that_is_opened(relay):
    fleet(2)
    uid = start(careful=AT_ONCE | {"canary": 1, "gate": Gate.MANUAL})
    say(uid, "n0000")
    relay()
    relay()
    assert phases(uid)["n0001"] == "scheduled"
    promote_rollout(uid)
    relay()
    assert phases(uid)["n0001"] == "queued"


@pytest.mark.usefixtures("dies")
def test_a_thaw(relay):
    fleet(1)
    freeze_fleet("night")
    uid = start()
    relay()
    relay()
    assert phases(uid) == {"n0000": "scheduled"}
    thaw_fleet()
    relay()
    assert phases(uid) == {"n0000": "queued"}


@pytest.mark.usefixtures("dies")
@pytest.mark.parametrize(
    ("leave", "come_back"),
    [
        (
            lambda: [each() for each in (partial(silence, "n0000"), offline_nodes.declare_silent_nodes_offline)],
            lambda: ingestion.record_heartbeats([heartbeat_of("n0000")]),
        ),
        (lambda: forget_node("n0000"), lambda: ingestion.record_heartbeats([heartbeat_of("n0000", hello=True)])),
        (lambda: drain_node("n0000"), lambda: activate_node("n0000")),
    ],
)
def test_a_node_that_comes_back(relay, leave, come_back):
    fleet(1)
    uid = start(released=False)
    leave()
    relay()
    relay()
    assert phases(uid) == {"n0000": "scheduled"}
    come_back()
    relay()
    assert phases(uid) == {"n0000": "queued"}


@pytest.mark.usefixtures("dies")
def test_a_node_that_goes_offline(relay):
    fleet(2)
    uid = start(careful=AT_ONCE | {"offline": Offline.FAIL}, max_parallel=1)
    relay()
    relay()
    silence("n0001")
    offline_nodes.declare_silent_nodes_offline()
    relay()
    assert phases(uid) == {"n0000": "queued", "n0001": "failed"}


@pytest.mark.usefixtures("dies")
@pytest.mark.parametrize("how", ["drift", "silence"])
def test_a_node_that_is_lost_after_it_has_succeeded(relay, how):
    fleet(1)
    uid = start(careful={"canary": 0, "max_failures": 0, "soak_seconds": NEVER})
    say(uid, "n0000")
    ingestion.record_heartbeats([heartbeat_of("n0000", modules=[installed()])])
    relay()
    relay()
    assert rollout(uid).waves[0]["phase"] == "soaking"
    if how == "silence":
        silence("n0000")
        offline_nodes.declare_silent_nodes_offline()
    else:
        update_cluster_settings(correct_drift=False)
        ingestion.record_heartbeats([heartbeat_of("n0000")])
        reconcile()
    relay()
    assert (rollout(uid).phase, rollout(uid).reason) == ("paused", "error_threshold")


@pytest.mark.usefixtures("dies")
def test_an_operation_of_another_rollout_that_is_waited_for(relay):
    fleet(1)
    first = start()
    second = start(supersede=True, released=False)
    relay()
    relay()
    assert phases(second) == {"n0000": "scheduled"}
    say(first, "n0000")
    relay()
    assert phases(second) == {"n0000": "queued"}


@pytest.mark.usefixtures("dies")
@pytest.mark.parametrize(("phase", "expected"), [(Phase.SUCCEEDED, "running"), (Phase.FAILED, "aborting")])
def test_a_rollout_that_is_needed_ends(relay, phase, expected):
    names = fleet(2)
    uid = start(nodes=(names[0],))
    upload("other")
    needing = start(module_name="other", nodes=(names[1],), released=False)
    needs(needing, uid)
    relay()
    relay()
    assert rollout(needing).phase == "planned"
    say(uid, names[0], phase)
    relay()
    relay()
    assert rollout(needing).phase in {expected, "aborted" if expected == "aborting" else expected}


def needs(uid, needed):
    """As if it had been planned so; packages with dependencies are in `test_dependencies`."""
    row = rollout(uid)
    row.needs = [needed]
    row.save()


def test_the_time_to_start(relay, later):
    fleet(1)
    start_at = database_now() + timedelta(seconds=LATER / 2)
    uid = start(careful=AT_ONCE | {"start_at": start_at})
    assert [relay()[1], relay()[1]] == [start_at, start_at]
    assert rollout(uid).phase == "scheduled"
    later(LATER)
    relay()
    assert rollout(uid).phase == "running"


def test_the_end_of_a_soak(relay, later):
    fleet(1)
    uid = start(careful=AT_ONCE | {"soak_seconds": LATER / 2})
    say(uid, "n0000")
    relay()
    relay()
    assert rollout(uid).phase == "running"
    later(LATER)
    relay()
    assert rollout(uid).phase == "succeeded"


def test_the_progress_deadline(relay, later):
    fleet(2)
    uid = start(careful=AT_ONCE | {"max_failures": 0, "progress_deadline_seconds": LATER / 2}, deadline=LATER / 4)
    relay()
    relay()
    assert rollout(uid).phase == "running"
    later(LATER)
    relay()
    assert (rollout(uid).phase, rollout(uid).reason) == ("paused", "progress_deadline")


def test_a_retry_after_its_wait(relay, later):
    fleet(1)
    uid = start(careful=AT_ONCE | {"retries": Retries(limit=1, backoff_seconds=LATER / 8)})
    say(uid, "n0000", Phase.FAILED, reason="fetch_failed")
    relay()
    relay()
    assert phases(uid) == {"n0000": "scheduled"}
    later(LATER)
    Liveness.objects.update(facts_at=database_now() + timedelta(seconds=LATER))
    relay()
    assert phases(uid) == {"n0000": "queued"}


# --- Nothing is missed ------------------------------------------------------------------------------------------------


def test_what_another_relay_has_moved_on_is_known_to_this_one(sent, later):
    fleet(1)
    uid = start(careful=AT_ONCE | {"soak_seconds": LATER / 2})
    first, second = ProcessManager(), ProcessManager()
    for each in (first, second):
        run_once(lambda: None, each)
    say(uid, "n0000")
    run_once(lambda: None, first)
    run_once(lambda: None, second)
    later(LATER)
    run_once(lambda: None, second)
    assert rollout(uid).phase == "succeeded"


def test_a_rollout_that_cannot_move_on_is_tried_again(relay, monkeypatch, caplog):
    fleet(1)
    uid = start(released=False)
    with monkeypatch.context() as patch:
        patch.setattr(advance, "step", lambda *_: 1 / 0)
        relay()
        relay()
    assert caplog.text.count("cannot be advanced") >= 2
    relay()
    assert phases(uid) == {"n0000": "queued"}


@pytest.mark.usefixtures("dies")
def test_events_that_could_not_be_read_are_read_again(relay, monkeypatch):
    fleet(1)
    uid = start()
    relay()
    relay()
    say(uid, "n0000")
    with monkeypatch.context() as patch:
        patch.setattr(manager, "concerned_by", lambda _: 1 / 0)
        assert relay()[0] is False
    relay()
    assert rollout(uid).phase == "succeeded"


@pytest.mark.usefixtures("dies")
def test_after_very_many_events_all_are_advanced(relay, advanced, monkeypatch):
    fleet(2)
    uid = start(nodes=("n0000",))
    relay()
    relay()
    advanced.clear()
    monkeypatch.setattr(manager, "MOST_EVENTS", 0)
    join("stranger")
    relay()
    assert advanced == [uid]


@pytest.mark.parametrize("polls_before", [0, 2])
def test_all_are_advanced_while_a_projection_waits_for_its_rebuild(relay, advanced, polls_before):
    fleet(1)
    uid = start()
    for _ in range(polls_before):
        relay()
    advanced.clear()
    ProjectionVersion.objects.update(version=0)
    for _ in range(3):
        relay()
    assert advanced == [uid, uid, uid]
    for each in registered():
        rebuild(each)
    relay()
    relay()
    assert advanced == [uid, uid, uid, uid]
