"""A node's page: what it has, since when, by which rollout and whom; its labels."""

import pytest

from eventstore import head
from rollout.models import Node
from tests.integration.admin.conftest import messages, text
from tests.integration.console.conftest import shown_text

PAGE = "/admin/rollout/node/node-a/change/"
LABELS = "/admin/nodes/node-a/labels"


def test_it_works(fleet, viewer):
    page = shown_text(viewer.get(PAGE))
    assert f"greet 2 in sync load load {fleet_digest(fleet)}" in page
    assert f"now {fleet.rollout[:8]} olivia" in page or f"ago {fleet.rollout[:8]} olivia" in page
    assert "node.joined.v1" in page


def fleet_digest(fleet):
    from artifacts_app.models import Build

    return Build.objects.get().content_sha256[:12]


def test_labels_are_set_whole(fleet, admin):
    response = admin.post(LABELS, {"labels": "zone=eu\r\n\r\nrack = 7 "}, follow=True)
    assert response.redirect_chain[0][0] == PAGE
    assert Node.objects.get(name="node-a").labels == {"zone": "eu", "rack": "7"}
    assert "rack=7" in text(response)


@pytest.mark.parametrize("labels", ["no sign", "=empty name", "n" * 129 + "=x"])
def test_labels_that_are_none_are_refused(fleet, admin, labels):
    before = head()
    response = admin.post(LABELS, {"labels": labels}, follow=True)
    assert messages(response)
    assert head() == before


def test_what_is_wrong_with_a_label_is_said(fleet, admin):
    response = admin.post(LABELS, {"labels": f"zone={'x' * 257}\nrack=7"}, follow=True)
    assert messages(response) == ["zone: Ensure this field has no more than 256 characters."]


def test_a_viewer_sees_no_form_and_sets_nothing(fleet, viewer):
    before = head()
    assert "labels-title" not in text(viewer.get(PAGE))
    assert viewer.post(LABELS, {"labels": "zone=eu"}).status_code == 403
    assert head() == before


def test_labels_of_a_node_that_is_not_there(fleet, admin):
    response = admin.post("/admin/nodes/nobody/labels", {"labels": "zone=eu"}, follow=True)
    assert response.status_code == 200
    assert any("node" in each for each in messages(response))


ADDRESS = "/admin/nodes/node-a/address"


def test_the_address_is_set_and_removed(fleet, admin):
    response = admin.post(ADDRESS, {"address": " 10.0.0.7:6379 "}, follow=True)
    assert messages(response) == ["Saved the address of node-a."]
    assert 'value="10.0.0.7:6379"' in text(response)
    assert Node.objects.get(name="node-a").address == "10.0.0.7:6379"
    admin.post(ADDRESS, {"address": ""})
    assert Node.objects.get(name="node-a").address == ""


@pytest.mark.parametrize("address", ["10.0.0.7", "10.0.0.7:0", "<script>:1", "h" * 300 + ":1"])
def test_an_address_that_is_none_is_refused(fleet, admin, address):
    before = head()
    response = admin.post(ADDRESS, {"address": address}, follow=True)
    assert messages(response)
    assert "<script>:1" not in text(response)
    assert head() == before


def test_a_viewer_sets_no_address(fleet, viewer):
    assert viewer.post(ADDRESS, {"address": "10.0.0.7:6379"}).status_code == 403
