"""Rollouts over HTTP."""

import json

import pytest

from eventstore import head, verify
from eventstore.verification import Head
from rollout.api.views import documents
from rollout.messages import Phase
from rollout.process.advance import advance
from tests.integration.rollout.conftest import events
from tests.plugins.cast import client_of
from tests.recorded_fleet import fleet, join, node, operation, phases, rollout, say, start, upload

pytestmark = pytest.mark.django_db

GREET = {"action": "install", "module_name": "greet", "version": 1}


def post(client, body=GREET, **headers):
    return client.post("/v2/rollouts", body, format="json", headers=headers)


def error(response):
    return response.status_code, response.json()["error_code"]


# --- Start ------------------------------------------------------------------------------------------------------------


def test_it_works(admin):
    fleet(2)
    answer = post(admin)
    body = answer.json()
    assert answer.status_code == 202
    assert answer["Location"] == f"http://testserver/v2/rollouts/{body['uid']}"
    assert (body["phase"], body["actor"], body["origin"], body["activation"]) == ("planned", "alice", "api", "auto")
    assert body["progress"] == {
        "total": 2,
        "scheduled": 2,
        "queued": 0,
        "running": 0,
        "succeeded": 0,
        "failed": 0,
        "timed_out": 0,
        "canceled": 0,
        "skipped": 0,
        "rolled_back": 0,
        "failed_before": 0,
        "percent": 0,
        "eta_seconds": None,
    }
    assert admin.get(answer["Location"]).json() == body


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"action": "explode"}, "action"),
        ({"action": ["install"]}, "action"),
        ({"action": None}, "action"),
        ({"module_name": ""}, "module_name"),
        ({"module_name": 5}, "module_name"),
        ({"module_name": "a/b"}, "module_name"),
        ({"module_name": "a" * 129}, "module_name"),
        ({"version": "1"}, "version"),
        ({"version": True}, "version"),
        ({"version": -1}, "version"),
        ({"version": 2**40}, "version"),
        ({"version": 1.5}, "version"),
        ({"activation": "reload"}, "activation"),
        ({"may_interrupt": 1}, "may_interrupt"),
        ({"may_discard_data": "yes"}, "may_discard_data"),
        ({"failback": "yes"}, "failback"),
        ({"strategy": {"window": "Sat"}}, "strategy.window"),
        ({"nodes": []}, "nodes"),
        ({"nodes": None}, "nodes"),
        ({"nodes": "n0000"}, "nodes"),
        ({"nodes": [1]}, "nodes"),
        ({"nodes": ["x" * 129]}, "nodes"),
        ({"strategy": []}, "strategy"),
        ({"strategy": {"max_parallel": 0}}, "strategy.max_parallel"),
        ({"strategy": {"max_parallel": 1.5}}, "strategy.max_parallel"),
        ({"strategy": {"max_parallel": "2"}}, "strategy.max_parallel"),
        ({"strategy": {"node_deadline_seconds": 0}}, "strategy.node_deadline_seconds"),
        ({"strategy": {"node_deadline_seconds": "9"}}, "strategy.node_deadline_seconds"),
        ({"strategy": {"color": 1}}, "strategy.color"),
        ({"supersede": 1}, "supersede"),
        ({"color": "red"}, "color"),
    ],
)
def test_each_bad_field_is_named(admin, change, field):
    fleet(1)
    answer = post(admin, {**GREET, **change})
    assert error(answer) == (400, "invalid_request")
    assert field in answer.json()["description"]


def test_all_bad_fields_are_named_at_once(admin):
    body = {"version": "1", "strategy": {"max_parallel": 0, "size": 1}, "color": "red"}
    description = post(admin, body).json()["description"]
    named = ("action", "module_name", "version", "strategy.max_parallel", "strategy.size", "color")
    assert all(f"{name}: " in description for name in named)


@pytest.mark.parametrize("body", [[], 7, "x", None])
def test_a_body_that_is_no_object(admin, body):
    answer = admin.post("/v2/rollouts", json.dumps(body), content_type="application/json")
    assert error(answer) == (400, "invalid_request")


def test_what_is_not_there(admin):
    assert error(post(admin)) == (409, "no_nodes")
    join("n1")
    assert error(post(admin)) == (404, "artifact_not_found")
    upload()
    answer = post(admin, {**GREET, "nodes": ["n1", "n2"]})
    assert error(answer) == (400, "unknown_node")
    assert "n2" in answer.json()["description"]


def test_a_rollout_in_progress_is_named_and_superseded_on_demand(admin):
    fleet(1)
    first = post(admin).json()["uid"]
    answer = post(admin)
    assert error(answer) == (409, "rollout_in_progress")
    assert first in answer.json()["description"]
    assert post(admin, {**GREET, "supersede": True}).status_code == 202
    assert phases(first) == {"n0000": "canceled"}


def test_the_same_key_starts_one_rollout(admin):
    fleet(1)
    headers = {"Idempotency-Key": "k1"}
    first, again = post(admin, **headers), post(admin, **headers)
    assert (first.json(), again.status_code) == (again.json(), 202)
    assert again["Location"] == first["Location"]
    assert error(post(admin, {**GREET, "version": 2}, **headers)) == (409, "idempotency_key_reused")


# --- Read -------------------------------------------------------------------------------------------------------------


def test_lists_are_pages_newest_first(admin):
    fleet(3)
    uids = [start(nodes=(f"n000{number}",)) for number in range(3)]
    page = admin.get("/v2/rollouts?limit=2").json()
    assert [each["uid"] for each in page["results"]] == [uids[2], uids[1]]
    rest = admin.get(page["next"]).json()
    assert ([each["uid"] for each in rest["results"]], rest["next"]) == ([uids[0]], None)


def test_the_nodes_of_a_rollout(admin):
    fleet(3)
    uid = start(max_parallel=1)
    say(uid, "n0000", Phase.FAILED, reason="disk_full", message="full", seconds=1.5)
    page = admin.get(f"/v2/rollouts/{uid}/nodes?limit=2").json()
    assert [each["node"] for each in page["results"]] == ["n0000", "n0001"]
    assert len(admin.get(page["next"]).json()["results"]) == 1
    one = admin.get(f"/v2/rollouts/{uid}/nodes/n0000").json()
    assert one == page["results"][0]
    assert {name: one[name] for name in ("phase", "reason", "message", "seconds", "generation", "attempt")} == {
        "phase": "failed",
        "reason": "disk_full",
        "message": "full",
        "seconds": 1.5,
        "generation": 1,
        "attempt": 1,
    }
    assert one["finished_at"].endswith("Z")


@pytest.mark.parametrize("path", ["", "/nodes", "/nodes/n0000", "/events", "/abort", "/retry"])
def test_an_unknown_rollout(admin, path):
    call = admin.post if path in {"/abort", "/retry"} else admin.get
    assert error(call(f"/v2/rollouts/nope{path}")) == (404, "rollout_not_found")


def test_a_node_that_is_not_in_the_rollout(admin):
    fleet(1)
    assert error(admin.get(f"/v2/rollouts/{start()}/nodes/other")) == (404, "node_not_found")


@pytest.mark.parametrize("count", [3, 30])
def test_reading_costs_the_same_for_any_number_of_nodes(admin, count, django_assert_num_queries):
    fleet(count)
    uid = start()
    admin.get("/v2/rollouts")
    with django_assert_num_queries(2):  # who asks, the document
        admin.get(f"/v2/rollouts/{uid}")
    with django_assert_num_queries(3):
        admin.get(f"/v2/rollouts/{uid}/nodes")
    with django_assert_num_queries(2):
        admin.get("/v2/rollouts")
    with django_assert_num_queries(6):
        admin.get("/v2/nodes")


def test_304_while_nothing_has_changed(admin):
    fleet(2)
    uid = start()
    etag = admin.get(f"/v2/rollouts/{uid}")["ETag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = admin.get(f"/v2/rollouts/{uid}", headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer["ETag"]) == (304, b"", etag)
    say(uid, "n0000")
    assert admin.get(f"/v2/rollouts/{uid}", headers={"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize("wait", ["x", "-1", "61", "nan", "inf", ""])
def test_a_bad_wait(admin, wait):
    fleet(1)
    answer = admin.get(f"/v2/rollouts/{start()}?wait={wait}")
    assert error(answer) == (400, "invalid_request")
    assert "wait" in answer.json()["description"]


def test_what_has_ended_is_not_waited_for(admin, monkeypatch):
    monkeypatch.setattr(documents, "wait_for_news", lambda *_, **__: pytest.fail("it waits"))
    fleet(1)
    uid = start()
    say(uid, "n0000")
    assert admin.get(f"/v2/rollouts/{uid}?wait=30").json()["phase"] == "succeeded"


@pytest.mark.parametrize("after", ["x", "-1", "1" * 19, "1.5"])
def test_a_bad_place_to_resume_from(admin, after):
    fleet(1)
    uid = start()
    assert error(admin.get(f"/v2/rollouts/{uid}/events?after={after}")) == (400, "invalid_request")


def test_the_stream_of_an_ended_rollout_ends(admin):
    fleet(1)
    uid = start()
    say(uid, "n0000")
    answer = admin.get(f"/v2/rollouts/{uid}/events")
    assert answer["Content-Type"].startswith("text/event-stream")
    assert list(events(answer))[-1]["type"] == "rollout.finished.v1"


@pytest.mark.parametrize("phase", [None, "succeeded"])
def test_a_client_that_has_seen_what_was_lost_with_a_restored_backup_begins_anew(admin, phase):
    fleet(1)
    uid = start()
    if phase:
        say(uid, "n0000")
    answer = admin.get(f"/v2/rollouts/{uid}/events?after={head() + 5}")
    assert b"".join(answer.streaming_content) == b"id: 0\nevent: log.restored\ndata: {}\n\n"


# --- Verbs ------------------------------------------------------------------------------------------------------------


def test_abort(admin):
    fleet(2)
    uid = start(max_parallel=1)
    answer = admin.post(f"/v2/rollouts/{uid}/abort")
    assert (answer.status_code, answer.json()["phase"]) == (202, "aborting")
    say(uid, "n0000")
    assert admin.post(f"/v2/rollouts/{uid}/abort").json()["phase"] == "aborted"


def test_what_has_ended_is_not_aborted(admin):
    fleet(1)
    uid = start()
    say(uid, "n0000")
    assert error(admin.post(f"/v2/rollouts/{uid}/abort")) == (409, "rollout_final")


def test_retry(admin):
    fleet(2)
    uid = start()
    assert error(admin.post(f"/v2/rollouts/{uid}/retry")) == (409, "nothing_to_retry")
    say(uid, "n0000", Phase.FAILED)
    assert admin.post(f"/v2/rollouts/{uid}/retry").json()["uid"] == uid
    assert operation(uid, "n0000").attempt == 2
    advance(uid)
    say(uid, "n0000", Phase.FAILED)
    say(uid, "n0001")
    answer = admin.post(f"/v2/rollouts/{uid}/retry")
    assert (answer.status_code, answer.json()["retry_of"]) == (202, uid)
    assert answer["Location"].endswith(answer.json()["uid"])


# --- Nodes and the audit log ------------------------------------------------------------------------------------------


def test_nodes(admin):
    fleet(2)
    page = admin.get("/v2/nodes?limit=1").json()
    assert admin.get(page["next"]).json()["results"][0]["name"] == "n0001"
    one = admin.get("/v2/nodes/n0000").json()
    assert one.items() >= page["results"][0].items()
    assert one.keys() - page["results"][0].keys() == {"server_state", "doctor", "examined_at"}
    assert (one["phase"], one["modules"], one["platform"]) == ("online", [], "linux/x86_64")
    assert one["last_seen"].endswith("Z")


def test_labels(admin):
    join("n1")
    answer = admin.patch("/v2/nodes/n1", {"labels": {"rack": "a"}}, format="json")
    assert (answer.status_code, answer.json()["labels"]) == (200, {"rack": "a"})


@pytest.mark.parametrize(
    "body", [{}, {"labels": []}, {"labels": {"a": 1}}, {"labels": {"": "x"}}, {"labels": {"a": "x" * 257}}, {"x": 1}]
)
def test_bad_labels(admin, body):
    join("n1")
    assert error(admin.patch("/v2/nodes/n1", body, format="json")) == (400, "invalid_request")


def test_drain_activate_decommission(admin):
    join("n1")
    for verb, phase in (
        ("drain", "draining"),
        ("drain", "draining"),
        ("activate", "online"),
        ("decommission", "decommissioned"),
        ("decommission", "decommissioned"),
    ):
        answer = admin.post(f"/v2/nodes/n1/{verb}")
        assert (answer.status_code, answer.json()["phase"]) == (200, phase)
    assert error(admin.post("/v2/nodes/n1/drain")) == (409, "node_decommissioned")
    assert admin.get("/v2/nodes").json()["results"] == []


@pytest.mark.parametrize("verb", ["drain", "activate", "forget", "decommission"])
def test_an_unknown_node(admin, verb):
    assert error(admin.post(f"/v2/nodes/nope/{verb}")) == (404, "node_not_found")
    assert error(admin.get("/v2/nodes/nope")) == (404, "node_not_found")


def test_a_decommission_frees_a_rollout(admin):
    fleet(1)
    uid = start()
    admin.post("/v2/nodes/n0000/decommission")
    assert (rollout(uid).phase, node("n0000").phase) == ("aborted", "decommissioned")


def test_the_audit_log(admin, alice):
    fleet(1)
    uid = post(admin).json()["uid"]
    found, url = [], "/v2/events?limit=2"
    while url:
        page = admin.get(url).json()
        found += page["results"]
        url = page["next"]
    assert [each["position"] for each in found] == list(range(1, len(found) + 1))
    (started,) = [each for each in found if each["type"] == "rollout.started.v1"]
    assert (started["actor"], started["data"]["rollout"], started["stream"]) == ("alice", uid, f"rollout:{uid}")
    assert started["correlation_id"]


def test_the_head_of_the_log_can_be_checked_later(admin):
    fleet(1)
    found = admin.get("/v2/events/head").json()
    post(admin)
    assert verify(heads=[Head(**found)]) > found["position"] > 0


def test_a_cursor_that_this_list_did_not_give(admin):
    assert error(admin.get("/v2/events?cursor=abc")) == (400, "invalid_request")
    assert error(admin.get("/v2/events?limit=0")) == (400, "invalid_request")


# --- Who may ----------------------------------------------------------------------------------------------------------

VIEW, CHANGE = "view", "change"
ENDPOINTS = [
    ("get", "/v2/rollouts", VIEW, 200),
    ("post", "/v2/rollouts", CHANGE, 400),
    ("get", "/v2/rollouts/x", VIEW, 404),
    ("get", "/v2/rollouts/x/nodes", VIEW, 404),
    ("get", "/v2/rollouts/x/nodes/n", VIEW, 404),
    ("get", "/v2/rollouts/x/events", VIEW, 404),
    ("post", "/v2/rollouts/x/abort", CHANGE, 404),
    ("post", "/v2/rollouts/x/retry", CHANGE, 404),
    ("get", "/v2/nodes", VIEW, 200),
    ("get", "/v2/nodes/x", VIEW, 404),
    ("patch", "/v2/nodes/x", CHANGE, 400),
    ("post", "/v2/nodes/x/drain", CHANGE, 404),
    ("post", "/v2/nodes/x/activate", CHANGE, 404),
    ("post", "/v2/nodes/x/decommission", CHANGE, 404),
    ("post", "/v2/nodes/x/forget", CHANGE, 404),
    ("get", "/v2/events", "log", 200),
    ("get", "/v2/events/head", "log", 200),
]
MAY = {
    "admin": {VIEW, CHANGE, "log"},
    "cluster_member": {VIEW, "log"},
    "cluster_viewer": {VIEW, "log"},
    "db_member": {VIEW, "log"},
    "db_viewer": {VIEW},
    "user_manager": {VIEW, "log"},
    "none": set(),
}


@pytest.mark.parametrize("role", MAY)
def test_a_role_may_do_what_it_may(new_user, role):
    from accounts.roles import Role

    client = client_of(new_user("someone", Role(role)))
    for method, path, needs, status in ENDPOINTS:
        answer = getattr(client, method)(path, {}, format="json")
        assert answer.status_code == (status if needs in MAY[role] else 403), (method, path)


def test_anybody_without_credentials_is_asked_for_them(anyone):
    for method, path, _, _ in ENDPOINTS:
        answer = getattr(anyone, method)(path, {}, format="json")
        assert (answer.status_code, answer.json()["error_code"]) == (401, "unauthenticated"), (method, path)
