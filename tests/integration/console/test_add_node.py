"""The page that adds a node, the list of join tokens, and the buttons for a node's identity."""

import html
import re

import pytest

from eventstore import head
from rollout.models import JoinToken, Node
from rollout.queries.join_tokens import token_text
from rollout.services.enrolment import create_join_token
from tests.hosts import Host
from tests.integration.admin.conftest import messages, text
from tests.integration.console.conftest import shown_text

ADD = "/admin/nodes/add"
TOKENS = "/admin/rollout/jointoken/"
NODES = "/admin/rollout/node/"
FORM = {"name": "web-1", "uses": "1", "labels": "", "expires": "3600"}


def command_in(response):
    (command,) = re.findall(r'<pre id="command"[^>]*>(.*?)</pre>', text(response))
    return html.unescape(re.sub("<[^>]+>", "", command))


def pending(name="cache-1"):
    host = Host(name=name)
    host.join(create_join_token(pattern="cache-*", labels={}, expires_in_seconds=60))
    return host


def press(client, action, pk, page=NODES):
    """Press the button, and confirm what the question shows."""
    form = {"action": action, "_selected_action": pk, "_from_page": "1"}
    shown = dict(re.findall(r'name="(_shown_[^"]+)" value="([^"]+)"', text(client.post(page, form))))
    return client.post(page, {**form, **shown, "_confirmed": "1"}, follow=True)


def test_it_works(fleet, admin):
    assert "Create the command" in text(admin.get(ADD))
    response = admin.post(ADD, {**FORM, "labels": "zone = a", "observe": "on"})
    row = JoinToken.objects.get()
    assert (row.node, row.uses, row.labels, row.observe) == ("web-1", 1, {"zone": "a"}, True)
    assert token_text(row.id) in command_in(response)
    assert command_in(response).endswith(" --name web-1 --observe")
    assert "no-store" in response["Cache-Control"]
    assert "on the host of web-1" in shown_text(response)


def test_a_pattern_is_for_a_group(fleet, admin):
    response = admin.post(ADD, {**FORM, "name": "cache-*", "uses": "20", "expires": "86400"})
    row = JoinToken.objects.get()
    assert (row.pattern, row.uses, row.auto_accept) == ("cache-*", 20, False)
    assert "Then accept each node" in shown_text(response)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": ""}, "Name: This field may not be blank."),
        ({"name": "a b"}, "Name: Must be 1 to 128 ASCII letters"),
        ({"name": "*"}, "pattern: must have a *, a letter or digit"),
        ({"name": "a*", "uses": "many"}, "Number of nodes: Must be an integer."),
        ({"name": "a*", "uses": "0"}, "Number of nodes: Ensure this value is greater than or equal to 1."),
        ({"expires": ""}, "Expires: Must be an integer."),
        ({"labels": "zone"}, "Labels: write each label as name=value: zone"),
        ({"name": "<script>alert(1)</script>"}, "Name: Must be 1 to 128 ASCII letters"),
    ],
)
def test_what_is_wrong_is_said_and_the_form_is_kept(fleet, admin, changes, error):
    before = head()
    response = admin.post(ADD, {**FORM, **changes})
    assert response.status_code == 400
    assert error in html.unescape(shown_text(response))
    assert "<script>alert" not in text(response)
    assert head() == before


def test_a_name_that_is_in_use_is_noted(fleet, admin):
    Host(name="web-1").join(create_join_token(node="web-1", labels={}, expires_in_seconds=60))
    assert "The fleet has the node web-1 already." in shown_text(admin.post(ADD, FORM))


def test_the_list_of_tokens_shows_no_secret_and_revokes(fleet, admin):
    token = create_join_token(pattern="cache-*", uses=3, labels={}, expires_in_seconds=60)
    listed = shown_text(admin.get(TOKENS))
    assert "cache-* open 0 of 3" in listed
    assert token_text(token).split(".")[2] not in text(admin.get(f"{TOKENS}{token}/change/"))
    response = press(admin, "revoke", token, TOKENS)
    assert messages(response) == ["The token for cache-* is revoked."]
    assert "cache-* revoked" in shown_text(admin.get(TOKENS))


def test_a_pending_node_is_first_and_a_person_accepts_it(fleet, admin):
    host = Host(name="zz")  # the last by name
    host.join(create_join_token(pattern="z*", labels={}, expires_in_seconds=60))
    page = shown_text(admin.get(NODES))
    assert page.index("zz pending") < page.index("node-a")
    assert "zz pending It waits for a person to accept it: modfleet nodes accept zz" in page
    shown = text(admin.get(f"{NODES}zz/change/"))
    assert "badge-in_sync" not in shown  # nothing is known of its modules
    assert 'value="accept"' in shown
    assert 'value="drain"' not in shown
    assert messages(press(admin, "accept", "zz")) == ["zz is accepted."]
    assert Node.objects.get(name="zz").identity == "signed"


def test_a_person_accepts_the_key_that_the_question_has_shown(fleet, admin):
    """Another host with the same token may take the name while a person compares the keys."""
    token = create_join_token(pattern="z*", uses=2, labels={}, expires_in_seconds=60)
    Host(name="zz").join(token)
    asked = text(admin.post(NODES, {"action": "accept", "_selected_action": "zz"}))
    assert '<button class="action" type="submit">Yes, accept</button>' in asked
    shown = re.search(r'name="_shown_zz" value="([0-9a-f]{16})"', asked)
    assert shown
    assert f"<code>{shown[1]}</code>" in asked
    Host(name="zz").join(token)
    form = {"action": "accept", "_selected_action": "zz", "_confirmed": "1", "_shown_zz": shown[1]}
    assert "key" in messages(admin.post(NODES, form, follow=True))[0]
    assert Node.objects.get(name="zz").identity == "pending"


def test_a_key_is_replaced_and_an_identity_revoked(fleet, admin):
    pending()
    press(admin, "accept", "cache-1")
    assert messages(press(admin, "rekey", "cache-1")) == ["cache-1 is asked to replace its key."]
    assert messages(press(admin, "revoke", "cache-1")) == ["cache-1 is revoked."]
    shown = text(admin.get(f"{NODES}cache-1/change/"))
    assert 'value="revoke"' not in shown
    assert "Its identity was revoked." in shown


def test_the_page_shows_the_key_to_compare(fleet, admin):
    host = pending()
    assert f"Key {host.sign('enrol', {}).key}" in shown_text(admin.get(f"{NODES}cache-1/change/"))


def test_a_viewer_sees_neither_form_nor_tokens(fleet, viewer):
    assert viewer.get(ADD).status_code == 403
    assert viewer.post(ADD, FORM).status_code == 403
    assert viewer.get(TOKENS).status_code == 403
    assert ADD not in text(viewer.get("/admin/"))
    assert JoinToken.objects.count() == 0


def test_the_navigation_leads_there(fleet, admin):
    assert f'href="{ADD}"' in text(admin.get("/admin/"))
