"""`GET /v2/rollouts/{uid}/report`."""

import csv
import io
import json

import pytest

from accounts.roles import Role
from rollout.api.views.report import COLUMNS, _defused
from rollout.messages import Action, Phase, Reason
from tests.plugins.cast import client_of
from tests.recorded_fleet import fleet, join, phases, say, start, upload

pytestmark = pytest.mark.django_db


def path(uid, ending="json"):
    return f"/v2/rollouts/{uid}/report?format={ending}"


def rows_of(response):
    return list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode())))


def json_of(client, uid):
    return json.loads(b"".join(client.get(path(uid)).streaming_content))


def finish(uid, names, phase=Phase.SUCCEEDED, **more):
    for name in names:
        say(uid, name, phase, **more)


def test_it_works(admin):
    names = fleet(2)
    finish(start(), names, seconds=1.5)
    upload(version=2, content="c2")
    uid = start(version=2)
    finish(uid, names[:1], seconds=2.5, swap_seconds=0.004)
    finish(uid, names[1:], Phase.FAILED, reason=Reason.DISK_FULL, message="full")
    report = json_of(admin, uid)
    first, second = report["nodes"]
    assert (first["from_version"], first["from_sha256"], first["to_version"], first["to_sha256"]) == (1, "c1", 2, "c2")
    assert (first["seconds"], first["attempts"], first["phase"]) == (2.5, 1, "succeeded")
    assert (first["swap_seconds"], second["swap_seconds"]) == (0.004, None)
    assert admin.get(f"/v2/rollouts/{uid}/nodes/{names[0]}").json()["swap_seconds"] == 0.004
    assert (second["phase"], second["reason"], second["message"]) == ("failed", "disk_full", "full")
    assert (report["complete"], report["phase"], report["counts"]["failed"]) == (True, "completed_with_failures", 1)
    assert report["waves"][0]["finished_at"]


def test_who_asked_and_who_approved(admin, new_user):
    fleet(1)
    body = {"action": "install", "module_name": "greet", "version": 1, "strategy": {"approval": True}}
    uid = admin.post("/v2/rollouts", body, format="json").json()["uid"]
    dave = client_of(new_user("dave", Role.ADMIN))
    dave.post(f"/v2/rollouts/{uid}/approve", {"remark": "CHG-7"}, format="json")
    admin.post(f"/v2/rollouts/{uid}/pause")
    report = json_of(admin, uid)
    done = [(each["actor"], each["action"], each["remark"]) for each in report["actions"]]
    assert done == [("alice", "start", None), ("dave", "approve", "CHG-7"), ("alice", "pause", None)]
    assert (report["requested_by"], report["complete"], report["finished_at"]) == ("alice", False, None)


def test_what_a_person_canceled_is_told_and_what_a_node_did_is_not(admin):
    names = fleet(3)
    uid = start(max_parallel=1)
    admin.post(f"/v2/rollouts/{uid}/nodes/{names[2]}/cancel", {}, format="json")
    finish(uid, names[:2])
    actions = json_of(admin, uid)["actions"]
    assert [(each["action"], each["nodes"]) for each in actions if each["actor"] == "alice"] == [("cancel", [names[2]])]
    assert {each["actor"] for each in actions} == {"system:program", "alice"}


def test_as_csv(admin):
    names = fleet(2)
    uid = start()
    finish(uid, names)
    response = admin.get(path(uid, "csv"))
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"] == f'attachment; filename="rollout-greet-1-{uid[:8]}.csv"'
    rows = rows_of(response)
    assert [each["record"] for each in rows] == ["rollout", "action", "learned", "wave", "node", "node"]
    assert rows[0].keys() == set(COLUMNS)
    assert [each["node"] for each in rows[4:]] == names


@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_what_a_spreadsheet_would_run_is_defused(begins):
    assert _defused(f"{begins}cmd|' /C calc'!A0").startswith("'")
    assert _defused(-1.5) == -1.5


def test_a_message_of_a_node_is_no_formula(admin):
    (name,) = fleet(1)
    uid = start()
    say(uid, name, Phase.FAILED, reason=Reason.LOAD_FAILED, message='=HYPERLINK("http://x")')
    assert rows_of(admin.get(path(uid, "csv")))[-1]["message"] == '\'=HYPERLINK("http://x")'


def test_a_removal_brings_nothing_and_a_first_installation_finds_nothing(admin):
    (name,) = fleet(1)
    first = start()
    say(first, name)
    second = start(action=Action.REMOVE)
    say(second, name)
    (installed,), (removed,) = json_of(admin, first)["nodes"], json_of(admin, second)["nodes"]
    assert (installed["from_version"], installed["to_version"]) == (None, 1)
    assert (removed["from_version"], removed["to_version"]) == (1, None)


def test_it_takes_as_many_queries_however_many_nodes_there_are(admin, django_assert_num_queries):
    for count, version in ((3, 1), (40, 2)):
        if version == 1:
            fleet(3)
        else:
            upload(version=2, content="c2")
            join(*(f"m{number}" for number in range(count)))
        uid = start(version=version, max_parallel=100)
        # Who asks, the rollout, the clock, what was done by hand, the failures, the builds, what scratch servers and packages have shown, the nodes, what their servers logged.
        with django_assert_num_queries(10):
            b"".join(admin.get(path(uid)).streaming_content)
        finish(uid, list(phases(uid)))


@pytest.mark.parametrize(("uid", "query", "status"), [("nothing", "", 404), (None, "?format=xml", 400)])
def test_what_is_refused(admin, uid, query, status):
    fleet(1)
    assert admin.get(f"/v2/rollouts/{uid or start()}/report{query}").status_code == status


def test_a_viewer_may_read_it_and_a_stranger_may_not(bob, mallory):
    fleet(1)
    uid = start()
    assert client_of(bob).get(path(uid)).status_code == 200
    assert client_of(mallory).get(path(uid)).status_code == 403
