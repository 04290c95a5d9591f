"""PUT /v1/users/{uid}"""

import pytest

from accounts.events import UserUpdated, user_stream
from accounts.roles import Role
from eventstore import load
from tests.plugins.cast import PASSWORD, basic, client_of


def put(caller, user, body):
    return client_of(caller).put(f"/v1/users/{user.uid}", body, format="json")


def test_it_works(alice, bob):
    response = put(alice, bob, {"name": "robert", "role": "db_member", "email_alerts": False})
    assert response.status_code == 200
    assert (response.json()["name"], response.json()["role"]) == ("robert", "db_member")
    recorded = load(user_stream(bob.uid))[-1]
    assert recorded.event == UserUpdated(
        uid=bob.uid, role=Role.DB_MEMBER, changed=("name", "role"), name="robert", former_name="bob"
    )
    assert recorded.actor == "user:alice"


def test_twice_is_one_event(alice, bob):
    for _ in range(2):
        put(alice, bob, {"role": "db_member", "email": "bob@example.com"})
    assert len(load(user_stream(bob.uid))) == 2


def test_nothing_to_change(alice, bob):
    assert put(alice, bob, {}).status_code == 200
    assert len(load(user_stream(bob.uid))) == 1


def test_the_own_password(bob, anyone):
    response = put(bob, bob, {"password": "another horse 2"})
    assert response.status_code == 200
    assert response.json()["password_issue_date"] > bob.password_issued_at.isoformat()
    for password, status in ((PASSWORD, 401), ("another horse 2", 200)):
        assert anyone.get("/v1/cluster", headers={"authorization": basic("bob", password)}).status_code == status


@pytest.mark.parametrize("body", [{"role": "admin"}, {"name": "x"}, {"email": "x@example.com"}, {"status": "active"}])
def test_nothing_else_of_the_own_account(bob, body):
    response = put(bob, bob, body)
    assert (response.status_code, response.json()["error_code"]) == (403, "permission_denied")


def test_not_the_password_of_another(bob, alice):
    assert put(bob, alice, {"password": "another horse 2"}).status_code == 403


def test_a_viewer_is_not_told_who_exists(bob):
    assert client_of(bob).put("/v1/users/99", {"password": "another horse 2"}, format="json").status_code == 403


@pytest.mark.parametrize(
    "body", [{"password": "another horse 2"}, {"role": "none"}, {"email": "x@example.com"}, {"status": "locked"}]
)
def test_a_user_manager_may_not_touch_an_admin(carol, alice, body):
    response = put(carol, alice, body)
    assert (response.status_code, response.json()["error_code"]) == (403, "permission_denied")


def test_a_user_manager_may_not_make_itself_an_admin(carol):
    assert put(carol, carol, {"role": "admin"}).status_code == 403


def test_a_user_manager_may_change_others(carol, bob):
    assert put(carol, bob, {"role": "db_viewer"}).status_code == 200


@pytest.mark.parametrize("body", [{"role": "db_viewer"}, {"status": "locked"}])
def test_the_last_admin_stays(alice, body):
    response = put(alice, alice, body)
    assert (response.status_code, response.json()["error_code"]) == (406, "change_last_admin_role_not_allowed")
    assert len(load(user_stream(alice.uid))) == 1


def test_one_of_two_admins_may_go(alice, new_user):
    other = new_user("olga", Role.ADMIN)
    assert put(other, alice, {"role": "db_viewer"}).status_code == 200


def test_an_admin_who_cannot_sign_in_does_not_count(alice, new_user):
    other = new_user("olga", Role.ADMIN)
    put(alice, other, {"status": "locked"})
    assert put(alice, alice, {"role": "db_viewer"}).status_code == 406


def test_locked_and_active_again(alice, bob):
    assert put(alice, bob, {"status": "locked"}).json()["status"] == "locked"
    assert client_of(bob).get("/v1/cluster").status_code == 401
    assert put(alice, bob, {"status": "active"}).json()["status"] == "active"
    assert client_of(bob).get("/v1/cluster").status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"password": PASSWORD}, 400, "new_password_same_as_current"),
        ({"password": "short"}, 400, "password_not_complex"),
        ({"email": "alice@example.com"}, 409, "email_already_exists"),
        ({"name": "alice"}, 409, "name_already_exists"),
        ({"role": "root"}, 400, "invalid_request"),
        ({"credential_version": 7}, 400, "invalid_request"),
        ({"name": None}, 400, "invalid_request"),
    ],
)
def test_refusals(alice, bob, body, status, code):
    response = put(alice, bob, body)
    assert (response.status_code, response.json()["error_code"]) == (status, code)


def test_no_such_user(alice):
    response = client_of(alice).put("/v1/users/99", {"role": "none"}, format="json")
    assert (response.status_code, response.json()["error_code"]) == (404, "user_not_found")
