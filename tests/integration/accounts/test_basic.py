"""HTTP Basic: RFC 7617, and what is remembered of it."""

import base64
import time

import pytest

from accounts import credentials, services
from accounts.credentials import RememberedCredentials, remembered, verified_user
from accounts.models import User
from accounts.roles import Role
from accounts.services import UserChanges
from tests.plugins.cast import PASSWORD, basic, client_of

URL = "/v1/cluster"


def test_it_works(bob):
    assert client_of(bob).get(URL).status_code == 200


def test_by_email_address(anyone, bob):
    assert anyone.get(URL, headers={"authorization": basic("Bob@Example.com")}).status_code == 200


def test_the_scheme_is_in_any_case(anyone, bob):
    header = basic("bob").replace("Basic", "bASIC")
    assert anyone.get(URL, headers={"authorization": header}).status_code == 200


def test_a_password_in_utf_8_with_a_colon(anyone, alice, bob):
    services.update_user(bob.uid, UserChanges(password="pässwörd:with:colons"), by=alice)
    header = basic("bob", "pässwörd:with:colons")
    assert anyone.get(URL, headers={"authorization": header}).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic YQ",
        "Basic é",
        "Basic " + base64.b64encode(b"no colon").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
        "Basic " + base64.b64encode(b"bob\0:x").decode(),
        "Basic " + base64.b64encode(b"bob:x\n").decode(),
        "Basic " + base64.b64encode(b":").decode(),
        "Digest username=bob",
        "Basic,",
    ],
)
def test_a_malformed_header(anyone, db, header):
    response = anyone.get(URL, headers={"authorization": header})
    assert response.status_code == 401
    assert response.json()["error_code"] == "unauthenticated"
    assert response["WWW-Authenticate"].startswith("Basic ")


def test_remembered_it_costs_one_row(bob, django_assert_num_queries):
    client = client_of(bob)
    client.get(URL)
    with django_assert_num_queries(2):  # the user, and the settings that are asked for
        client.get(URL)


def test_remembered_it_is_not_hashed(bob, monkeypatch):
    client = client_of(bob)
    client.get(URL)
    monkeypatch.setattr(credentials, "check_password", lambda *_: pytest.fail("hashed"))
    assert client.get(URL).status_code == 200


def test_a_wrong_password_is_never_remembered(bob, monkeypatch):
    assert verified_user("bob", "wrong", address="") is None
    assert remembered.get("bob", "wrong") is None


def test_a_new_password_counts_at_once(alice, bob):
    client = client_of(bob)
    client.get(URL)
    services.update_user(bob.uid, UserChanges(password="another horse 2"), by=alice)
    assert client.get(URL).status_code == 401


def test_a_lock_counts_at_once(alice, bob):
    client = client_of(bob)
    client.get(URL)
    services.update_user(bob.uid, UserChanges(active=False), by=alice)
    assert client.get(URL).status_code == 401


def test_a_former_name_is_not_remembered(alice, bob):
    client = client_of(bob)
    client.get(URL)
    services.update_user(bob.uid, UserChanges(name="robert"), by=alice)
    assert client.get(URL).status_code == 401


def test_after_a_change_of_role_the_password_is_good_again(alice, bob):
    client = client_of(bob)
    client.get(URL)
    services.update_user(bob.uid, UserChanges(role=Role.DB_VIEWER), by=alice)
    assert client.get(URL).status_code == 200


def test_it_is_forgotten_after_a_minute(bob, monkeypatch):
    verified_user("bob", PASSWORD, address="")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + credentials.REMEMBERED_SECONDS + 1)
    assert remembered.get("bob", PASSWORD) is None


def test_only_so_many_are_remembered():
    memory = RememberedCredentials(size=2)
    for login in ("a", "b", "c"):
        memory.put(login, "x", User(uid=1, credential_version=1))
    assert [memory.get(each, "x") is not None for each in "abc"] == [False, True, True]


def test_an_unknown_login_is_hashed_like_a_known_one(bob, monkeypatch):
    hashed: list[str] = []
    monkeypatch.setattr(credentials, "make_password", hashed.append)
    assert verified_user("nobody", "x", address="") is None
    assert hashed == ["x"]
