"""Actions call services: as whoever is logged in, and only for those who may."""

import pytest
from django.test import Client

from artifacts_app.models import Build
from eventstore import head, load
from modules_app.models import Module
from rollout.domain.node.events import node_stream
from rollout.domain.rollout.events import rollout_stream
from rollout.models import Liveness, Node, Rollout
from rollout.services.nodes import decommission_node, drain_node
from rollout.services.rollouts import retry_rollout
from tests.integration.admin.conftest import messages, text
from tests.plugins.cast import PASSWORD

ACTIONS = [
    ("rollout/rollout", "abort"),
    ("rollout/rollout", "retry"),
    ("rollout/node", "drain"),
    ("rollout/node", "activate"),
    ("rollout/node", "forget"),
    ("rollout/node", "decommission"),
    ("modules_app/module", "delete_object"),
    ("artifacts_app/build", "delete_artifact"),
]


def key_of(fleet, model):
    return {
        "rollout/rollout": fleet.rollout,
        "rollout/node": "node-a",
        "modules_app/module": fleet.module,
        "artifacts_app/build": Build.objects.get().key,
    }[model]


def test_it_works(fleet, admin, press):
    response = press(admin, "rollout/rollout", "abort", fleet.rollout)
    assert messages(response) == [f"Abort requested for install greet 2 ({fleet.rollout}). No new operations start."]
    assert Rollout.objects.get().phase == "aborting"
    asked = [each for each in load(rollout_stream(fleet.rollout)) if each.type == "rollout.abort_requested.v1"]
    assert [each.actor for each in asked] == ["user:alice"]


@pytest.mark.parametrize(("model", "action"), ACTIONS)
def test_a_viewer_can_press_nothing(fleet, viewer, press, model, action):
    before = head()
    response = press(viewer, model, action, key_of(fleet, model))
    assert response.status_code == 200
    assert 'name="action"' not in text(response)
    assert head() == before


@pytest.mark.parametrize(("model", "action"), ACTIONS)
def test_a_form_from_elsewhere_is_refused(fleet, alice, model, action):
    browser = Client(enforce_csrf_checks=True)
    browser.login(username="alice", password=PASSWORD)
    before = head()
    form = {"action": action, "_selected_action": key_of(fleet, model), "_confirmed": "1"}
    assert browser.post(f"/admin/{model}/", form).status_code == 403
    assert head() == before


@pytest.mark.parametrize(("model", "action"), [each for each in ACTIONS if each[1] != "retry"])
def test_what_changes_much_is_confirmed(fleet, admin, press, model, action):
    before = head()
    response = press(admin, model, action, key_of(fleet, model), confirm=False)
    assert "Are you sure?" in text(response)
    assert f'value="{key_of(fleet, model)}"' in text(response)
    assert head() == before


def test_abort_of_what_has_ended_shows_the_error(fleet, admin, press):
    fleet.end()
    response = press(admin, "rollout/rollout", "abort", fleet.rollout)
    assert "has ended" in messages(response)[0]


def test_retry_in_the_same_rollout(fleet, admin, press):
    response = press(admin, "rollout/rollout", "retry", fleet.rollout)
    assert "are scheduled again." in messages(response)[0]
    assert Rollout.objects.get().failed == 0


def test_retry_of_what_has_ended_links_to_the_new_rollout(fleet, admin, press):
    fleet.end()
    response = press(admin, "rollout/rollout", "retry", fleet.rollout)
    retry = Rollout.objects.get(retry_of=fleet.rollout)
    assert f'<a href="/admin/rollout/rollout/{retry.uid}/change/">' in messages(response)[0]
    assert retry.actor == "alice"


def test_retry_without_a_failure_shows_the_error(fleet, admin, press):
    retry_rollout(fleet.rollout)
    response = press(admin, "rollout/rollout", "retry", fleet.rollout)
    assert "No node of this rollout has failed." in messages(response)[0]


def test_drain_and_activate(fleet, admin, press):
    press(admin, "rollout/node", "drain", "node-a", "node-c")
    assert list(Node.objects.filter(draining=True).values_list("name", flat=True)) == ["node-a", "node-c"]
    assert load(node_stream("node-a"))[-1].actor == "user:alice"
    press(admin, "rollout/node", "activate", "node-a")
    assert Node.objects.get(name="node-a").phase == "online"


def test_forget(fleet, admin, press):
    press(admin, "rollout/node", "forget", "node-a")
    assert Node.objects.get(name="node-a").phase == "offline"
    assert [(each.type, each.actor) for each in load(node_stream("node-a"))][-1] == ("node.forgotten.v1", "user:alice")


def test_a_wrong_clock_is_shown(fleet, admin):
    assert Liveness.objects.filter(node="node-a").update(clock_skew_seconds=-86_400.0) == 1
    for page in ("/admin/rollout/node/", "/admin/rollout/node/node-a/change/"):
        assert "clock is 86400 s behind. Set it." in text(admin.get(page, follow=True))


def test_decommission(fleet, admin, press):
    press(admin, "rollout/node", "decommission", "node-c")
    assert Node.objects.get(name="node-c").phase == "decommissioned"
    assert Rollout.objects.get().finished_at is not None
    response = press(admin, "rollout/node", "drain", "node-c")
    assert "node-c: " in messages(response)[0]


def test_the_object_of_a_loaded_module_stays(fleet, admin, press):
    response = press(admin, "modules_app/module", "delete_object", fleet.module)
    assert "have loaded greet 2 or will load it." in messages(response)[0]
    assert Module.objects.exists()


def test_delete_a_module_object(fleet, admin, press):
    for each in fleet.nodes:
        decommission_node(each)
    response = press(admin, "modules_app/module", "delete_object", fleet.module)
    assert messages(response) == ["Deleted the module object greet 2."]
    assert not Module.objects.exists()


def test_an_artifact_in_use_stays(fleet, admin, press):
    response = press(admin, "artifacts_app/build", "delete_artifact", Build.objects.get().key)
    assert "have greet 2 or will get it." in messages(response)[0]
    assert Build.objects.exists()


def test_delete_an_unused_artifact(fleet, admin, press):
    for each in fleet.nodes:
        decommission_node(each)
    response = press(admin, "artifacts_app/build", "delete_artifact", Build.objects.get().key)
    assert messages(response) == ["Deleted the artifact greet 2."]
    assert not Build.objects.exists()


def test_only_what_takes_something_away_has_a_red_button(fleet, admin, press):
    asked = {each: text(press(admin, "rollout/node", each, "node-a", confirm=False)) for each in ("drain", "revoke")}
    assert '<button class="action" type="submit">Yes, drain</button>' in asked["drain"]
    assert '<button class="action danger" type="submit">Yes, revoke</button>' in asked["revoke"]


def test_a_button_leads_back_to_its_page(fleet, admin):
    page = "/admin/rollout/node/node-a/change/"
    assert '<input type="hidden" name="action" value="drain">' in text(admin.get(page))
    form = {"action": "drain", "_selected_action": "node-a", "_from_page": "1", "_confirmed": "1"}
    assert admin.post("/admin/rollout/node/", form).url == page


def test_a_deleted_row_has_no_page_to_go_back_to(fleet, admin):
    for each in fleet.nodes:
        decommission_node(each)
    form = {
        "action": "delete_object",
        "_selected_action": fleet.module,
        "_from_page": "1",
        "_confirmed": "1",
    }
    assert admin.post("/admin/modules_app/module/", form).url == "/admin/modules_app/module/"


def test_only_what_makes_sense_is_offered(fleet, admin):
    drain_node("node-a")
    page = text(admin.get("/admin/rollout/node/node-a/change/"))
    assert 'name="action" value="activate"' in page
    assert 'name="action" value="drain"' not in page


def test_too_many_rows_at_a_time_are_refused(fleet, admin, press, monkeypatch):
    monkeypatch.setattr("accounts.admin.MOST_ROWS", 1)
    response = press(admin, "rollout/node", "drain", "node-a", "node-b")
    assert messages(response) == ["Select at most 1 rows at a time."]
    assert not Node.objects.filter(draining=True).exists()
