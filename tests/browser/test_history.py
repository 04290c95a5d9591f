"""One node on which one rollout failed and was undone, one was retried, one superseded and one canceled: all of it shows."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import refusals
from tests.browser.test_rollouts import page_of
from tests.fleet import PASSWORD, ROLLOUTS

#: A login name that begins as the program's own actors do.
NAME = "system-olga"
NODE = "node-1"
CAREFUL = {"canary": 1, "max_failures": 0, "settle_seconds": 0, "retries": {"limit": 0}}
HELD = {**CAREFUL, "approval": True}


@pytest.fixture(scope="module")
def person(cluster):
    user = {"name": NAME, "email": "olga@example.com", "password": PASSWORD, "role": "admin"}
    cluster.post("/v1/users", user, status=200)
    with cluster.client(NAME, PASSWORD) as client:
        yield client


@pytest.fixture
def four(fleet, plain, uploaded, person):
    """The uids of the four."""

    def start(strategy, *nodes, **more):
        body = {"action": "install", "module_name": "greet", "version": uploaded(picky=True), "strategy": strategy}
        return person.post(ROLLOUTS, json={**body, "nodes": nodes, **more}).json()["uid"]

    def ask(uid, verb):
        assert person.post(f"{ROLLOUTS}/{uid}/{verb}", json={}).status_code == 202

    fleet.refuse_to_load(NODE)
    undone = start(CAREFUL, NODE, "node-2")
    fleet.wait_for_rollout(undone, "paused")
    ask(undone, "rollback")
    fleet.wait_for_rollout(undone, "rolled_back")
    retried = start(CAREFUL, NODE, "node-2")
    fleet.wait_for_rollout(retried, "paused")
    fleet.refuse_to_load()
    ask(retried, "retry")
    ask(retried, "resume")
    fleet.wait_for_rollout(retried, "succeeded")
    superseded = start(HELD, NODE)
    canceled = start(HELD, NODE, supersede=True)
    fleet.wait_for_rollout(superseded, "superseded")
    ask(canceled, f"nodes/{NODE}/cancel")
    fleet.end_of(canceled)
    return undone, retried, superseded, canceled


def test_every_page_tells_the_whole_story(four, open_as):
    undone, retried, superseded, canceled = four
    page = open_as("admin")

    page.goto(page_of(undone))
    expect(page.locator("#ro-phase")).to_have_text("Rolled back")
    expect(page.locator(".ro-summary")).to_contain_text(f"by the user {NAME}")
    expect(page.locator(".ro-summary")).to_contain_text("paused by the rule max_failures")
    expect(page.locator(".ro-summary")).to_contain_text("load_failed")
    expect(page.locator(".ro-legend")).to_contain_text("1 rolled back")
    expect(page.locator(".ro-legend")).to_contain_text("1 failed before")
    expect(page.locator(".ro-counts").first).to_contain_text("1 failed before")
    expect(page.locator(".ro-tiles .rolled_back.failed-before")).to_have_attribute(
        "title",
        re.compile(f"^{NODE}: rolled back, (not|already) installed, failed before$"),  # as it was before the test
    )
    expect(page.locator(".ro-failing")).to_contain_text("The server refused to load the module.")
    expect(page.locator(".ro-failing")).to_contain_text("retried or undone later")
    timeline = page.locator(".ro-timeline")
    for words in (
        f"Created for 2 nodes by the user {NAME}",
        "load failed",
        "Paused",
        f"Rollback requested by the user {NAME}",
    ):
        expect(timeline).to_contain_text(words)
    expect(timeline).to_contain_text(f"{NODE} rolled back")
    assert refusals(page) == []

    page.goto(page_of(retried))
    expect(page.locator(".ro-legend")).to_contain_text("1 failed before")
    expect(timeline).to_contain_text(f"{NODE} retried by the user {NAME}")
    expect(timeline).to_contain_text("load failed")
    expect(page.locator(".ro-tiles .succeeded.failed-before")).to_have_count(1)
    page.goto(page_of(superseded))
    expect(page.locator(".ro-summary")).to_contain_text(f"{NODE} taken over by the user {NAME}")
    expect(page.locator(".ro-summary")).to_contain_text(f"Superseded by rollout {canceled}")
    expect(timeline).to_contain_text(f"{NODE} canceled")
    page.goto(page_of(canceled))
    expect(page.locator(".ro-summary")).to_contain_text(f"{NODE} canceled by the user {NAME}")
    expect(timeline).to_contain_text(f"{NODE} canceled by the user {NAME}")

    page.goto(f"/admin/rollout/node/{NODE}/change/")
    lines = page.get_by_role("table").filter(has_text="Scheduled").locator("tbody tr")
    ends = ("canceled", "canceled", "succeeded", "failed", "rolled back", "failed")
    for number, end in enumerate(ends):
        expect(lines.nth(number)).to_contain_text(end)
        expect(lines.nth(number)).to_contain_text(NAME)
    expect(lines.nth(0)).to_contain_text(f"canceled by the user {NAME}")
    expect(lines.nth(1)).to_contain_text(f"taken over by the user {NAME}")
    expect(lines.nth(4)).to_contain_text(re.compile("undo: (remove|install) greet"))
    lines.nth(5).get_by_role("link").first.click()
    expect(page.get_by_text("load_failed")).to_be_visible()
    assert refusals(page) == []
