"""/v2/webhooks"""

import base64

import pytest
from django.test import Client

from accounts.roles import Role
from eventstore import head, load, read
from tests.plugins.cast import PASSWORD, client_of
from webhooks.events import WebhookChanged, WebhookDeleted, WebhookRegistered, webhook_stream
from webhooks.models import Webhook

URL = "/v2/webhooks"
THERE = "https://receiver.example.com:8443/t0ken"
HOST = "receiver.example.com:8443"
SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()


@pytest.fixture
def made(admin):
    return admin.post(URL, {"url": THERE, "types": ["node."]}, format="json").json()


def test_it_works(admin):
    response = admin.post(URL, {"url": THERE}, format="json")
    document = response.json()
    assert (response.status_code, response["Location"]) == (201, f"http://testserver{URL}/{document['uid']}")
    secret = document.pop("secret")
    assert secret.startswith("whsec_")
    assert admin.get(f"{URL}/{document['uid']}").json() == document
    assert document == {
        "uid": document["uid"],
        "url": THERE,
        "types": [],
        "enabled": True,
        "disabled_reason": None,
        "created_at": document["created_at"],
        "position": head(),
        "failures": 0,
        "last_error": None,
        "last_delivered_at": None,
        "next_attempt_at": None,
    }


def test_the_secret_is_shown_once(admin, made):
    asked = [admin.get(URL), admin.get(f"{URL}/{made['uid']}")]
    asked.append(admin.patch(f"{URL}/{made['uid']}", {"enabled": False, "secret": SECRET}, format="json"))
    assert [each.status_code for each in asked] == [200, 200, 200]
    assert all(b"whsec_" not in each.content and b'"secret"' not in each.content for each in asked)


def test_a_secret_of_ones_own(admin):
    document = admin.post(URL, {"url": THERE, "secret": SECRET}, format="json").json()
    assert document["secret"] == SECRET == Webhook.objects.get().secret


def test_the_same_key_registers_once_and_tells_the_secret_again(admin):
    first, again = (admin.post(URL, {"url": THERE}, format="json", headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert (again.status_code, again.json()) == (201, first.json())
    assert Webhook.objects.count() == 1


def test_the_list_has_pages_with_the_newest_first(admin):
    uids = [admin.post(URL, {"url": f"{THERE}/{number}"}, format="json").json()["uid"] for number in range(3)]
    page = admin.get(f"{URL}?limit=2").json()
    rest = admin.get(page["next"]).json()
    assert [each["uid"] for each in page["results"] + rest["results"]] == uids[::-1]
    assert rest["next"] is None


def test_a_list_takes_the_same_queries_however_long(admin, made, django_assert_max_num_queries):
    for number in range(5):
        admin.post(URL, {"url": f"{THERE}/{number}"}, format="json")
    with django_assert_max_num_queries(2):
        assert len(admin.get(URL).json()["results"]) == 6


def test_changes_are_recorded_without_the_address_and_the_secret(admin, made):
    uid = made["uid"]
    change = {"url": "http://10.0.0.7/other", "types": ["rollout."], "enabled": False, "secret": SECRET}
    assert admin.patch(f"{URL}/{uid}", change, format="json").json()["types"] == ["rollout."]
    assert admin.delete(f"{URL}/{uid}").json() == {}
    assert [(each.event, each.actor) for each in load(webhook_stream(uid))] == [
        (WebhookRegistered(uid=uid, host=HOST, types=("node.",), enabled=True), "user:alice"),
        (
            WebhookChanged(
                uid=uid,
                host="10.0.0.7",
                types=("rollout.",),
                enabled=False,
                changed=("url", "types", "enabled", "secret"),
            ),
            "user:alice",
        ),
        (WebhookDeleted(uid=uid, host="10.0.0.7"), "user:alice"),
    ]


def test_what_changes_nothing_is_no_event(admin, made):
    before = head()
    for change in ({}, {"url": THERE}, {"types": ["node."], "enabled": True}):
        assert admin.patch(f"{URL}/{made['uid']}", change, format="json").status_code == 200
    assert head() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", None),
        ("url", 7),
        ("url", ""),
        ("url", "receiver.example.com"),
        ("url", "ftp://receiver.example.com/"),
        ("url", "file:///etc/passwd"),
        ("url", "https://"),
        ("url", "https:///path"),
        ("url", "https://user:pw@receiver.example.com/"),
        ("url", "https://user@receiver.example.com/"),
        ("url", "https://@receiver.example.com/"),
        ("url", "https:\\\\receiver.example.com"),
        ("url", "http://receiver.example.com:99999/"),
        ("url", "http://receiver.example.com:0/"),
        ("url", "http://receiver.example.com:port/"),
        ("url", "http://[::1/"),
        ("url", "http://a b/"),
        ("url", " https://receiver.example.com/"),
        ("url", "https://receiver.example.com/\n"),
        ("url", "https://r\u00e9ceiver.example.com/"),
        ("url", "https://receiver.example.com/" + "x" * 2000),
        ("types", "node."),
        ("types", None),
        ("types.0", [7]),
        ("types.1", ["node.", "nod"]),
        ("types.0", ["nothing."]),
        ("types.0", ["node"]),
        ("types.0", [""]),
        ("types.0", ["."]),
        ("types", ["node."] * 101),
        ("enabled", "yes"),
        ("enabled", 1),
        ("secret", "correct horse"),
        ("secret", "whsec_" + base64.b64encode(bytes(23)).decode()),
        ("secret", "whsec_" + base64.b64encode(bytes(65)).decode()),
        ("uid", "x"),
        ("position", 0),
    ],
)
def test_a_value_that_cannot_be(admin, made, field, value):
    bad = {field.partition(".")[0]: value}
    for response in (
        admin.post(URL, {"url": THERE} | bad, format="json"),
        admin.patch(f"{URL}/{made['uid']}", bad, format="json"),
    ):
        assert (response.status_code, response.json()["error_code"]) == (400, "invalid_request")
        assert response.json()["description"].startswith(f"{field}: ")
    assert Webhook.objects.count() == 1


def test_without_a_url(admin):
    response = admin.post(URL, {}, format="json")
    assert response.json() == {"error_code": "invalid_request", "description": "url: This field is required."}


def test_a_test_answers_the_event(admin, made):
    response = admin.post(f"{URL}/{made['uid']}/test")
    assert response.status_code == 202
    assert response.json()["type"] == "webhook.test_requested.v1"
    assert response.json()["position"] == head()


def test_a_disabled_webhook_is_not_tested(admin, made):
    admin.patch(f"{URL}/{made['uid']}", {"enabled": False}, format="json")
    response = admin.post(f"{URL}/{made['uid']}/test")
    assert (response.status_code, response.json()["error_code"]) == (409, "webhook_disabled")


def test_what_does_not_exist(admin):
    asked = [admin.get(f"{URL}/x"), admin.patch(f"{URL}/x", {}, format="json"), admin.delete(f"{URL}/x")]
    asked.append(admin.post(f"{URL}/x/test"))
    assert {(each.status_code, each.json()["error_code"]) for each in asked} == {(404, "webhook_not_found")}


@pytest.mark.parametrize("role", [each for each in Role if each != Role.ADMIN])
def test_only_admins_look_and_change(made, new_user, role):
    client, one = client_of(new_user("walter", role)), f"{URL}/{made['uid']}"
    asked = [client.get(URL), client.post(URL, {"url": THERE}, format="json"), client.get(one)]
    asked += [client.patch(one, {}, format="json"), client.delete(one), client.post(f"{one}/test")]
    assert {each.status_code for each in asked} == {403}


def test_anyone_may_not(anyone, made):
    assert {anyone.get(URL).status_code, anyone.post(f"{URL}/{made['uid']}/test").status_code} == {401}


def test_no_event_holds_the_secret_or_the_path(admin, made):
    admin.post(f"{URL}/{made['uid']}/test")
    said = str([each.event for each in read()])
    assert HOST in said
    assert "t0ken" not in said
    assert made["secret"] not in said


def signed_in(user) -> Client:
    client = Client()
    assert client.login(username=user.username, password=PASSWORD)
    return client


def test_the_admin_site_shows_all_but_the_secret(alice, made):
    browser = signed_in(alice)
    pages = [browser.get("/admin/webhooks/webhook/"), browser.get(f"/admin/webhooks/webhook/{made['uid']}/change/")]
    assert [each.status_code for each in pages] == [200, 200]
    assert all(HOST.encode() in each.content for each in pages)
    assert all(made["secret"].encode() not in each.content for each in pages)
    assert browser.post("/admin/webhooks/webhook/add/").status_code == 403


def test_the_admin_site_shows_them_to_admins_only(bob, made):
    browser = signed_in(bob)
    assert browser.get("/admin/webhooks/webhook/").status_code == 403
    assert browser.get(f"/admin/webhooks/webhook/{made['uid']}/change/").status_code == 403
    assert b"Webhooks" not in browser.get("/admin/").content
