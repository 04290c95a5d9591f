"""A rollout as a person sees it: planned, started, watched, steered, all by clicking."""

import base64
import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import log_in
from tests.fleet import ROLLOUTS


def page_of(uid):
    return f"/admin/rollout/rollout/{uid}/change/"


def phase(page):
    return page.locator("#ro-phase")


def press(page, name):
    """A button, and the one that confirms it."""
    page.get_by_role("button", name=name, exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name=f"Yes, {name.lower()}").click()


def uid_of(page):
    found = re.search(r"rollout/rollout/([0-9a-f]{32})/", page.url)
    assert found, page.url
    return found[1]


def start_by_clicking(page, version, **strategy):
    page.goto(f"/admin/rollouts/start?module=greet&version={version}&strategy.settle_seconds=0")
    for label, value in strategy.items():
        field = page.locator(f"[name='strategy.{label}']")
        if value is True:
            field.check()
        elif field.evaluate("each => each.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)
    button = page.get_by_role("button", name="Start this rollout")
    expect(page.locator("#plan.is-stale")).to_have_count(0)
    button.click()
    expect(page).to_have_url(re.compile(r"/rollout/rollout/[0-9a-f]{32}/change/"))
    return uid_of(page)


def drop(page, path):
    """Drag a file from the desktop onto the page of uploads."""
    page.wait_for_url("**/admin/upload")  # its script has run
    words = [base64.b64encode(path.read_bytes()).decode(), path.name]
    dropped = page.evaluate_handle(
        """([content, name]) => {
            const files = new DataTransfer();
            files.items.add(new File([Uint8Array.from(atob(content), each => each.charCodeAt(0))], name));
            return files;
        }""",
        words,
    )
    page.locator("#upload").dispatch_event("drop", {"dataTransfer": dropped})


def test_a_canary_fails_and_everything_is_restored(fleet, plain, package, open_as):
    version, path = package(picky=True)
    fleet.refuse_to_load("node-1")
    before = fleet.greetings()
    page = open_as(None)
    log_in(page, "admin")
    page.get_by_role("link", name="Upload", exact=True).first.click()
    drop(page, path)
    page.get_by_role("link", name="Roll out").click()
    expect(page.locator("#plan")).to_contain_text("Wave 1")
    page.get_by_role("button", name="Start this rollout").click()
    expect(page).to_have_url(re.compile("/rollout/rollout/[0-9a-f]+/change/"))
    expect(page.get_by_role("heading", name=f"Install greet {version}")).to_be_visible()
    expect(phase(page)).to_have_text("Paused")
    failing = page.locator(".ro-failing")
    expect(failing).to_contain_text("node-1")
    expect(failing).to_contain_text("The server refused to load the module.")
    expect(page.locator(".ro-timeline")).to_contain_text("Wave 0 failed")
    press(page, "Roll back")
    expect(phase(page)).to_have_text("Rolled back")
    expect(page.locator(".ro-tiles .rolled_back, .ro-tiles .failed")).not_to_have_count(0)
    assert fleet.greetings() == before


def test_the_plan_is_shown_before_anything_is_started(fleet, uploaded, open_as):
    version = uploaded()
    page = open_as("admin")
    page.goto(f"/admin/rollouts/start?module=greet&version={version}")
    plan = page.locator("#plan")
    expect(plan.locator(".ro-waves > li")).to_have_count(2)
    page.get_by_label("Canary").fill("0")
    expect(plan.locator(".ro-waves > li")).to_have_count(1)
    page.get_by_label("Canary").fill("many")
    expect(page.locator("[data-error='strategy.canary']")).to_contain_text("Must be an integer from 0 to 10000")
    expect(page.get_by_role("button", name="Start this rollout")).to_have_count(0)
    assert not [each for each in fleet.get(ROLLOUTS)["results"] if each["version"] == version]


def test_a_gate_opens_by_a_click(fleet, uploaded, open_as):
    page = open_as("admin")
    start_by_clicking(page, uploaded(), gate="manual")
    expect(page.get_by_role("button", name="Promote")).to_be_visible()
    expect(page.locator(".ro-waits")).to_contain_text("promote")
    assert page.locator(".ro-tiles .succeeded").count() == 1
    press(page, "Promote")
    expect(phase(page)).to_have_text("Succeeded")
    expect(page.locator(".ro-tiles .succeeded")).to_have_count(3)
    expect(page.get_by_role("link", name="CSV")).to_be_visible()


def test_somebody_else_approves(fleet, uploaded, open_as):
    page = open_as("admin")
    uid = start_by_clicking(page, uploaded(), approval=True)
    expect(page.get_by_text("You started this rollout, so another person must approve it.")).to_be_visible()
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    other = open_as("carol")
    other.goto(page_of(uid))
    other.get_by_role("button", name="Approve").click()
    other.get_by_label("Remark").fill("looked at it")
    other.get_by_role("button", name="Yes, approve").click()
    expect(phase(page)).to_have_text("Succeeded")
    expect(page.locator(".ro-timeline")).to_contain_text("Approved by the user carol")


def test_an_abort_starts_nothing_more(fleet, uploaded, open_as):
    page = open_as("admin")
    start_by_clicking(page, uploaded(), gate="manual")
    expect(page.get_by_role("button", name="Promote")).to_be_visible()
    press(page, "Abort")
    expect(phase(page)).to_have_text("Aborted")
    expect(page.locator(".ro-tiles .canceled")).to_have_count(2)


@pytest.fixture
def gated(fleet, uploaded):
    """uid of a rollout that waits at the gate after its canary."""
    uid = fleet.start(uploaded(), strategy={"gate": "manual"})
    fleet.wait_for_wave(uid, 0, "gated")
    return uid


def test_a_viewer_can_press_nothing(gated, open_as):
    page = open_as("bob")
    page.goto(page_of(gated))
    expect(phase(page)).to_have_text("Running")
    expect(page.locator("#live button, #live [data-confirm], #live form")).to_have_count(0)
    page.goto("/admin/freeze")
    expect(page.locator("#content button")).to_have_count(0)
    token = next(each["value"] for each in page.context.cookies() if each["name"] == "csrftoken")
    for path in (f"/admin/rollouts/{gated}/promote", "/admin/freeze", "/admin/rollouts/start"):
        answer = page.request.post(path, headers={"X-CSRFToken": token, "Referer": page.url}, form={"reason": "x"})
        assert answer.status == 403
        assert "CSRF" not in answer.text()


def test_it_works_without_scripts(gated, open_as):
    page = open_as("admin", java_script_enabled=False)
    page.goto(page_of(gated))
    expect(phase(page)).to_have_text("Running")
    page.get_by_role("link", name="Promote").click()
    expect(page.get_by_role("heading", name="Promote this rollout?", level=2)).to_be_visible()
    page.get_by_role("button", name="Yes, promote").click()
    expect(page.get_by_text("Promoted. The rollout goes on.")).to_be_visible()


def test_a_rollout_is_started_without_scripts(fleet, uploaded, open_as):
    version = uploaded()
    page = open_as("admin", java_script_enabled=False)
    page.goto("/admin/rollouts/start")
    page.get_by_label("Module and version").select_option(f"greet/{version}")
    page.get_by_label("These nodes").check()
    page.get_by_label("node-2").check()
    page.get_by_role("button", name="Preview the plan").click()
    expect(page.locator("#plan .ro-waves > li")).to_have_count(1)
    page.get_by_role("button", name="Start this rollout").click()
    assert set(fleet.phases(uid_of(page))) == {"node-2"}
    fleet.end_of(uid_of(page))


def test_it_works_by_keyboard_alone(gated, open_as):
    page = open_as("admin")
    page.goto(page_of(gated))
    expect(page.locator("#ro-link")).to_have_text("Live")
    tab_to(page, "Promote")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    tab_to(page, "Yes, promote")
    page.keyboard.press("Enter")
    expect(phase(page)).to_have_text("Succeeded")
    tab_to(page, "node-1: succeeded")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/rollout/node/node-1/"))


def tab_to(page, name):
    """By the Tab key, until what has the focus is called so."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("(each => each.title || each.textContent.trim())(document.activeElement)") == name:
            return
    raise AssertionError(f"the Tab key never comes to {name}")


def test_a_lost_connection_is_said_and_made_up_for(gated, fleet, open_as):
    page = open_as("admin")
    page.goto(page_of(gated))
    expect(page.locator("#ro-link")).to_have_text("Live")
    fleet.up.kill("api")
    expect(page.locator("#ro-link")).to_contain_text("Disconnected")
    expect(page.locator("#ro-link")).to_have_text("Live")
    fleet.post(f"{ROLLOUTS}/{gated}/promote")
    expect(phase(page)).to_have_text("Succeeded")
    expect(page.locator("#ro-link")).to_have_text("Ended")


def test_the_fleet_is_frozen_and_thawed(gated, open_as):
    page = open_as("admin")
    page.goto("/admin/freeze")
    page.get_by_label("Reason").fill("the network is being changed")
    page.get_by_role("button", name="Freeze the fleet").click()
    expect(page.get_by_role("heading", name="The fleet is frozen")).to_be_visible()
    page.goto(page_of(gated))
    expect(page.get_by_text("the network is being changed").first).to_be_visible()
    page.get_by_role("link", name="Open the freeze page").click()
    page.get_by_role("button", name="Thaw the fleet").click()
    expect(page.get_by_role("heading", name="The fleet is not frozen")).to_be_visible()
