"""A rollback takes back what its rollout did wherever the node still has it, and names the nodes that it leaves alone."""

import json

import pytest

from accounts.services import update_cluster_settings
from rollout.delivery import ingestion
from rollout.domain.errors import ModuleNeededError, NothingToRollBackError
from rollout.messages import Activation, Phase, Reason
from rollout.models import ClusterTarget, Operation
from rollout.process import timeouts
from rollout.process.advance import advance
from rollout.queries.restoration import restoration_of
from rollout.reconciliation.reconciler import reconcile
from rollout.services import rollback
from rollout.services.nodes import decommission_node
from rollout.services.rollback import roll_back_rollout
from rollout.services.rollouts import cancel_node
from tests.recorded_fleet import (
    differences,
    fleet,
    heartbeat_of,
    installed,
    join,
    operation,
    overdue,
    phases,
    report_of,
    rollout,
    say,
    start,
    upload,
)
from tests.recorded_modules import package

pytestmark = [pytest.mark.django_db, pytest.mark.dialect]

A, B, C = "n0000", "n0001", "n0002"
CAREFUL = {"canary": 1, "max_failures": 0}


def done(version, *names, phase=Phase.SUCCEEDED, **more):
    """uid of a rollout of these nodes, which have all answered so."""
    uid = start(version=version, nodes=names, **more)
    for name in names:
        say(uid, name, phase, reason=Reason.LOAD_FAILED if phase == Phase.FAILED else None)
    advance(uid)
    return uid


def taken_back(uid):
    back = roll_back_rollout(uid)
    advance(back)
    for each in Operation.objects.filter(rollout=back, phase=Phase.QUEUED):
        say(back, each.node)
    advance(back)
    assert rollout(back).phase == "rolled_back"
    return back


def test_newer_attempts_that_failed_keep_no_node_from_being_rolled_back():
    fleet(2)
    upload(version=2, content="c2")
    first = done(1, A, B)
    done(2, B, phase=Phase.FAILED)
    done(2, B, phase=Phase.FAILED)
    back = taken_back(first)
    assert phases(back) == {A: "rolled_back", B: "rolled_back"}
    assert rollout(back).left_alone["count"] == 0
    assert differences() == {}


def test_nor_in_a_rollout_that_is_under_way():
    fleet(2)
    upload(version=2, content="c2")
    first = start(careful={"canary": 1, "gate": "manual"})
    say(first, A)
    done(2, A, phase=Phase.FAILED)
    assert taken_back(first) == first
    assert (operation(first, A).rollback, operation(first, A).phase) == (True, "rolled_back")


def test_what_something_newer_has_changed_is_named(admin):
    fleet(3)
    upload(version=2, content="c2")
    first = done(1, A, B, C)
    second = done(2, B)
    third = start(version=2, nodes=(C,))
    back = taken_back(first)
    assert phases(back) == {A: "rolled_back"}
    document = admin.get(f"/v2/rollouts/{back}").json()
    left = document["left_alone"]
    assert (left["count"], {each["rollout"]: each["nodes"] for each in left["by"]}) == (2, {second: [B], third: [C]})
    assert document["message"].endswith("1 rolled back, 2 left unchanged")
    words = f"Left unchanged, because a newer rollout has changed them or is about to: {B} by rollout {second}; {C} by rollout"
    assert words in admin.get(f"/v2/rollouts/{back}/why").json()["summary"]
    told = json.loads(b"".join(admin.get(f"/v2/rollouts/{back}/report").streaming_content))
    assert told["left_alone"] == [{"rollout": second, "nodes": [B]}, {"rollout": third, "nodes": [C]}]
    lines = b"".join(admin.get(f"/v2/rollouts/{back}/report?format=csv").streaming_content).decode().splitlines()
    assert [each.split(",")[0] for each in lines if B in each] == ["left_alone"]
    assert differences() == {}


def test_a_rollback_of_one_under_way_names_them_too(admin):
    fleet(2)
    upload(version=2, content="c2")
    first = start(careful={"canary": 1, "gate": "manual"})
    say(first, A)
    second = done(2, A)
    assert taken_back(first) == first
    left = admin.get(f"/v2/rollouts/{first}").json()["left_alone"]
    assert (left["by"], phases(first)[A]) == ([{"rollout": second, "count": 1, "nodes": [A]}], "succeeded")
    assert second in admin.get(f"/v2/rollouts/{first}/why").json()["summary"]


def test_where_nothing_is_left_the_refusal_names_them():
    fleet(2)
    upload(version=2, content="c2")
    first = done(1, A, B)
    second = done(2, A, B)
    with pytest.raises(NothingToRollBackError, match=f"{A}, {B} by rollout {second}"):
        roll_back_rollout(first)


def test_rollouts_are_taken_back_one_after_the_other():
    fleet(1)
    for version in range(2, 5):
        upload(version=version, content=f"c{version}")
    uids = [done(version, A) for version in range(1, 5)]
    for version, uid in zip((3, 2, 1), uids[:0:-1], strict=True):
        back = operation(taken_back(uid), A)
        assert (back.action, back.version) == ("install", version)
    with pytest.raises(NothingToRollBackError):  # only the newest of them are remembered
        roll_back_rollout(uids[0])
    assert differences() == {}


def test_what_the_reconciler_has_put_right_is_still_the_work_of_the_rollout():
    fleet(1)
    first = done(1, A)
    update_cluster_settings(correct_drift=True)
    ingestion.record_heartbeats([heartbeat_of(A)])
    reconcile()
    put_right = Operation.objects.exclude(rollout=first).get()
    advance(put_right.rollout)
    say(put_right.rollout, A)
    ingestion.record_heartbeats([heartbeat_of(A, modules=[installed()])])
    assert phases(taken_back(first)) == {A: "rolled_back"}


def test_files_that_came_since_are_a_change():
    fleet(1)
    upload(version=2, content="c2")
    first = done(1, A)
    second = done(2, A, activation=Activation.FILES)
    with pytest.raises(NothingToRollBackError, match=second):
        roll_back_rollout(first)


# --- A newer attempt without an answer --------------------------------------------------------------------------------


def without_an_answer(version):
    """uid of a rollout that has timed out on the node, and the node's answer, which comes later."""
    uid = start(version=version, nodes=(A,))
    answer = report_of(uid, A)
    overdue(A)
    timeouts.end_overdue_operations()
    assert phases(uid) == {A: "timed_out"}
    return uid, answer


def test_where_a_newer_attempt_may_still_come_the_node_is_left_alone():
    fleet(1)
    upload(version=2, content="c2")
    first = done(1, A)
    second, answer = without_an_answer(2)
    with pytest.raises(NothingToRollBackError, match=second):
        roll_back_rollout(first)
    ingestion.record_reports([answer])
    with pytest.raises(NothingToRollBackError, match=second):  # now it has changed the node
        roll_back_rollout(first)
    assert (operation(taken_back(second), A).action, operation(taken_back(second), A).version) == ("install", 1)
    taken_back(first)
    assert differences() == {}


def test_once_it_has_said_that_it_failed_the_node_is_rolled_back():
    fleet(1)
    upload(version=2, content="c2")
    first = done(1, A)
    second, _ = without_an_answer(2)
    say(second, A, Phase.FAILED, reason=Reason.LOAD_FAILED)
    assert phases(taken_back(first)) == {A: "rolled_back"}


def test_what_a_node_had_already_is_the_work_of_who_has_brought_it():
    fleet(1)
    first = done(1, A)
    second, answer = without_an_answer(1)
    back = roll_back_rollout(first)
    advance(back)
    ingestion.record_reports([answer])
    say(back, A)
    advance(back)
    assert rollout(back).phase == "rolled_back"
    with pytest.raises(NothingToRollBackError):  # it is gone, and must not come back
        roll_back_rollout(second)
    assert differences() == {}


def test_the_same_version_again_changes_nothing():
    fleet(1)
    first = done(1, A)
    second = start(nodes=(A,))
    say(second, A, Phase.SKIPPED, reason=Reason.ALREADY_INSTALLED)
    with pytest.raises(NothingToRollBackError):
        roll_back_rollout(second)
    assert phases(taken_back(first)) == {A: "rolled_back"}


# --- Rollbacks that give nothing back ---------------------------------------------------------------------------------


def test_one_that_was_canceled_keeps_the_target_and_can_be_asked_for_again():
    fleet(1)
    first = start()
    say(first, A)
    back = roll_back_rollout(first)
    cancel_node(back, A, force=True)
    advance(back)
    assert rollout(back).phase == "aborted"
    assert ClusterTarget.objects.get(module_name="greet").rollout == first
    ingestion.record_reports([report_of(back, A, Phase.CANCELED)])
    again = taken_back(first)
    assert again != back
    assert rollout(first).rolled_back_by == again
    assert not ClusterTarget.objects.filter(module_name="greet", version__isnull=False).exists()


def test_one_that_a_newer_rollout_has_taken_over_is_superseded(admin):
    fleet(1)
    upload(version=2, content="c2")
    first = done(1, A)
    back = roll_back_rollout(first)
    start(version=2, supersede=True, released=False)
    advance(back)
    assert (rollout(back).phase, phases(back)) == ("superseded", {A: "canceled"})
    assert admin.get(f"/v1/actions/{back}").json()["status"] == "cancelled"


def test_one_whose_nodes_have_left_is_aborted():
    fleet(2)
    first = done(1, A)
    back = roll_back_rollout(first)
    decommission_node(A)
    advance(back)
    assert (rollout(back).phase, rollout(back).reason) == ("aborted", "node_decommissioned")


# --- What a rollback reads --------------------------------------------------------------------------------------------


def test_a_rollout_that_starts_meanwhile_is_seen(monkeypatch):
    fleet(2)
    upload(version=2, content="c2")
    first = done(1, A, B)
    newer: list[str] = []

    def read(uid):
        found = restoration_of(uid)
        if not newer:
            newer.append(start(version=2, nodes=(B,)))
        return found

    monkeypatch.setattr(rollback, "restoration_of", read)
    back = roll_back_rollout(first)
    assert phases(back).keys() == {A}
    assert [(each["rollout"], each["nodes"]) for each in rollout(back).left_alone["by"]] == [(newer[0], [B])]


def test_what_another_module_needs_is_not_rolled_back():
    join("n1")
    package("json")
    package("greet", needs=["json"])
    first = start(module_name="json")
    say(first, "n1")
    second = start()
    say(second, "n1")
    with pytest.raises(ModuleNeededError, match="greet 1 needs json on n1"):
        roll_back_rollout(first)
    taken_back(second)
    taken_back(first)
