"""Reports that answer nothing, and those that cannot be recorded: counted, and in the log as long as they are few."""

from functools import partial
from uuid import uuid5

import pytest

from eventstore import ConcurrencyError, StoredEvent, acting_as, append, head, read
from rollout.delivery import ingestion
from rollout.delivery.ingestion import reports as report_ingestion
from rollout.domain.placement import decider, reports
from rollout.domain.placement.events import ReportRejected
from rollout.domain.placement.outcomes import reported_outcome
from rollout.domain.placement.reports import MOST_REJECTED
from rollout.domain.retries import Retries
from rollout.messages import FINAL_PHASES, REPORTS, Action, Phase, Reason
from rollout.models import Liveness, TimelineEntry
from rollout.process import manager, timeouts
from rollout.process.advance import advance
from rollout.process.manager import ProcessManager
from rollout.services.rollback import ROLLBACKS, roll_back_rollout
from rollout.services.rollouts import cancel_node
from rollout.transport import DROPPED
from tests.plugins.cast import client_of
from tests.recorded_fleet import (
    differences,
    fleet,
    grew,
    installed,
    inventory,
    join,
    operation,
    overdue,
    phases,
    report_of,
    rollout,
    say,
    start,
    state_of,
    upload,
)

pytestmark = pytest.mark.django_db


def rejected():
    return [each.event for each in rejections()]


def rejections():
    return list(read(event_classes=[ReportRejected]))


def streams():
    return set(StoredEvent.objects.values_list("stream", flat=True))


@pytest.fixture
def counted():
    """What was dropped since the last call, by reason."""
    DROPPED.take()

    def take():
        found = DROPPED.take()
        assert {queue for queue, _ in found} <= {REPORTS}
        return {reason: count for (_, reason), count in found.items()}

    return take


@pytest.mark.parametrize("phase", [Phase.FETCHING, Phase.SUCCEEDED])
@pytest.mark.parametrize("has_inventory", [False, True])
@pytest.mark.parametrize(
    ("change", "is_recorded"),
    [
        ({"node": "stranger"}, False),
        ({"node": "stranger", "generation": 0}, False),
        ({"module_name": "nothing"}, False),
        ({"module_name": "other"}, False),
        ({"node": "stranger", "module_name": "nothing", "rollout": "who"}, False),
        ({"node": "idle"}, False),
        ({"rollout": "who", "generation": 7}, True),
        ({"generation": 7}, True),
        ({"attempt": 7}, True),
        ({"node": "n0001", "generation": 7}, True),
    ],
)
def test_a_report_that_answers_nothing_begins_no_stream_and_is_counted(
    counted, change, is_recorded, has_inventory, phase
):
    """`other` is a module that there is, and `idle` a node of which nothing was ever asked."""
    upload("other")
    fleet(2)
    uid = start()
    join("idle")
    before, life = streams(), set(Liveness.objects.values_list("node", flat=True))
    seen = inventory(installed()) if has_inventory and change.get("node", "n0000") == "stranger" else None
    said = {**report_of(uid, "n0000", phase, inventory=seen), **change}
    assert grew(lambda: ingestion.record_reports([said, said])) == is_recorded
    assert streams() == before
    assert set(Liveness.objects.values_list("node", flat=True)) == life
    assert [each.node for each in rejected()] == [said["node"]] * is_recorded
    assert set(phases(uid).values()) == {"queued"}
    assert counted() == {"unknown_node" if said["node"] == "stranger" else "rejected": 2}
    assert differences() == {}


def test_answers_are_not_counted(counted):
    (name,) = fleet(1)
    uid = start()
    said = report_of(uid, name)
    for _ in range(2):
        ingestion.record_reports([report_of(uid, name, Phase.LOADING), said, said])
    assert rollout(uid).phase == "succeeded"
    assert counted() == {}


@pytest.mark.parametrize("kind", ["the same two in turn", "ever new ones", "unknown rollouts"])
def test_a_node_cannot_let_the_log_grow_without_end(counted, kind):
    (name,) = fleet(1)
    uid = start()
    said = report_of(uid, name)
    bad = [
        {
            "the same two in turn": {**said, "generation": 7 + number % 2},
            "ever new ones": {**said, "generation": 7 + number},
            "unknown rollouts": {**said, "generation": 7, "rollout": f"who-{number}"},
        }[kind]
        for number in range(100)
    ]
    most = 2 if kind == "the same two in turn" else MOST_REJECTED
    assert grew(lambda: ingestion.record_reports(bad)) == most
    assert sum(grew(partial(ingestion.record_reports, [each])) for each in bad) == 0
    assert counted() == {"rejected": 200}
    assert TimelineEntry.objects.count() < 30
    say(uid, name)
    assert rollout(uid).phase == "succeeded"
    assert differences() == {}


def test_a_new_operation_has_rejections_recorded_again():
    (name,) = fleet(1)
    uid = start()
    bad = [{**report_of(uid, name), "rollout": f"who-{number}", "generation": 7} for number in range(20)]
    ingestion.record_reports(bad)
    say(uid, name)
    start(action=Action.REMOVE)
    assert grew(lambda: ingestion.record_reports(bad)) == MOST_REJECTED


@pytest.fixture
def poisoned(monkeypatch):
    """A report of this message cannot be recorded."""

    def outcome(live, report):
        if report.message == "poison":
            raise ValueError("nobody \0foresaw this")
        return reported_outcome(live, report)

    monkeypatch.setattr(reports, "reported_outcome", outcome)
    return {"message": "poison"}


def test_what_cannot_be_recorded_is_in_the_log_as_rejected_with_its_reason(counted, poisoned):
    bad, good = fleet(2)
    uid = start()
    said = [report_of(uid, bad, **poisoned), report_of(uid, good)]
    for _ in range(2):
        ingestion.record_reports(said)
    (event,) = rejected()
    assert (event.node, event.rollout, event.phase) == (bad, uid, Phase.SUCCEEDED)
    assert event.why == "It could not be recorded: ValueError: nobody foresaw this"
    assert phases(uid) == {bad: "queued", good: "succeeded"}
    assert counted() == {"unrecorded": 2}
    (recorded,) = rejections()
    assert bad in recorded.actor
    assert differences() == {}


def test_there_is_an_end_to_what_cannot_be_recorded(counted, poisoned):
    (name,) = fleet(1)
    uid = start()
    for phase in [*FINAL_PHASES] * 3:
        say(uid, name, phase, **poisoned)
    assert len(rejected()) == len(FINAL_PHASES)
    assert counted() == {"unrecorded": 12, "rejected": 6}  # no agent says that it has timed out, or is rolled back
    assert operation(uid, name).phase == "queued"


def test_a_rejection_that_cannot_be_recorded_keeps_no_other_from_being_recorded(monkeypatch, counted, poisoned):
    bad, good = fleet(2)
    uid = start()

    def fail(*_):
        raise ValueError("nor this")

    monkeypatch.setattr(decider, "reject_report", fail)
    ingestion.record_reports([report_of(uid, bad, **poisoned), report_of(uid, good)])
    assert phases(uid) == {bad: "queued", good: "succeeded"}
    assert counted() == {"unrecorded": 1}


def test_what_is_tried_again_is_counted_once(monkeypatch, counted):
    (name,) = fleet(1)
    uid = start()
    calls = []

    def twice_refused(*appends):
        calls.append(appends)
        if len(calls) < 3:
            raise ConcurrencyError
        return append(*appends)

    monkeypatch.setattr(report_ingestion, "append", twice_refused)
    ingestion.record_reports([{**report_of(uid, name), "generation": 7}])
    assert counted() == {"rejected": 1}


def test_late_answers_that_contradict_each_other_end_too():
    (name,) = fleet(1)
    uid = start()
    say(uid, name)
    late = [report_of(uid, name, phase) for phase in (Phase.FAILED, Phase.CANCELED) * 50]
    assert grew(lambda: ingestion.record_reports(late)) == 2
    assert sum(grew(partial(ingestion.record_reports, [each])) for each in late) == 0
    assert operation(uid, name).phase == "succeeded"
    assert differences() == {}


def test_rejected_reports_hide_no_late_success():
    (name,) = fleet(1)
    uid = start()
    overdue(name)
    timeouts.end_overdue_operations()
    bad = [{**report_of(uid, name), "rollout": f"who-{number}", "generation": 7} for number in range(20)]
    assert grew(lambda: ingestion.record_reports(bad)) == MOST_REJECTED
    say(uid, name)
    assert operation(uid, name).late == "succeeded"
    assert state_of(name) == ("load", "absent", "missing")
    assert differences() == {}


# --- Rollouts of others -----------------------------------------------------------------------------------------------


def versions(uid):
    """What shows that a rollout has moved: its newest event, and its timeline."""
    row = rollout(uid)
    return (
        row.position,
        row.event_id,
        list(TimelineEntry.objects.filter(rollout=uid).values_list("position", flat=True)),
    )


@pytest.fixture
def stranger():
    """A rollout that has its operation on n0000 alone; n0001 had another one."""
    fleet(2)
    say(start(nodes=("n0001",)), "n0001")
    return start(nodes=("n0000",))


REJECTED = {"node": "n0001", "generation": 7}


def test_a_rejected_report_moves_no_rollout_of_others(stranger, alice):
    admin = client_of(alice)
    url = f"/v2/rollouts/{stranger}"
    etag, before = admin.get(url)["ETag"], versions(stranger)
    assert grew(lambda: ingestion.record_reports([report_of(stranger, "n0000") | REJECTED])) == 1
    assert versions(stranger) == before
    assert admin.get(url, headers={"If-None-Match": etag}).status_code == 304
    assert differences() == {}


def test_nor_one_about_another_module_of_the_node():
    """n0000 is in the rollout, with another module."""
    upload("other")
    fleet(1)
    say(start(module_name="other"), "n0000", module_name="other")
    uid = start()
    before = versions(uid)
    assert grew(lambda: ingestion.record_reports([report_of(uid, "n0000", module_name="other", generation=7)])) == 1
    assert versions(uid) == before
    assert differences() == {}


def test_a_rejected_report_is_told_of_its_own_operation_and_causes_nothing():
    (name,) = fleet(1)
    uid = start()
    _, event_id, timeline = versions(uid)
    caused = operation(uid, name).event_id
    assert grew(lambda: say(uid, name, generation=7)) == 1
    assert versions(uid) == (head(), event_id, [*timeline, head()])
    assert operation(uid, name).event_id == caused
    assert differences() == {}


def test_a_report_about_a_rollout_to_come_is_not_told_of_it(stranger):
    """The uid of a rollback is known before there is one."""
    say(stranger, "n0000")
    into = uuid5(ROLLBACKS, stranger).hex
    ingestion.record_reports([report_of(stranger, "n0000") | {"rollout": into, "generation": 7}])
    assert roll_back_rollout(stranger) == into
    assert not TimelineEntry.objects.filter(position=rejections()[0].position).exists()
    assert differences() == {}


@pytest.mark.parametrize("change", [{"generation": 7}, REJECTED])
def test_a_rejected_report_is_no_cause(change):
    say_of = fleet(2)
    say(start(), "n0001")
    uid = start(version=1, action=Action.REMOVE, nodes=tuple(say_of), supersede=True, released=False)
    ingestion.record_reports([report_of(uid, "n0000") | change])
    advance(uid)
    say(uid, "n0000")
    rejection = rejections()[0].event_id.hex
    assert rejection not in {each.metadata.causation_id for each in read()}


def test_a_rejected_report_advances_no_rollout(stranger, monkeypatch):
    process_manager = ProcessManager()
    process_manager.poll()
    advanced = []

    def advance_all(uids):
        advanced.extend(uids)
        return {}

    for module in (report_ingestion, manager):
        monkeypatch.setattr(module, "advance_all", advance_all)
    ingestion.record_reports([report_of(stranger, "n0000") | REJECTED])
    process_manager.poll()
    assert advanced == []


# --- What a node says of its own operation ----------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.CANCELED, Phase.FAILED, Phase.SKIPPED])
@pytest.mark.parametrize("reason", [Reason.NODE_DECOMMISSIONED, Reason.NEWER_ROLLOUT, Reason.NODE_DRAINING])
def test_a_node_cannot_give_a_reason_of_the_control_plane(counted, phase, reason):
    """It would not count as a failure then."""
    bad, good = fleet(2)
    uid = start(careful={"canary": 0, "max_failures": 0, "retries": Retries(limit=0)})
    say(uid, bad, phase, reason=reason)
    say(uid, good)
    assert phases(uid) == {bad: "queued", good: "succeeded"}
    assert [each.why for each in rejected()] == [f"no agent reports the reason {reason}"]
    assert counted() == {"rejected": 1}


@pytest.mark.parametrize("reason", [None, Reason.MANUAL])
def test_what_nobody_has_canceled_is_a_failure(reason):
    bad, _ = fleet(2)
    with acting_as("user:alice"):
        uid = start(careful={"canary": 0, "max_failures": 0, "retries": Retries(limit=0)})
    say(uid, bad, Phase.CANCELED, reason=reason, message="The operation was canceled.")
    row = operation(uid, bad)
    assert (row.phase, row.reason, row.canceled_by) == ("failed", "agent_error", "")
    assert row.message == f"{bad} canceled the operation without a request. The operation was canceled."
    assert rollout(uid).phase == "paused"


def test_what_a_person_has_canceled_is_canceled():
    (name,) = fleet(1)
    uid = start()
    with acting_as("user:bob"):
        cancel_node(uid, name, force=False)
    say(uid, name, Phase.CANCELED, reason=Reason.MANUAL)
    assert (operation(uid, name).phase, operation(uid, name).canceled_by) == ("canceled", "bob")
