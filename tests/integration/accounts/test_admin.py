"""Users in the admin site."""

import pytest
from django.test import Client

from accounts.events import user_stream
from eventstore import load
from tests.plugins.cast import PASSWORD


def signed_in(user) -> Client:
    client = Client(enforce_csrf_checks=False)
    assert client.login(username=user.username, password=PASSWORD)
    return client


def test_it_works(alice, bob):
    response = signed_in(alice).get("/admin/accounts/user/")
    assert response.status_code == 200
    assert b"bob@example.com" in response.content


def test_a_password_hash_is_not_shown(alice):
    response = signed_in(alice).get(f"/admin/accounts/user/{alice.uid}/change/")
    assert response.status_code == 200
    assert alice.password.encode() not in response.content


def test_login_by_email_address(alice):
    assert Client().login(username="Alice@example.com", password=PASSWORD)


def test_a_viewer_may_not_look_at_accounts(bob):
    assert signed_in(bob).get("/admin/").status_code == 200
    assert signed_in(bob).get("/admin/accounts/user/").status_code == 403


def test_nobody_without_a_role_gets_in(mallory):
    assert signed_in(mallory).get("/admin/").status_code == 302


@pytest.mark.parametrize("path", ["user/add/", "user/1/delete/", "clustersettings/add/"])
def test_nothing_is_changed_by_hand(alice, path):
    assert signed_in(alice).post(f"/admin/accounts/{path}").status_code == 403


def test_the_own_password_goes_through_the_service(alice):
    client = signed_in(alice)
    form = {"old_password": PASSWORD, "new_password1": "another horse 2", "new_password2": "another horse 2"}
    assert client.post("/admin/password_change/", form).status_code == 302
    recorded = load(user_stream(alice.uid))[-1]
    assert (recorded.event.changed, recorded.actor) == (("password",), "user:alice")
    assert client.get("/admin/").status_code == 200


def test_a_new_password_ends_other_sessions(alice):
    ours, other = signed_in(alice), signed_in(alice)
    form = {"old_password": PASSWORD, "new_password1": "another horse 2", "new_password2": "another horse 2"}
    ours.post("/admin/password_change/", form)
    assert other.get("/admin/").status_code == 302


def test_the_own_password_may_not_stay_the_same(alice):
    form = {"old_password": PASSWORD, "new_password1": PASSWORD, "new_password2": PASSWORD}
    response = signed_in(alice).post("/admin/password_change/", form)
    assert response.status_code == 200
    assert b"current one" in response.content


def test_errors_are_pages(alice):
    response = signed_in(alice).get("/admin/nothing/")
    assert response.status_code == 404
    assert response["Content-Type"].startswith("text/html")
