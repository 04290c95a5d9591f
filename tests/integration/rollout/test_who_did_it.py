"""Who started, canceled, took over, retried, resumed: each view of a rollout and of a node names them."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from django.urls import reverse

from accounts.roles import Role
from eventstore import in_words
from rollout.domain.retries import Retries
from rollout.domain.strategy import OnFailure
from rollout.messages import Phase, Reason
from rollout.models import Operation
from rollout.process import offline_nodes
from rollout.process.advance import advance, advance_all
from rollout.queries.rollouts import unfinished_rollouts
from rollout.services.rollouts import cancel_node
from tests.plugins.cast import client_of
from tests.recorded_fleet import differences, fleet, phases, rollout, say, silence, start, upload

pytestmark = pytest.mark.django_db
FAILED = {"reason": Reason.LOAD_FAILED, "message": "no symbol"}
A, B = "n0000", "n0001"


@pytest.fixture
def other(new_user):
    """Called like a node."""
    return client_of(new_user(A, Role.ADMIN))


def start_by(client, version=1, **more):
    strategy = {"canary": 1, "max_failures": 0}
    body = {"action": "install", "module_name": "greet", "version": version, "strategy": strategy, **more}
    uid = client.post("/v2/rollouts", body, format="json").json()["uid"]
    advance(uid)
    return uid


def nodes_of(client, uid):
    return client.get(f"/v2/rollouts/{uid}/nodes").json()["results"]


def attempts_on(client, node=A):
    return client.get(f"/v2/nodes/{node}/operations").json()["results"]


def why(client, uid, *below):
    return client.get("/".join((f"/v2/rollouts/{uid}", *below, "why"))).json()


def told(client, uid):
    document = client.get(f"/v2/rollouts/{uid}").json()
    return [each["text"].rpartition(" at ")[0] for each in document["actions"]]


def json_report(client, uid):
    return json.loads(b"".join(client.get(f"/v2/rollouts/{uid}/report").streaming_content))


def table(client, uid):
    content = b"".join(client.get(f"/v2/rollouts/{uid}/report?format=csv").streaming_content)
    return list(csv.DictReader(io.StringIO(content.decode())))


def reported(client, uid):
    """The actions of the report but the start; the table has the same."""
    told = json_report(client, uid)["actions"]
    rows = [(each["action"], each["actor"]) for each in table(client, uid) if each["record"] == "action"]
    assert rows == [(each["action"], each["actor"] or "") for each in told]
    return [
        (each["action"], each["actor"], each["reason"], each["nodes"]) for each in told if each["action"] != "start"
    ]


@pytest.mark.parametrize("is_started", [False, True])
@pytest.mark.parametrize("force", [False, True])
def test_a_cancel(admin, other, alice, client, is_started, force):
    fleet(2)
    uid = start_by(admin)
    node = A if is_started else B
    other.post(f"/v2/rollouts/{uid}/nodes/{node}/cancel", {"force": force}, format="json")
    if is_started and not force:
        canceling = nodes_of(admin, uid)[0]
        assert (canceling["phase"], canceling["canceled_by"]) == ("canceling", A)
        assert f"asked to cancel it by the user {A}" in why(admin, uid, "nodes", node)["summary"]
        say(uid, node, Phase.CANCELED, reason=Reason.MANUAL, message="The operation was canceled.")
    found = next(each for each in nodes_of(admin, uid) if each["node"] == node)
    assert (found["phase"], found["canceled_by"], found["requested_by"]) == ("canceled", A, "alice")
    assert found["outcomes"][0]["by"] == A
    assert f"canceled by the user {A} at" in found["outcomes"][0]["text"]
    (listed,) = attempts_on(admin, node)
    assert (listed["canceled_by"], listed["requested_by"]) == (A, "alice")
    assert f"by the user {A}." in why(admin, uid, "nodes", node)["summary"]
    answer = why(admin, uid)
    assert f"by the user {A}" in answer["summary"]
    assert A in {each["actor"] for each in answer["events"]}
    assert [each for each in told(admin, uid) if f"by the user {A}" in each]
    client.force_login(alice)
    page = client.get(reverse("admin:rollout", args=[uid])).content.decode()
    assert f"by the user {A}" in page
    assert f"canceled by the user {A}" in client.get(f"/admin/rollout/node/{node}/change/").content.decode()
    assert differences() == {}


def test_the_table_says_who_for_the_newest_attempt_too(admin, other):
    fleet(2)
    uid = start_by(admin)
    say(uid, A, Phase.FAILED, **FAILED)
    advance(uid)
    other.post(f"/v2/rollouts/{uid}/retry")
    admin.post(f"/v2/rollouts/{uid}/nodes/{A}/cancel", {"force": True}, format="json")
    head, *rows = table(admin, uid)
    assert (head["actor"], head["requested_by"]) == ("alice", "alice")
    found = {(each["record"], each["node"]): each for each in rows}
    shown = {key: tuple(found[key][name] for name in ("actor", "requested_by", "automatic")) for key in found if key[1]}
    assert shown["attempt", A] == ("", "alice", "False")
    assert shown["node", A] == ("alice", A, "False")
    assert shown["node", B] == ("", "alice", "False")
    first, second = json_report(admin, uid)["nodes"]
    assert (first["canceled_by"], first["requested_by"], first["automatic"]) == ("alice", A, False)
    assert second["canceled_by"] is None


def test_what_took_its_place(admin, other):
    fleet(2)
    upload(version=2, content="c2")
    older = start(released=False)
    newer = start_by(other, version=2, supersede=True)
    advance_all(unfinished_rollouts())
    found = nodes_of(admin, older)[0]
    assert (found["canceled_by"], found["reason"]) == (A, "newer_rollout")
    assert newer in found["outcomes"][0]["text"]
    assert told(admin, older) == [f"{A}, {B} taken over by the user {A}"]
    assert reported(admin, older) == [("supersede", A, "newer_rollout", [A]), ("supersede", A, "newer_rollout", [B])]
    assert f"taken over by the user {A}" in why(admin, older)["summary"]
    assert why(admin, older, "nodes", B)["summary"].startswith("Canceled at")
    assert f"by the user {A}." in why(admin, older, "nodes", B)["summary"]
    assert attempts_on(admin)[1]["canceled_by"] == A
    assert differences() == {}


def test_what_took_its_place_once_the_node_was_silent(admin, other):
    fleet(1)
    upload(version=2, content="c2")
    older = start_by(admin)
    start_by(other, version=2, supersede=True)
    silence(A)
    offline_nodes.declare_silent_nodes_offline()
    found = nodes_of(admin, older)[0]
    assert (found["phase"], found["canceled_by"]) == ("canceled", A)
    assert told(admin, older) == [f"{A} taken over by the user {A}"]
    assert reported(admin, older) == [("supersede", A, "newer_rollout", [A])]
    assert f"{A} taken over by the user {A}" in why(admin, older)["summary"]
    assert differences() == {}


def test_a_takeover_by_no_person_names_none(admin):
    fleet(1)
    upload(version=2, content="c2")
    older = start(released=False)
    start(version=2, supersede=True)
    assert reported(admin, older) == [("supersede", None, "newer_rollout", [A])]
    assert told(admin, older) == [f"{A} taken over"]


def test_a_retry_and_a_resume(admin, other, alice, client):
    fleet(2)
    uid = start_by(admin)
    say(uid, A, Phase.FAILED, **FAILED)
    advance(uid)
    other.post(f"/v2/rollouts/{uid}/retry")
    other.post(f"/v2/rollouts/{uid}/resume")
    say(uid, A)
    assert told(admin, uid) == [f"{A} retried by the user {A}", f"resumed by the user {A}"]
    found = nodes_of(admin, uid)[0]
    assert (found["requested_by"], found["automatic"]) == (A, False)
    assert [each["requested_by"] for each in found["outcomes"]] == ["alice", A]
    assert f"attempt 2, retried by the user {A}, succeeded at" in found["outcomes"][1]["text"]
    assert [each["requested_by"] for each in attempts_on(admin)] == [A, "alice"]
    for words in (f"retried by the user {A}", f"resumed by the user {A}"):
        assert words in why(admin, uid)["summary"]
    assert f"It was retried by the user {A}." in why(admin, uid, "nodes", A)["summary"]
    client.force_login(alice)
    page = client.get(reverse("admin:rollout", args=[uid])).content.decode()
    assert page.count(f"by the user {A}") >= 3


def test_what_the_strategy_does_is_done_by_no_person(admin):
    fleet(3)
    uid = start(careful={"canary": 0, "on_failure": OnFailure.ROLLBACK, "retries": Retries(limit=1, backoff_seconds=0)})
    for _ in range(2):
        say(uid, A, Phase.FAILED, reason=Reason.FETCH_FAILED)
        advance(uid)
    assert rollout(uid).phase == "rolling_back"
    say(uid, B)
    say(uid, "n0002", Phase.CANCELED, reason=Reason.MANUAL, message="The operation was canceled.")
    advance(uid)
    found = {each["node"]: each for each in nodes_of(admin, uid)}
    assert [each["automatic"] for each in found[A]["outcomes"]][:2] == [False, True]
    assert found[B]["automatic"]
    canceled = Operation.attempts.get(rollout=uid, node="n0002", rollback=False)
    assert (canceled.canceled_by, canceled.reason) == ("", "error_threshold")
    assert "by a person" not in why(admin, uid, "nodes", "n0002")["summary"]
    assert differences() == {}


def test_a_stop_by_a_person_cancels_what_was_not_begun(admin, other):
    fleet(2)
    uid = start_by(admin)
    other.post(f"/v2/rollouts/{uid}/abort")
    assert phases(uid)[B] == "canceled"
    assert nodes_of(admin, uid)[1]["canceled_by"] == A
    cancel_node(uid, A, force=True)
    assert nodes_of(admin, uid)[0]["canceled_by"] is None


def test_an_undo_is_told_as_it_went(admin, other):
    fleet(2)
    uid = start_by(admin)
    other.post(f"/v2/rollouts/{uid}/rollback")
    say(uid, A, Phase.CANCELED, reason=Reason.MANUAL, message="The operation was canceled.")
    advance(uid)
    under_way = why(admin, uid, "nodes", A)["summary"]
    assert f"The undo, remove greet 1, was requested by the user {A}." in under_way
    assert f"Earlier: attempt 1 canceled by the user {A} at" in under_way
    say(uid, A, Phase.SKIPPED, reason=Reason.NOT_INSTALLED)
    text = nodes_of(admin, uid)[0]["outcomes"][1]["text"]
    assert text.startswith(f"undo, requested by the user {A}, rolled back at")
    assert text.endswith("nothing to undo: not_installed")


def test_an_undo_that_was_canceled(admin, other):
    fleet(1)
    uid = start_by(admin)
    say(uid, A, Phase.FAILED, **FAILED)
    undo = admin.post(f"/v2/rollouts/{uid}/rollback").json()["uid"]
    other.post(f"/v2/rollouts/{undo}/nodes/{A}/cancel", {"force": True}, format="json")
    text = nodes_of(admin, undo)[0]["outcomes"][0]["text"]
    assert text.startswith(f"undo, never released, requested by the user alice, canceled by the user {A} at")


def test_an_actor_is_told_with_its_kind():
    told = {each: in_words(each) for each in ("user:n1", "n1", "node:n1", "system:relay", "unknown:n1")}
    assert list(told.values()) == ["the user n1", "the user n1", "the node n1", "the relay", "n1, of an unknown kind"]


def test_no_sentence_of_a_page_has_an_actor_without_its_kind():
    templates = Path(__file__).parents[3] / "console" / "templates"
    bare = re.compile(r"\bby \{\{ [\w.]*(?:actor|_by) \}\}")
    assert [each.name for each in templates.rglob("*.html") if bare.search(each.read_text())] == []
