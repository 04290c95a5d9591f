"""The list of ignored replicas, and the form that ignores one."""

import html

import pytest

from eventstore import head
from rollout.models import IgnoredReplica
from tests.integration.admin.conftest import messages, text
from tests.integration.console.conftest import shown_text
from tests.integration.console.test_add_node import press

IGNORE = "/admin/nodes/ignore-replica"
LIST = "/admin/rollout/ignoredreplica/"
FORM = {"address": "10.0.0.9:6379", "reason": "A reporting server"}


def test_it_works(fleet, admin):
    assert f'href="{IGNORE}"' in text(admin.get(LIST))
    response = admin.post(IGNORE, FORM, follow=True)
    assert messages(response) == ["10.0.0.9:6379 is ignored."]
    assert "10.0.0.9:6379 A reporting server alice now" in shown_text(response)
    assert "No node of the fleet has this replica now." in text(admin.get(f"{LIST}10.0.0.9_3A6379/change/"))
    assert messages(press(admin, "unignore", "10.0.0.9:6379", LIST)) == ["10.0.0.9:6379 is not ignored any more."]
    assert not IgnoredReplica.objects.exists()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"address": ""}, "address: This field may not be blank."),
        ({"reason": " "}, "reason: This field may not be blank."),
        ({"reason": "r" * 1001}, "reason: Ensure this field has no more than 1000 characters."),
        ({"address": "10.0.0.9"}, "write HOST:PORT, such as 10.0.0.7:6379."),
        ({"address": "<script>alert(1)</script>"}, "write HOST:PORT"),
    ],
)
def test_what_is_wrong_is_said_and_the_form_is_kept(fleet, admin, changes, error):
    before = head()
    response = admin.post(IGNORE, {**FORM, **changes})
    assert response.status_code == 400
    assert error in html.unescape(shown_text(response))
    assert "<script>alert" not in text(response)
    assert head() == before


def test_a_viewer_reads_the_list_and_ignores_nothing(fleet, admin, viewer):
    admin.post(IGNORE, FORM)
    page = text(viewer.get(LIST))
    assert "A reporting server" in page
    assert IGNORE not in page
    assert viewer.get(IGNORE).status_code == 403
    assert viewer.post(IGNORE, {**FORM, "address": "10.0.0.8:1"}).status_code == 403
    assert (
        viewer.post(LIST, {"action": "unignore", "_selected_action": "10.0.0.9:6379", "_confirmed": "1"}).status_code
        < 500
    )
    assert IgnoredReplica.objects.count() == 1


def test_the_list_of_nodes_leads_there(fleet, viewer):
    assert f'href="{LIST}?"' in text(viewer.get("/admin/rollout/node/"))
