"""POST /v1/users/authorize"""

import pytest
from rest_framework.test import APIClient

from accounts.models import User
from tests.plugins.cast import PASSWORD, basic, client_of

URL = "/v1/users/authorize"


def status_with(token: str) -> int:
    return APIClient().get("/v1/cluster", headers={"authorization": f"JWT {token}"}).status_code


def test_it_works(bob):
    response = client_of(bob).post(URL)
    assert response.status_code == 200
    assert list(response.json()) == ["access_token"]
    assert status_with(response.json()["access_token"]) == 200


def test_credentials_in_the_body(anyone, bob):
    response = anyone.post(URL, {"username": "bob", "password": PASSWORD, "ttl": 60}, format="json")
    assert status_with(response.json()["access_token"]) == 200


def test_an_email_address_logs_in_too(anyone, bob):
    response = anyone.post(URL, {"username": "BOB@example.com", "password": PASSWORD}, format="json")
    assert response.status_code == 200


def test_no_credentials(anyone, db):
    response = anyone.post(URL)
    assert response.status_code == 401
    assert response.json()["error_code"] == "unauthenticated"
    assert response["WWW-Authenticate"] == 'Basic realm="modfleet", charset="UTF-8"'


@pytest.mark.parametrize(("login", "password"), [("bob", "wrong"), ("nobody", PASSWORD), ("", ""), ("bob\0", "x")])
def test_wrong_credentials(anyone, bob, login, password):
    assert anyone.post(URL, headers={"authorization": basic(login, password)}).status_code == 401


def test_wrong_credentials_in_the_body(anyone, bob):
    assert anyone.post(URL, {"username": "bob", "password": "wrong"}, format="json").status_code == 401


def test_a_locked_account(bob):
    User.objects.update(is_active=False)
    assert client_of(bob).post(URL).status_code == 401


@pytest.mark.parametrize("ttl", [0, 86_401, -1, "300", 1.5, True, None, []])
def test_ttl_that_is_none(bob, ttl):
    response = client_of(bob).post(URL, {"ttl": ttl}, format="json")
    assert response.status_code == 400
    assert response.json()["description"].startswith("ttl: ")


@pytest.mark.parametrize(("body", "named"), [({"username": "bob"}, "password"), ({"password": "x"}, "username")])
def test_half_of_the_credentials(anyone, db, body, named):
    response = anyone.post(URL, body, format="json")
    assert response.status_code == 400
    assert response.json()["description"].startswith(f"{named}: ")


def test_an_unknown_field(bob):
    response = client_of(bob).post(URL, {"tll": 5}, format="json")
    assert response.json() == {"error_code": "invalid_request", "description": "tll: This field is unknown."}


@pytest.mark.parametrize("body", [b"[]", b"7", b'"x"', b"null"])
def test_a_body_that_is_no_object(bob, body):
    assert client_of(bob).post(URL, body, content_type="application/json").status_code == 400
