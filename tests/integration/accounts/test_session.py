"""The session of the admin site at the API."""

from rest_framework.test import APIClient

from accounts.events import CLUSTER_STREAM
from eventstore import load
from tests.plugins.cast import PASSWORD

URL = "/v1/cluster"


def signed_in() -> APIClient:
    client = APIClient(enforce_csrf_checks=True)
    client.login(username="alice", password=PASSWORD)
    client.get("/admin/password_change/")  # a page with a form, which sets the cookie
    return client


def test_it_works(alice):
    assert signed_in().get(URL).status_code == 200


def test_a_change_needs_the_token_in_the_header(alice):
    client = signed_in()
    assert client.put(URL, {"name": "x"}, format="json").status_code == 403
    token = {"X-CSRFToken": client.cookies["csrftoken"].value}
    assert client.put(URL, {"name": "x"}, format="json", headers=token).status_code == 200
    assert load(CLUSTER_STREAM)[0].actor == "user:alice"


def test_looking_for_the_token_does_not_read_the_body(alice):
    client = signed_in()
    form = {"csrfmiddlewaretoken": client.cookies["csrftoken"].value}
    response = client.post("/v1/users", form, format="multipart")
    assert (response.status_code, response.json()["error_code"]) == (403, "permission_denied")
    token = {"X-CSRFToken": client.cookies["csrftoken"].value}
    assert client.post("/v1/users", form, format="multipart", headers=token).status_code == 415
