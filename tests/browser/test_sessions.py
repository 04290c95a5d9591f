"""A page that is left open while its session ends says so, and shows nothing as if it were still true."""

import re

from playwright.sync_api import expect

LOGIN = re.compile(r"/admin/login/\?next=")


def end_session(page):
    page.context.clear_cookies(name="sessionid")


def test_the_home_page_asks_to_log_in_again(fleet, open_as):
    page = open_as("carol")
    page.goto("/admin/")
    end_session(page)
    expect(page).to_have_url(LOGIN)


def test_an_upload_says_that_the_session_has_ended(package, fleet, open_as):
    _, path = package()
    page = open_as("carol")
    page.goto("/admin/upload")
    end_session(page)
    page.get_by_label("Choose a package").set_input_files(path)
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("alert")).to_contain_text("Your session has ended")
    page.get_by_role("link", name="open it again").click()
    expect(page).to_have_url(LOGIN)
