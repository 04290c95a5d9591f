"""POST /v1/users"""

import pytest

from accounts.models import User
from accounts.roles import Role
from tests.plugins.cast import PASSWORD, basic, client_of

URL = "/v1/users"
DAVE = {"email": "Dave@Example.com", "password": "correct horse 2", "name": "dave", "role": "db_viewer"}


def test_it_works(alice, anyone):
    response = client_of(alice).post(URL, DAVE, format="json")
    assert response.status_code == 200
    assert response.json()["name"] == "dave"
    assert response.json()["email"] == "dave@example.com"
    assert "password" not in response.json()
    assert anyone.get("/v1/cluster", headers={"authorization": basic("dave", "correct horse 2")}).status_code == 200


def test_without_a_name_the_email_address_is_it(alice):
    response = client_of(alice).post(URL, {k: v for k, v in DAVE.items() if k != "name"}, format="json")
    assert response.json()["name"] == "Dave@Example.com"


def test_what_clients_of_today_send_along(alice):
    extra = {"email_alerts": True, "bdbs_email_alerts": ["1"], "cluster_email_alerts": False, "auth_method": "regular"}
    assert client_of(alice).post(URL, DAVE | extra, format="json").status_code == 200


@pytest.mark.parametrize("field", ["email", "password", "role"])
def test_a_missing_field(alice, field):
    response = client_of(alice).post(URL, {k: v for k, v in DAVE.items() if k != field}, format="json")
    assert response.status_code == 400
    assert response.json() == {"error_code": "invalid_request", "description": f"{field}: This field is required."}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", 7),
        ("email", "no address"),
        ("email", ""),
        ("email", "x" * 250 + "@example.com"),
        ("password", 12345678),
        ("password", None),
        ("password", "x" * 300),
        ("role", "root"),
        ("role", 1),
        ("role", ["admin"]),
        ("name", "a:b"),
        ("name", 7),
        ("name", "a&b"),
        ("name", "naïve"),
        ("name", "a\nb"),
        ("name", " a"),
        ("name", "x" * 151),
        ("email_alerts", "yes"),
        ("auth_method", "certificate"),
        ("role_uids", [1]),
        ("uid", 5),
    ],
)
def test_a_value_that_cannot_be(alice, field, value):
    response = client_of(alice).post(URL, DAVE | {field: value}, format="json")
    assert response.status_code == 400
    assert response.json()["error_code"] == "invalid_request"
    assert response.json()["description"].startswith(f"{field}: ")


@pytest.mark.parametrize("password", ["short", "password", "12345678"])
def test_a_weak_password(alice, password):
    response = client_of(alice).post(URL, DAVE | {"password": password}, format="json")
    assert response.status_code == 400
    assert response.json()["error_code"] == "password_not_complex"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": "bob"}, "name_already_exists"),
        ({"name": "bob@example.com"}, "name_already_exists"),
        ({"email": "BOB@example.com"}, "email_already_exists"),
    ],
)
def test_a_name_or_address_that_is_taken(alice, bob, changes, code):
    response = client_of(alice).post(URL, DAVE | changes, format="json")
    assert response.status_code == 409
    assert response.json()["error_code"] == code
    assert User.objects.count() == 2


def test_a_user_manager_may_make_a_viewer_but_no_admin(carol):
    assert client_of(carol).post(URL, DAVE | {"role": "admin"}, format="json").status_code == 403
    assert client_of(carol).post(URL, DAVE, format="json").status_code == 200


def test_a_uid_is_never_used_twice(alice):
    client = client_of(alice)
    first = client.post(URL, DAVE, format="json").json()["uid"]
    client.delete(f"{URL}/{first}")
    assert client.post(URL, DAVE | {"name": "dave-2"}, format="json").json()["uid"] == first + 1


def test_uids_that_were_used_in_plenty_are_skipped(alice, new_user, monkeypatch):
    monkeypatch.setattr("accounts.services._UIDS_AT_A_TIME", 2)
    users = [new_user(f"x{number}", Role.DB_VIEWER) for number in range(5)]
    for each in users:
        client_of(alice).delete(f"{URL}/{each.uid}")
    assert new_user("last", Role.DB_VIEWER).uid == users[-1].uid + 1


def test_the_same_key_makes_one_user(alice):
    client, key = client_of(alice), {"Idempotency-Key": "k1"}
    first = client.post(URL, DAVE, format="json", headers=key)
    again = client.post(URL, DAVE, format="json", headers=key)
    assert (again.status_code, again.json()) == (200, first.json())
    assert again["Idempotency-Replayed"] == "true"


def test_anyone_may_not(anyone, db):
    assert anyone.post(URL, DAVE | {"password": PASSWORD}, format="json").status_code == 401
