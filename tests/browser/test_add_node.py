"""A person adds a node, and copies the command for its host."""

from playwright.sync_api import expect

from tests.browser.conftest import refusals


def test_the_command_is_shown_once_and_copied(open_as):
    page = open_as("admin", permissions=["clipboard-read", "clipboard-write"])
    page.goto("/admin/")
    page.get_by_role("link", name="Add a node").click()
    page.get_by_label("Name", exact=True).fill("web-1")
    page.get_by_role("button", name="Create the command").click()
    command = page.locator("#command")
    expect(command).to_contain_text("modfleet agent install --control")
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == command.text_content()
    assert refusals(page) == []
    page.get_by_role("link", name="Join tokens").click()
    expect(page.locator("#content-main")).to_contain_text("web-1")
    expect(page.locator("#content-main")).not_to_contain_text("mfj1.")
