"""Every page opens, says what it is about, leads on to others, and offers nothing to change by hand."""

import json

import pytest
from django.contrib.admin.utils import quote
from django.test import Client

from accounts.roles import Role
from eventstore import StoredEvent
from rollout.projections.counters import operation_key
from tests.integration.admin.conftest import EVIL, signed_in, text
from ui.cells import page_url, prose

LISTS = [
    "modules_app/module",
    "artifacts_app/build",
    "rollout/node",
    "rollout/nodemodule",
    "rollout/rollout",
    "rollout/operation",
    "eventstore/storedevent",
]


def pages_of(fleet):
    """One page of each kind."""
    return {
        "modules_app/module": page_url("modules_app_module", fleet.module),
        "artifacts_app/build": page_url("artifacts_app_build", f"greet:2:{_platform()}"),
        "rollout/node": page_url("rollout_node", "node-b"),
        "rollout/nodemodule": page_url("rollout_nodemodule", "node-a:greet:2"),
        "rollout/rollout": page_url("rollout_rollout", fleet.rollout),
        "rollout/operation": page_url("rollout_operation", operation_key(fleet.rollout, "node-b")),
        "eventstore/storedevent": page_url("eventstore_storedevent", 1),
    }


def _platform():
    from tests.integration.admin.conftest import PLATFORM

    return PLATFORM


def test_it_works(fleet, admin):
    page = text(admin.get("/admin/"))
    assert "Modfleet" in page
    for each in ("Modules", "Builds", "Nodes", "Rollouts", "Events"):
        assert f">{each}</a>" in page


def test_words_between_backticks_are_code():
    assert prose("Run `a <b>` & wait") == "Run <code>a &lt;b&gt;</code> &amp; wait"
    assert prose("one ` alone") == "one ` alone"
    assert prose("") == ""


def test_the_page_of_an_operation_has_its_name(fleet, viewer):
    page = text(viewer.get(page_url("rollout_operation", operation_key(fleet.rollout, "node-b"))))
    assert "<h1>install greet 2 on node-b</h1>" in page


@pytest.mark.parametrize("path", LISTS)
def test_lists_open_and_say_what_they_are_about(fleet, viewer, path):
    response = viewer.get(f"/admin/{path}/")
    assert response.status_code == 200
    assert 'class="about"' in text(response)


@pytest.mark.parametrize("path", LISTS)
def test_pages_open_and_have_no_forms(fleet, viewer, path):
    response = viewer.get(pages_of(fleet)[path])
    assert response.status_code == 200
    assert 'name="_save"' not in text(response)
    assert "<button" not in text(response).split('id="content-main"')[1]


@pytest.mark.parametrize("path", LISTS)
def test_nothing_is_added_changed_or_deleted_by_hand(fleet, admin, path):
    page = pages_of(fleet)[path]
    assert admin.post(f"/admin/{path}/add/").status_code == 403
    assert admin.post(page, {"phase": "online"}).status_code in {403, 405}
    assert admin.post(page.replace("/change/", "/delete/"), {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("path", LISTS)
def test_nobody_without_a_role_gets_in(fleet, mallory, path):
    response = signed_in(mallory).get(f"/admin/{path}/")
    assert (response.status_code, response["Location"].startswith("/admin/login/")) == (302, True)


@pytest.mark.parametrize("path", LISTS)
def test_strangers_are_asked_to_log_in(fleet, path):
    assert Client().get(f"/admin/{path}/").status_code == 302


@pytest.mark.parametrize("role", [each for each in Role if each != Role.NONE])
def test_every_role_may_look(fleet, new_user, role):
    browser = signed_in(new_user("walter", role))
    for path in LISTS:
        may = role != Role.DB_VIEWER or not path.startswith("eventstore")
        assert browser.get(f"/admin/{path}/").status_code == (200 if may else 403)


@pytest.mark.parametrize("path", LISTS)
def test_what_a_node_says_is_never_run(fleet, admin, path):
    for url in (f"/admin/{path}/", pages_of(fleet)[path]):
        assert EVIL not in text(admin.get(url))


def test_what_a_node_says_is_shown(fleet, admin):
    for path in ("rollout/rollout", "rollout/operation", "rollout/node"):
        assert "&lt;script&gt;alert" in text(admin.get(pages_of(fleet)[path]))


def test_a_rollout_leads_to_its_nodes_and_they_to_their_events(fleet, admin):
    page = text(admin.get(pages_of(fleet)["rollout/rollout"]))
    assert pages_of(fleet)["rollout/node"] in page
    assert f"/admin/rollout/operation/?rollout={fleet.rollout}" in page
    assert f"/admin/eventstore/storedevent/?q=rollout%3A{fleet.rollout}" in page
    assert "/admin/eventstore/storedevent/?q=node%3Anode-b" in text(admin.get(pages_of(fleet)["rollout/node"]))


def test_a_rollout_shows_the_numbers_of_the_api(fleet, admin):
    page = text(admin.get("/admin/rollout/rollout/"))
    assert "</svg> 66 %" in page
    assert "of 3 nodes: 1 succeeded, 1 failed, 1 queued" in page
    assert "load_failed" in text(admin.get(pages_of(fleet)["rollout/operation"]))


def test_a_node_shows_its_modules(fleet, admin):
    page = text(admin.get(page_url("rollout_node", "node-a")))
    assert "greet 2" in page
    assert "badge-in_sync" in page
    assert "master" in page
    assert "No operations yet." not in page


def test_a_node_that_never_beat_has_no_time(fleet, admin):
    from rollout.models import Liveness

    Liveness.objects.all().delete()
    assert admin.get("/admin/rollout/node/").status_code == 200
    assert admin.get(page_url("rollout_node", "node-a")).status_code == 200


@pytest.mark.parametrize("path", [each for each in LISTS if each != "rollout/rollout"])
def test_what_does_not_exist_leads_back(fleet, admin, path):
    response = admin.get(f"/admin/{path}/{quote('777')}/change/", follow=True)
    assert response.status_code == 200
    assert "exist. Perhaps it was deleted?" in text(response)


@pytest.mark.parametrize("query", ["phase=nonsense", "q=%00", "q=%27%22%3Cscript%3E", "p=99", "nonsense=1"])
def test_strange_queries_are_no_errors(fleet, admin, query):
    for path in LISTS:
        assert admin.get(f"/admin/{path}/?{query}", follow=True).status_code in {200, 400}


def test_event_data_is_laid_out(fleet, admin):
    event = StoredEvent.objects.filter(type="operation.finished.v1").first()
    assert event
    page = text(admin.get(page_url("eventstore_storedevent", event.position)))
    assert "&quot;node&quot;: &quot;node-a&quot;" in page
    assert len(json.loads(event.data)) > 1
