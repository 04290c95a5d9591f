"""The pages of rollouts without a browser: who may, what is refused and in which words, and what they cost."""

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from rollout.domain.retries import Retries
from rollout.messages import Phase, Reason
from rollout.process.advance import advance
from rollout.queries.freeze import freeze_document
from rollout.queries.operations import operation_row
from rollout.queries.rollouts import rollout_row, rollout_rows
from rollout.services.freeze import freeze_fleet
from rollout.services.rollouts import pause_rollout, retry_rollout
from tests.integration.admin.conftest import heartbeat, text
from tests.integration.console.conftest import shown_text
from tests.integration.rollout import test_failbacks as failbacks
from tests.recorded_fleet import join, say, start, upload
from ui.cells import page_url

START = "/admin/rollouts/start"
LARGEST_PAGE = 300_000


@pytest.fixture
def start_form():
    """What the form sends when nothing in it was touched but the module."""
    return {"action": "install", "activation": "load", "artifact": "greet/2", "scope": "all", "strategy.canary": "1"}


@pytest.fixture
def idle(fleet):
    """The three nodes, of which nothing is under way."""
    fleet.end()
    advance(fleet.rollout)
    return fleet


def verb_url(uid, name):
    return f"/admin/rollouts/{uid}/{name}"


def test_it_works(fleet, admin):
    page = shown_text(admin.get(page_url("rollout_rollout", fleet.rollout)))
    for each in ("Running", "66 %", "1 queued", "1 succeeded", "1 failed", "node-b", "Read what the server said"):
        assert each in page


def test_the_strategy_is_shown_in_words(fleet, admin):
    page = shown_text(admin.get(page_url("rollout_rollout", fleet.rollout)))
    for each in (
        "progress_deadline_seconds 600 ",
        "retries.reasons fetch_failed, server_unreachable, module_busy",
        "waves none",
    ):
        assert each in page


def test_where_the_masters_were_and_are(admin):
    uid = failbacks.upgraded()
    back = failbacks.follower(uid)
    page = shown_text(admin.get(page_url("rollout_rollout", uid)))
    assert "n1: the master was a:1 and is a:2. Writes waited for 0.2 s." in page
    assert f"Failback {back.uid[:8]}" in page
    page = admin.get(page_url("rollout_rollout", back.uid))
    assert "Fail back after install greet 1" in shown_text(page)
    assert [each.name for each in page.context["live"].buttons] == ["pause", "abort"]


def test_the_plan_says_if_a_master_becomes_the_master_again(admin, start_form):
    upload()
    join(*failbacks.NAMES)
    failbacks.roles_are("n1", has_module=False)
    for fields, words in (
        ({}, "A master that has failed over stays a replica."),
        ({"failback": "on"}, "a new rollout makes each master that has failed over the master again"),
    ):
        asked = {**start_form, "artifact": "greet/1", "activation": "restart", **fields}
        assert words in shown_text(admin.post(START, asked))


def test_a_viewer_is_refused_every_verb(fleet, viewer):
    for name in ["pause", "abort", "retry", "rollback", "promote", "approve", "resume", "reject"]:
        assert viewer.post(verb_url(fleet.rollout, name), {"remark": "x"}).status_code == 403
    assert rollout_row(fleet.rollout).phase == "running"


def test_a_viewer_changes_nothing_else(fleet, viewer):
    for path in [START, "/admin/freeze", "/admin/rollouts/{uid}/nodes/node-c/cancel"]:
        assert viewer.post(path.format(uid=fleet.rollout), {"reason": "x"}).status_code == 403


def test_a_viewer_sees_no_button(fleet, viewer):
    page = text(viewer.get(page_url("rollout_rollout", fleet.rollout)))
    assert "data-confirm" not in page


def test_buttons_are_those_of_the_phase(fleet, admin):
    page = text(admin.get(page_url("rollout_rollout", fleet.rollout)))
    offered = [
        name for name in ("pause", "resume", "promote", "approve", "abort") if verb_url(fleet.rollout, name) in page
    ]
    assert offered == ["pause", "abort"]


def test_a_verb_is_asked_for_and_then_done(fleet, admin):
    assert "Pause this rollout?" in text(admin.get(verb_url(fleet.rollout, "pause")))
    assert rollout_row(fleet.rollout).phase == "running"
    assert "Paused. No new operations start." in shown_text(admin.post(verb_url(fleet.rollout, "pause"), follow=True))
    assert rollout_row(fleet.rollout).phase == "paused"


def test_a_verb_that_is_refused_says_why(fleet, admin):
    page = shown_text(admin.post(verb_url(fleet.rollout, "resume"), follow=True))
    assert rollout_row(fleet.rollout).phase == "running"
    page = shown_text(admin.post(verb_url(fleet.rollout, "promote"), follow=True))
    assert "The rollout does not wait at a gate" in page


def test_nothing_is_foreseen_of_what_waits_for_a_person(fleet, admin):
    address = page_url("rollout_rollout", fleet.rollout)
    assert " left " in shown_text(admin.get(address))
    pause_rollout(fleet.rollout)
    page = shown_text(admin.get(address))
    assert "no estimate while the rollout waits" in page
    assert " left " not in page


def test_a_start_to_come_is_told_with_its_day(idle, admin, start_form):
    planned = {**start_form, "strategy.start_at": "2190-01-31T10:00"}
    plan = admin.post(START, planned).context["form"].plan
    form = {**planned, "plan_hash": plan["plan_hash"], "start": "1"}
    page = shown_text(admin.post(START, form, follow=True))
    assert "Its start time (2190-01-31 10:00:00 UTC)" in page
    assert re.search(r"Scheduled since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", page)


def test_a_verb_that_there_is_not_is_not_found(fleet, admin):
    assert admin.post(verb_url(fleet.rollout, "explode")).status_code == 404
    assert admin.get(verb_url("f" * 32, "pause")).status_code == 404
    assert admin.get(page_url("rollout_rollout", "f" * 32)).status_code == 404


def test_an_approval_needs_a_remark(fleet, admin):
    page = admin.post(verb_url(fleet.rollout, "approve"), {"remark": " "})
    assert "This field may not be blank." in text(page)


def test_one_node_is_canceled(fleet, admin):
    path = f"/admin/rollouts/{fleet.rollout}/nodes/node-c/cancel"
    assert "Cancel on this node?" in text(admin.get(path))
    admin.post(path, {"force": "on"})
    assert operation_row(fleet.rollout, "node-c").phase == "canceled"


def test_a_rollback_leads_to_the_new_rollout(idle, admin):
    response = admin.post(verb_url(idle.rollout, "rollback"), follow=True)
    assert page_url("rollout_rollout", idle.rollout) in text(response)
    assert response.redirect_chain[0][0] != page_url("rollout_rollout", idle.rollout)


def test_what_has_not_changed_is_not_sent_again(fleet, admin):
    path = f"{page_url('rollout_rollout', fleet.rollout)}?live"
    etag = admin.get(path)["ETag"]
    assert admin.get(path, headers={"If-None-Match": etag}).status_code == 304
    pause_rollout(fleet.rollout)
    assert admin.get(path, headers={"If-None-Match": etag}).status_code == 200


# --- The form ---------------------------------------------------------------------------------------------------------


def test_a_plan_is_shown_and_nothing_started(idle, admin, start_form):
    page = admin.post(START, start_form)
    assert "Start this rollout" in text(page)
    assert len(rollout_rows()) == 1


def test_each_field_of_the_strategy_names_its_default(idle, admin):
    page = text(admin.get(START))
    for default in (
        "1",
        "none",
        "Pause and wait for a person",
        "no",
        "600 s",
        "fetch failed, server unreachable, module busy",
    ):
        assert f" Default: {default}.</p>" in page


def test_the_plan_that_was_seen_is_started(idle, admin, start_form):
    plan = admin.post(START, start_form).context["form"].plan
    response = admin.post(START, {**start_form, "start": "1", "plan_hash": plan["plan_hash"]})
    newest = rollout_rows()[0]
    assert response.url == page_url("rollout_rollout", newest.uid)
    assert (newest.actor, newest.origin, newest.total) == ("alice", "console", 3)


def test_a_plan_that_has_changed_is_shown_anew(idle, admin, start_form):
    plan = admin.post(START, start_form).context["form"].plan
    heartbeat("node-d")
    page = admin.post(START, {**start_form, "start": "1", "plan_hash": plan["plan_hash"]})
    assert "The plan has changed since you saw it." in text(page)
    assert page.context["form"].plan["total"] == 4
    assert len(rollout_rows()) == 1


WRONG = [
    ({"strategy.canary": "many"}, "strategy.canary", "Must be an integer from 0 to 10000"),
    ({"strategy.waves": "10%, 0"}, "strategy.waves", "Must be an integer from 1 to 10000"),
    ({"strategy.soak_seconds": "long"}, "strategy.soak_seconds", "Must be a number."),
    ({"strategy.retries.limit": "99"}, "strategy.retries.limit", "less than or equal to 10"),
    ({"strategy.min_healthy": "3"}, "strategy.min_healthy", "keeps 3 of 3 nodes untouched"),
    ({"strategy.start_at": "soon"}, "strategy.start_at", "Must be a time with a time zone"),
    ({"artifact": ""}, "artifact", "This field is required."),
    ({"artifact": "nothing/1"}, "artifact", "There is no artifact of nothing 1."),
    ({"scope": "named"}, "nodes", "at least 1 element"),
    ({"scope": "named", "nodes": "node-z"}, "nodes", "The fleet has no node node-z."),
    ({"scope": "selected"}, "selector", "Must have at least one of"),
    ({"scope": "selected", "selector.labels": "zone"}, "selector.labels", "Must be an object of labels"),
    ({"scope": "selected", "selector.roles": "replica"}, "selector", "No node matches all of these fields."),
]


def test_what_is_wrong_stands_beside_its_field(idle, admin, start_form):
    for changes, field, words in WRONG:
        form = admin.post(START, {**start_form, **changes}).context["form"]
        assert words in " ".join(form.errors.get(field, ())), (changes, form.errors)
        assert form.plan is None


def test_a_rollout_in_the_way_is_named(fleet, admin, start_form):
    page = admin.post(START, start_form)
    assert page_url("rollout_rollout", fleet.rollout) in text(page)
    assert "to see the plan" not in text(page)  # no field is wrong
    assert admin.post(START, {**start_form, "supersede": "on"}).context["form"].plan


def test_every_field_of_a_strategy_comes_through(idle, admin, start_form):
    wanted = {
        "strategy.canary": "0",
        "strategy.waves": "1 50%",
        "strategy.soak_seconds": "1.5",
        "strategy.gate": "manual",
        "strategy.approval": "on",
        "strategy.start_at": "2030-01-02T03:04",
        "strategy.retries.limit": "3",
        "strategy.retries.reasons": ["disk_full", "io_error"],
        "scope": "selected",
        "selector.names": "node-a node-b",
        "selector.roles": ["master"],
    }
    plan = admin.post(START, {**start_form, **wanted}).context["form"].plan
    strategy = plan["strategy"]
    assert (plan["total"], strategy["waves"], strategy["soak_seconds"]) == (2, (1, "50%"), 1.5)
    assert (strategy["gate"], strategy["approval"], strategy["start_at"]) == ("manual", True, "2030-01-02T03:04:00Z")
    assert strategy["retries"]["reasons"] == ("disk_full", "io_error")


def test_the_form_is_filled_from_its_address(idle, admin):
    page = admin.get(f"{START}?module=greet&version=2&scope=named&nodes=node-a&action=remove")
    assert page.context["form"].plan["total"] == 1
    assert page.context["form"].plan["action"] == "remove"


# --- Freezing ---------------------------------------------------------------------------------------------------------


def test_the_fleet_is_frozen_with_a_reason_and_thawed(fleet, admin):
    assert "This field may not be blank." in text(admin.post("/admin/freeze", {"reason": ""}))
    admin.post("/admin/freeze", {"reason": "a change of the network"})
    assert freeze_document()["actor"] == "alice"
    assert "a change of the network" in text(admin.get(page_url("rollout_rollout", fleet.rollout)))
    admin.post("/admin/freeze", {"thaw": "1"})
    assert not freeze_document()["frozen"]


def test_who_comes_second_reads_why_the_fleet_is_frozen(fleet, admin):
    freeze_fleet("a change of the network")
    page = shown_text(admin.post("/admin/freeze", {"reason": "something else"}, follow=True))
    assert "The fleet was already frozen by the program: a change of the network" in page
    assert "something else" not in page


# --- A thousand nodes -------------------------------------------------------------------------------------------------


@pytest.fixture
def queries_of(admin):
    def count(path):
        with CaptureQueriesContext(connection) as captured:
            response = admin.get(path)
        assert response.status_code == 200
        assert len(response.content) < LARGEST_PAGE
        return len(captured)

    return count


@pytest.mark.slow
def test_pages_of_a_thousand_nodes_are_small_and_ask_no_more(db, queries_of):
    pages_of(3, "other")  # so that both plans meet another module on the nodes, and read its commands
    few = [queries_of(path) for path in pages_of(3, "few")]
    assert [queries_of(path) for path in pages_of(1000, "many")] == few


def pages_of(count, module_name):
    """Of a rollout to so many nodes, one of which has failed, and of the form for another one."""
    upload(module_name)
    names = [f"n{number:04d}" for number in range(count)]
    join(*names)
    careful = {"canary": 1, "waves": ("10%",), "retries": Retries(limit=0)}
    uid = start(module_name=module_name, careful=careful, max_parallel=100)
    say(uid, names[0], Phase.FAILED, reason=Reason.LOAD_FAILED, message="no")
    advance(uid)
    return [page_url("rollout_rollout", uid), f"{START}?module={module_name}&version=1&supersede=on"]


def test_a_rollback_and_its_original_name_each_other_and_what_is_left_alone(admin):
    upload()
    upload(version=2, content="c2")
    join("n1", "n2")
    uid, newer = start(), ""
    for name in ("n1", "n2"):
        say(uid, name)
    newer = start(version=2, nodes=("n2",))
    say(newer, "n2")
    asked = shown_text(admin.get(verb_url(uid, "rollback")))
    assert f"n2 by rollout {newer}" in asked
    back = admin.post(verb_url(uid, "rollback"))["Location"].split("/")[-3]
    page = shown_text(admin.get(page_url("rollout_rollout", back)))
    assert "Roll back greet 1" in page
    assert re.search(f"Left unchanged n2, changed since, or about to be, by rollout {newer[:8]}", page)
    assert re.search(f"Rollback of {uid[:8]}", page)
    original = shown_text(admin.get(page_url("rollout_rollout", uid)))
    assert re.search(f"Rollback {back[:8]}", original)
    assert f"Rollback started as rollout {back[:8]}" in original
    assert "Rolled back by" not in original


def test_the_list_says_what_had_failed_before(admin):
    upload()
    join("n1", "n2")
    uid = start(careful={"canary": 1, "max_failures": 0})
    say(uid, "n1", Phase.FAILED, reason=Reason.LOAD_FAILED)
    advance(uid)
    retry_rollout(uid)
    assert "1 failed before" in shown_text(admin.get("/admin/rollout/rollout/"))
