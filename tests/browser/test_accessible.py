"""axe-core finds nothing serious on any page, in light and in dark."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import refusals

PAGES = [
    "/admin/",
    "/admin/rollout/rollout/",
    "/admin/rollouts/start",
    "/admin/modules/",
    "/admin/modules/greet",
    "/admin/upload",
    "/admin/freeze",
    "/admin/nodes/add",
    "/admin/rollout/jointoken/",
    "/admin/nodes/ignore-replica",
    "/admin/rollout/ignoredreplica/",
    "/admin/rollout/node/",
    "/admin/rollout/node/node-1/change/",
    "/admin/rollout/nodemodule/",
    "/admin/eventstore/storedevent/",
]


@pytest.fixture(scope="module")
def paused(cluster, tmp_path_factory):
    """uid of a rollout whose canary has failed; it stays as it is for all pages of this file."""
    from tests.fleet import sample
    from tests.waiting import wait_for

    version = 29000
    cluster.upload(sample(tmp_path_factory.mktemp("picky"), version, picky=True))
    cluster.refuse_to_load("node-1")
    uid = cluster.start(version, strategy={})
    wait_for(lambda: cluster.rollout(uid)["phase"] == "paused")
    yield uid
    cluster.post(f"/v2/rollouts/{uid}/rollback")
    cluster.end_of(uid)


def test_no_page_keeps_anybody_out(paused, open_as):
    page = open_as("admin", color_scheme="light", reduced_motion="reduce")
    of_rollout = [f"/admin/rollout/rollout/{paused}/change/", f"/admin/rollouts/{paused}/rollback"]
    planned = "/admin/rollouts/start?module=greet&version=29000&supersede=on"
    found = {}
    for path in (*PAGES, *of_rollout, planned):
        page.goto(path)
        expect(page.locator("h1")).to_be_visible()
        found[path] = refusals(page)
        # In the dark only the colours differ.
        page.evaluate("document.documentElement.classList.add('dark')")
        found[f"{path} in the dark"] = refusals(page, runOnly=["color-contrast"])
    assert {path: each for path, each in found.items() if each} == {}
