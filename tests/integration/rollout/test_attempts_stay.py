"""What happened on a node stays visible, whatever happens after it: failed and undone, retried, superseded, canceled."""

import csv
import io
import json

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from eventstore import head
from rollout.delivery import ingestion
from rollout.messages import Phase, Reason
from rollout.models import Operation, Rollout
from rollout.process.advance import advance, advance_all
from rollout.process.timeouts import end_overdue_operations
from rollout.queries.rollouts import unfinished_rollouts
from rollout.services.rollback import roll_back_rollout
from tests.plugins.cast import client_of
from tests.recorded_fleet import differences, fleet, join, overdue, phases, report_of, rollout, say, start, upload

pytestmark = pytest.mark.django_db
MESSAGE = "ERR Error loading the extension"
FAILED = {"reason": Reason.LOAD_FAILED, "message": MESSAGE}
#: Pauses at the first failure.
CAREFUL = {"canary": 1, "max_failures": 0}


def undone(admin, node="n0000"):
    """uid of alice's rollout: its node has failed, a rule has paused it, alice has rolled it back."""
    uid = start_by(admin)
    say(uid, node, Phase.FAILED, **FAILED)
    advance(uid)
    assert rollout(uid).phase == "paused"
    assert admin.post(f"/v2/rollouts/{uid}/rollback").status_code == 202
    say(uid, node, Phase.SUCCEEDED)
    advance(uid)
    assert (rollout(uid).phase, phases(uid)[node]) == ("rolled_back", "rolled_back")
    return uid


def start_by(admin, version=1, **more):
    body = {"action": "install", "module_name": "greet", "version": version, "strategy": CAREFUL, **more}
    uid = admin.post("/v2/rollouts", body, format="json").json()["uid"]
    advance(uid)
    return uid


def report(client, uid):
    return json.loads(b"".join(client.get(f"/v2/rollouts/{uid}/report").streaming_content))


def rows_of(client, uid):
    content = b"".join(client.get(f"/v2/rollouts/{uid}/report?format=csv").streaming_content)
    return list(csv.DictReader(io.StringIO(content.decode())))


def in_short(outcomes):
    return [(each["attempt"], each["rollback"], each["phase"], each["reason"]) for each in outcomes]


UNDONE = [(1, False, "failed", "load_failed"), (1, True, "rolled_back", None)]


def test_a_rollback_hides_no_failure(admin):
    fleet(2)
    uid = undone(admin)
    node = admin.get(f"/v2/rollouts/{uid}/nodes").json()["results"][0]
    assert in_short(node["outcomes"]) == UNDONE
    assert node["outcomes"][0]["message"] == MESSAGE
    assert admin.get(f"/v2/rollouts/{uid}/nodes/n0000").json() == node
    document = admin.get(f"/v2/rollouts/{uid}").json()
    assert (document["progress"]["rolled_back"], document["progress"]["failed_before"]) == (1, 1)
    assert document["waves"][0]["failed_before"] == 1
    stops = [(each["action"], each["by"], each["rule"]) for each in document["stops"]]
    assert stops == [("pause", None, "max_failures"), ("rollback", "alice", "manual")]
    why = admin.get(f"/v2/rollouts/{uid}/why").json()
    assert "by the user alice" in why["summary"]
    assert "by the rule max_failures" in why["summary"]
    assert MESSAGE in why["summary"]
    assert [each["type"] for each in why["events"] if each["data"].get("reason") == "load_failed"]
    of_node = admin.get(f"/v2/rollouts/{uid}/nodes/n0000/why").json()["summary"]
    assert of_node.startswith("Rolled back at")
    assert f"load_failed: {MESSAGE}" in of_node
    assert "by the user alice" in of_node


def test_the_report_has_every_outcome_and_what_stopped_it(admin):
    fleet(2)
    uid = undone(admin)
    found = report(admin, uid)
    assert in_short(found["nodes"][0]["outcomes"]) == UNDONE
    assert [each["rule"] for each in found["stops"]] == ["max_failures", "manual"]
    assert found["stops"][0]["message"] == "1 node failed in wave 0; the limit is 0."
    rows = rows_of(admin, uid)
    attempt, node = rows[-3:-1]
    assert (attempt["record"], attempt["phase"], attempt["message"]) == ("attempt", "failed", MESSAGE)
    assert (node["record"], node["phase"], node["rollback"]) == ("node", "rolled_back", "True")
    stops = [(each["action"], each["actor"], each["rule"]) for each in rows if each["record"] == "stop"]
    assert stops == [("pause", "", "max_failures"), ("rollback", "alice", "manual")]


def test_a_retry_is_an_outcome_of_its_own(admin):
    fleet(2)
    uid = start_by(admin)
    say(uid, "n0000", Phase.FAILED, **FAILED)
    advance(uid)
    admin.post(f"/v2/rollouts/{uid}/retry")
    admin.post(f"/v2/rollouts/{uid}/resume")
    say(uid, "n0000")
    say(uid, "n0001")
    advance(uid)
    node = report(admin, uid)["nodes"][0]
    assert in_short(node["outcomes"]) == [(1, False, "failed", "load_failed"), (2, False, "succeeded", None)]
    assert rollout(uid).phase == "succeeded"
    assert MESSAGE in admin.get(f"/v2/rollouts/{uid}/why").json()["summary"]
    assert MESSAGE in admin.get(f"/v2/rollouts/{uid}/nodes/n0000/why").json()["summary"]


def test_what_was_superseded_names_what_took_its_place(admin):
    fleet(2)
    upload(version=2, content="c2")
    older = start(released=False)
    newer = start_by(admin, version=2, supersede=True)
    advance_all(unfinished_rollouts())
    document = admin.get(f"/v2/rollouts/{older}").json()
    assert document["phase"] == "superseded"
    assert [(each["action"], each["rule"]) for each in document["stops"]] == [("end", "newer_rollout")]
    node = report(admin, older)["nodes"][0]
    assert in_short(node["outcomes"]) == [(0, False, "canceled", "newer_rollout")]
    assert newer in node["outcomes"][0]["message"]


def test_the_timeline_of_a_node_has_each_attempt_and_each_undo(admin):
    fleet(2)
    uid = undone(admin)
    canceled = start_by(admin)
    admin.post(f"/v2/rollouts/{canceled}/nodes/n0000/cancel", {"force": True}, format="json")
    answer = admin.get("/v2/nodes/n0000/operations").json()
    lines = [(each["rollout"], each["rollback"], each["phase"], each["requested_by"]) for each in answer["results"]]
    assert lines == [
        (canceled, False, "canceled", "alice"),
        (uid, True, "rolled_back", "alice"),
        (uid, False, "failed", "alice"),
    ]
    first = admin.get("/v2/nodes/n0000/operations?limit=1&ordering=scheduled_at").json()
    assert [each["message"] for each in first["results"]] == [MESSAGE]
    assert admin.get(first["next"]).json()["results"][0]["phase"] == "rolled_back"
    failed = admin.get("/v2/nodes/n0000/operations?phase=failed&module_name=greet").json()["results"]
    assert [each["reason"] for each in failed] == ["load_failed"]
    assert admin.get("/v2/nodes/nope/operations").status_code == 404


def test_an_undo_is_by_the_person_who_asked_for_it(admin, new_user):
    fleet(2)
    dave = client_of(new_user("dave", "admin"))
    uid = start_by(admin)
    say(uid, "n0000", Phase.FAILED, **FAILED)
    advance(uid)
    dave.post(f"/v2/rollouts/{uid}/rollback")
    advance(uid)
    lines = admin.get("/v2/nodes/n0000/operations").json()["results"]
    assert [(each["rollback"], each["requested_by"]) for each in lines] == [(True, "dave"), (False, "alice")]


def test_a_late_answer_is_shown_beside_the_outcome(admin):
    fleet(2)
    uid = start_by(admin)
    late = report_of(uid, "n0000")
    overdue("n0000")
    end_overdue_operations()
    advance(uid)
    assert phases(uid)["n0000"] == "timed_out"
    ingestion.record_reports([late])
    path = f"/v2/rollouts/{uid}/nodes/n0000"
    assert [(each["phase"], each["late"]) for each in admin.get(path).json()["outcomes"]] == [
        ("timed_out", "succeeded")
    ]
    assert "reported late: succeeded" in admin.get(f"{path}/why").json()["summary"]
    assert [each["late"] for each in rows_of(admin, uid) if each["node"] == "n0000"] == ["succeeded"]
    roll_back_rollout(uid)
    say(uid, "n0000")
    advance(uid)
    outcomes = admin.get(path).json()["outcomes"]
    assert [(each["phase"], each["late"]) for each in outcomes] == [("timed_out", "succeeded"), ("rolled_back", None)]
    assert "reported late: succeeded" in report(admin, uid)["nodes"][0]["outcomes"][0]["text"]
    assert differences() == {}


def test_a_list_finds_nodes_by_what_has_become_of_them(admin):
    fleet(2)
    uid = undone(admin)
    path = f"/v2/rollouts/{uid}/nodes"
    assert [each["node"] for each in admin.get(f"{path}?outcome=failed").json()["results"]] == ["n0000"]
    assert admin.get(f"{path}?outcome=timed_out").json()["results"] == []
    assert admin.get(f"{path}?outcome=running").status_code == 400


def test_as_it_was_has_the_outcomes_up_to_then(admin):
    fleet(2)
    uid = start_by(admin)
    say(uid, "n0000", Phase.FAILED, **FAILED)
    advance(uid)
    then = head()
    roll_back_rollout(uid)
    say(uid, "n0000")
    path = f"/v2/rollouts/{uid}/nodes/n0000"
    assert in_short(admin.get(f"{path}?as_of={then}").json()["outcomes"]) == UNDONE[:1]
    assert in_short(admin.get(f"{path}?as_of={head()}").json()["outcomes"]) == UNDONE
    assert admin.get(f"{path}?as_of={head()}").json() == admin.get(path).json()
    assert admin.get(f"/v2/rollouts/{uid}?as_of={head()}").json() == admin.get(f"/v2/rollouts/{uid}").json()


def test_a_rebuild_gives_the_same_attempts(admin):
    fleet(2)
    undone(admin)
    assert differences() == {}


def test_nothing_overwrites_an_attempt(admin):
    fleet(2)
    uid = undone(admin)
    (former,) = Operation.attempts.filter(former=True)
    assert (former.rollout, former.phase, former.message) == (uid, "failed", MESSAGE)
    assert Operation.objects.count() == 2


def queries(client, path):
    with CaptureQueriesContext(connection) as captured:
        answer = client.get(path)
        content = b"".join(answer.streaming_content) if answer.streaming else answer.content
    assert answer.status_code == 200, content
    return len(captured)


def test_queries_do_not_grow_with_what_was_undone(admin):
    counts = []
    for version, names in ((1, ["a", "b"]), (2, [f"m{number:02}" for number in range(30)])):
        upload(version=version, content=f"c{version}")
        join(*names)
        uid = start(version=version, nodes=tuple(names), max_parallel=30, careful={"canary": 0, "max_failures": 0})
        for name in names[:-1]:
            say(uid, name, Phase.FAILED, **FAILED)
        roll_back_rollout(uid)
        say(uid, names[-1])
        advance(uid)
        for name in names:
            say(uid, name)
        advance(uid)
        assert rollout(uid).failed_before == rollout(uid).rolled_back - 1 == len(names) - 1
        ends = ("", "/nodes", "/why", f"/nodes/{names[0]}/why", "/report")
        paths = [*(f"/v2/rollouts/{uid}{end}" for end in ends), f"/v2/nodes/{names[0]}/operations"]
        counts.append([queries(admin, path) for path in paths])
    assert counts[0] == counts[1]


#: Fields of rows and of stored documents that the version before does not write.
NEW_OF_ROLLOUT = {
    "retried_by": [],
    "rolled_back_by": "",
    "left_alone": {},
    "actions": [],
    "stops": [],
    "failed_before": 0,
}
NEW_OF_OPERATION = {"asked_by": "", "automatic": False, "canceled_by": "", "late": "", "had": None, "event_id": None}


def written_by_the_version_before(uid):
    """The rows as they stand between `migrate` and `rebuild_projections`: with the defaults of the database."""
    row = rollout(uid)
    kept = {name: each for name, each in json.loads(row.document).items() if name not in {"title", *NEW_OF_ROLLOUT}}
    waves = [{name: each for name, each in wave.items() if name != "failed_before"} for wave in row.waves]
    Rollout.objects.filter(uid=uid).update(document=json.dumps(kept), waves=waves, **NEW_OF_ROLLOUT)
    Operation.attempts.filter(rollout=uid).update(**NEW_OF_OPERATION)


def test_rows_of_the_version_before_are_shown_until_they_are_rebuilt(admin, client, alice):
    upload()
    join("n1", "n2")
    uid = start(careful={"canary": 1, "gate": "manual"})
    say(uid, "n1")
    roll_back_rollout(uid)
    say(uid, "n1")
    advance(uid)
    written_by_the_version_before(uid)
    found = [b"".join(admin.get(f"/v2/rollouts/{uid}/report{each}").streaming_content) for each in ("", "?format=csv")]
    assert json.loads(found[0])["title"] == "install greet 1"
    assert json.loads(found[0])["retried_by"] == []
    rows = list(csv.DictReader(io.StringIO(found[1].decode())))
    assert rows[0]["message"].startswith("install greet 1: ")
    assert {each["node"] for each in rows if each["record"] == "node"} == {"n1", "n2"}
    (_, undo) = json.loads(found[0])["nodes"][0]["outcomes"]
    assert undo["text"].startswith("undo rolled back at")
    for each in ("", "/why", "/nodes", "/nodes/n1/why", f"?as_of={rollout(uid).position}"):
        assert admin.get(f"/v2/rollouts/{uid}{each}").json()
    assert admin.get(f"/v1/actions/{uid}").json()["status"]
    client.force_login(alice)
    page = client.get(reverse("admin:rollout", args=[uid]))
    assert page.context["live"].document["title"] == "install greet 1"
