"""DELETE /v1/users/{uid}"""

from accounts.events import UserDeleted, user_stream
from accounts.models import User
from accounts.roles import Role
from eventstore import load
from tests.plugins.cast import client_of


def test_it_works(alice, bob):
    response = client_of(alice).delete(f"/v1/users/{bob.uid}")
    assert (response.status_code, response.json()) == (200, {})
    assert not User.objects.filter(uid=bob.uid).exists()
    assert load(user_stream(bob.uid))[-1].event == UserDeleted(uid=bob.uid, role=Role.CLUSTER_VIEWER)
    assert client_of(bob).get("/v1/cluster").status_code == 401


def test_no_such_user(alice):
    response = client_of(alice).delete("/v1/users/99")
    assert (response.status_code, response.json()["error_code"]) == (404, "user_not_found")


def test_the_last_admin_stays(alice):
    response = client_of(alice).delete(f"/v1/users/{alice.uid}")
    assert (response.status_code, response.json()["error_code"]) == (406, "change_last_admin_role_not_allowed")
    assert User.objects.filter(uid=alice.uid).exists()
    assert len(load(user_stream(alice.uid))) == 1


def test_a_user_manager_may_not_delete_an_admin(alice, carol, new_user):
    other = new_user("olga", Role.ADMIN)
    assert client_of(carol).delete(f"/v1/users/{other.uid}").status_code == 403


def test_a_user_manager_may_delete_others(carol, alice, bob):
    assert client_of(carol).delete(f"/v1/users/{bob.uid}").status_code == 200


def test_a_viewer_may_not(bob):
    assert client_of(bob).delete(f"/v1/users/{bob.uid}").status_code == 403
