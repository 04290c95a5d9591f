"""One cluster and one browser for all; each test has a context of its own, and nothing in it may go wrong unseen."""

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect

from tests.browser.chromium import NoBrowserError, chromium_path, running_browser
from tests.fleet import FINAL, PASSWORD, ROLLOUTS, Fleet, running_fleet

#: How long a page may take to show what is expected, milliseconds: the machine may be busy.
PATIENCE = 60_000
PEOPLE = {"carol": "admin", "bob": "cluster_viewer"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.e2e)
        item.add_marker(pytest.mark.timeout(300))  # the cluster's start counts too


def pytest_sessionstart(session: pytest.Session) -> None:
    expect.set_options(timeout=PATIENCE)
    try:
        chromium_path()
    except NoBrowserError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with running_browser() as started:
        yield started


@pytest.fixture(scope="session")
def cluster() -> Iterator[Fleet]:
    """Three nodes, and the people who look at them."""
    with running_fleet() as fleet:
        for name, role in PEOPLE.items():
            person = {"name": name, "email": f"{name}@example.com", "password": PASSWORD, "role": role}
            fleet.post("/v1/users", person, status=200)
        yield fleet


@pytest.fixture
def fleet(cluster: Fleet) -> Iterator[Fleet]:
    """No rollout is under way, and every module loads."""
    cluster.refuse_to_load()
    yield cluster
    for each in cluster.get(ROLLOUTS)["results"]:
        if each["phase"] not in FINAL:
            cluster.api.post(f"{ROLLOUTS}/{each['uid']}/abort")  # it may have ended in this moment
            cluster.end_of(each["uid"])


AXE = Axe().axe_script


@pytest.fixture
def plain(fleet: Fleet, uploaded: Callable[..., int]) -> None:
    """All nodes run a version that each server loads. A rollback restores it, whatever other tests have left."""
    assert fleet.carry_out(uploaded(), supersede=True)["phase"] == "succeeded"


@pytest.fixture(scope="session")
def sessions(browser: Browser, cluster: Fleet) -> Callable[[str], Any]:
    """Logs in once for each person: what a browser keeps of it."""
    kept: dict[str, Any] = {}

    def session_of(name: str) -> Any:
        if name not in kept:
            context = browser.new_context(base_url=cluster.url)
            page = context.new_page()
            log_in(page, name)
            kept[name] = context.storage_state()
            context.close()
        return kept[name]

    return session_of


def log_in(page: Page, name: str) -> None:
    page.goto("/admin/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(re.compile(r"/admin/$"))


@pytest.fixture
def open_as(browser: Browser, cluster: Fleet, sessions: Callable[[str], Any]) -> Iterator[Callable[..., Page]]:
    """A page of somebody who is logged in: `open_as("bob")`. In the end nothing has been said on its console, and
    nothing was asked of another host."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def opened(name: str | None, **options: Any) -> Page:
        context = browser.new_context(base_url=cluster.url, storage_state=name and sessions(name), **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        watch(page, cluster.url, wrong)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def watch(page: Page, url: str, wrong: list[str]) -> None:
    """Everything that goes wrong in the page is added to `wrong`."""
    host = urlsplit(url).netloc

    def said(message: ConsoleMessage) -> None:
        # What a server that is killed on purpose leaves unanswered is no fault of the page.
        if (
            message.type == "error"
            and "ERR_CONNECTION" not in message.text
            and "INCOMPLETE_CHUNKED" not in message.text
        ):
            wrong.append(f"{message.text} {message.location.get('url')}")

    def asked(request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in {"http", "https"} and parts.netloc != host:
            wrong.append(request.url)

    page.on("console", said)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", asked)


#: Only what is held against the page comes back: the rest is long.
_CHECK = """
async (options) => {
  const found = await axe.run(document, {resultTypes: ["violations"], ...options});
  const serious = found.violations.filter((each) => ["serious", "critical"].includes(each.impact));
  return serious.map((each) => [each.id, ...each.nodes.slice(0, 3).map((node) => `${node.html} ${node.failureSummary}`)]);
}
"""


def refusals(page: Page, **options: Any) -> Any:
    """What axe-core holds against the page that is serious or critical."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    return page.evaluate(_CHECK, options)
