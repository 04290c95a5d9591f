"""On a telephone: nothing is wider than the screen, and no word is broken into its letters."""

import pytest
from playwright.sync_api import expect

PAGES = [
    "/admin/",
    "/admin/modules/",
    "/admin/rollouts/start",
    "/admin/nodes/add",
    "/admin/rollout/node/node-1/change/",
    "/admin/eventstore/storedevent/",
]


@pytest.mark.parametrize("path", PAGES)
def test_it_fits(uploaded, open_as, path):
    uploaded()
    page = open_as("admin", viewport={"width": 400, "height": 800})
    page.goto(path)
    heading = page.locator("h1")
    expect(heading).to_be_visible()
    assert heading.bounding_box()["height"] < 60
    assert page.evaluate("document.documentElement.scrollWidth") == 400


@pytest.mark.parametrize("width", [900, 1300])
def test_the_title_and_the_tables_of_a_node_fit(uploaded, open_as, width):
    uploaded()
    page = open_as("admin", viewport={"width": width, "height": 900})
    page.goto("/admin/rollout/node/node-1/change/")
    heading = page.locator("h1")
    expect(heading).to_be_visible()
    assert heading.bounding_box()["height"] < 40
    tables = page.locator(".scrolls")
    assert tables.count()
    assert tables.evaluate_all("all => all.filter((each) => each.scrollWidth > each.clientWidth).length") == 0


def test_a_telephone_stacks_the_tables_of_a_node(fleet, open_as):
    page = open_as("admin", viewport={"width": 390, "height": 800})
    page.goto("/admin/rollout/node/node-1/change/")
    cell = page.locator("td[data-column=Check]").first
    expect(cell).to_be_visible()
    assert page.evaluate("(each) => getComputedStyle(each, '::before').content", cell.element_handle()) == '"Check"'


def test_the_log_is_read_in_words(fleet, open_as):
    page = open_as("admin", viewport={"width": 400, "height": 800})
    page.goto("/admin/eventstore/storedevent/")
    expect(page.locator(".rows td").first).to_be_visible()
    heights = page.eval_on_selector_all(".rows td", "cells => cells.map((each) => each.offsetHeight)")
    assert max(heights) < 90
