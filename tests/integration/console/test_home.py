"""The home page: what needs attention, rollouts in progress, and the modules of each node."""

import pytest
from msgspec import to_builtins

from accounts.roles import Role
from rollout.delivery.ingestion import record_heartbeats
from rollout.messages import ServerState
from rollout.services.enrolment import create_join_token
from rollout.services.freeze import freeze_fleet
from rollout.services.nodes import decommission_node
from rollout.services.rollouts import pause_rollout
from tests.hosts import Host
from tests.integration.admin.conftest import EVIL, signed_in, text
from tests.integration.console.conftest import shown_text
from tests.recorded_fleet import heartbeat_of, join


def test_it_works(fleet, admin):
    page = shown_text(admin.get("/admin/"))
    assert "3 nodes 3 online" in page
    assert "1 node with a failed operation: greet 2" in page
    assert "install greet 2 running by the user olivia" in page
    assert "66 % finished of 3 nodes: 1 succeeded, 1 failed, 1 queued" in page


def test_the_matrix_has_a_cell_for_each_node_and_module(fleet, admin):
    page = shown_text(admin.get("/admin/"))
    for row in ("node-a ✓ online", "node-b online", "node-c online"):
        assert row.replace("✓ ", "") in page
    assert "node-a online 2 load" in page
    assert "node-b online 2 error: absent" in page
    assert "node-c online 2 pending: absent" in page


def test_nodes_that_differ_come_first(fleet, admin):
    nodes = [each.name for each in admin.get("/admin/").context["nodes"]]
    assert nodes == ["node-b", "node-c", "node-a"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("name=node-a", ["node-a"]),
        ("state=error", ["node-b"]),
        ("state=error&module_name=other", []),
        ("module_name=other/name", ["node-a", "node-b", "node-c"]),
        ("phase=offline", []),
        ("phase=nonsense", []),
        ("page=99", ["node-b", "node-c", "node-a"]),
    ],
)
def test_the_matrix_is_filtered(fleet, admin, query, names):
    assert [each.name for each in admin.get(f"/admin/?{query}").context["nodes"]] == names


def test_what_waits_for_a_person_is_named(fleet, admin):
    pause_rollout(fleet.rollout)
    page = admin.get("/admin/")
    assert ("paused", f"/admin/rollout/rollout/{fleet.rollout}/change/") in [
        (each.kind, each.url) for each in page.context["tasks"]
    ]


def test_nodes_that_need_a_person_are_named(fleet, admin):
    join("away")
    state = ServerState(problem="server_unreachable", message="It is away.")
    record_heartbeats([heartbeat_of("away") | {"facts": to_builtins(state)}])
    Host(name="new-1").join(create_join_token(pattern="new-*", labels={}, expires_in_seconds=60))
    page = admin.get("/admin/")
    tasks = [(each.kind, each.text) for each in page.context["tasks"]]
    assert ("degraded", "1 node degraded: no operation is released until the server can be used") in tasks
    assert ("pending", "1 node pending: not accepted yet, or no heartbeat yet") in tasks
    assert "5 nodes 3 online 1 degraded 0 offline 0 draining 1 pending" in shown_text(page)
    assert [each.name for each in admin.get("/admin/?phase=pending").context["nodes"]] == ["new-1"]


def test_a_frozen_fleet_is_told_to_all(fleet, viewer):
    freeze_fleet("Black Friday")
    assert "Black Friday" in text(viewer.get("/admin/"))


def test_a_node_that_left_is_counted_nowhere(fleet, admin):
    decommission_node("node-b")
    page = admin.get("/admin/")
    assert page.context["fleet_size"] == 2
    assert "node-b" not in text(page).split("Nodes and their modules")[1]


def test_the_live_part_is_that_of_the_page(fleet, viewer):
    live = text(viewer.get("/admin/live"))
    assert "Rollouts in progress" in live
    assert "<html" not in live


def test_an_empty_fleet_says_what_to_do(db, admin):
    page = text(admin.get("/admin/"))
    assert "No node has joined yet" in page
    assert "No rollouts in progress." in page


def test_a_viewer_is_offered_nothing_that_changes(fleet, viewer):
    page = text(viewer.get("/admin/"))
    main = page.split('id="content-main"')[1]
    assert "Upload a package" not in page
    assert 'method="post"' not in main
    assert "start?" not in main


@pytest.mark.parametrize("role", [each for each in Role if each != Role.NONE])
def test_the_sidebar_leads_only_where_the_role_may_go(fleet, new_user, role):
    browser = signed_in(new_user("walter", role))
    for group in browser.get("/admin/").context["sidebar_navigation"]:
        for item in group.items:
            assert browser.get(item.url).status_code == 200, item


def test_who_has_no_role_does_not_get_in(fleet, mallory):
    assert signed_in(mallory).get("/admin/").status_code == 302
    assert signed_in(mallory).get("/admin/live").status_code == 302


def test_what_a_node_says_is_never_run(fleet, admin):
    assert EVIL not in text(admin.get("/admin/"))
