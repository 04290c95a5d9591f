"""GET /v1/users"""

from tests.plugins.cast import client_of

URL = "/v1/users"


def test_it_works(alice, bob):
    response = client_of(alice).get(URL)
    assert response.status_code == 200
    assert [each["name"] for each in response.json()] == ["alice", "bob"]
    assert response.json()[1] == {
        "uid": bob.uid,
        "email": "bob@example.com",
        "name": "bob",
        "role": "cluster_viewer",
        "status": "active",
        "auth_method": "regular",
        "password_issue_date": bob.password_issued_at.isoformat().replace("+00:00", "Z"),
    }


def test_a_user_manager_may(carol):
    assert client_of(carol).get(URL).status_code == 200


def test_it_costs_the_same_for_any_number(alice, new_user, django_assert_num_queries):
    for name in ("x1", "x2", "x3"):
        new_user(name, "db_viewer")
    client = client_of(alice)
    client.get(URL)
    with django_assert_num_queries(2):
        client.get(URL)


def test_a_viewer_may_not(bob):
    response = client_of(bob).get(URL)
    assert response.status_code == 403
    assert response.json() == {
        "error_code": "permission_denied",
        "description": "This needs the permission view_all_users_info.",
    }


def test_anyone_may_not(anyone, db):
    assert anyone.get(URL).status_code == 401


def test_other_methods(alice):
    response = client_of(alice).delete(URL)
    assert response.status_code == 405
    assert response.json()["error_code"] == "method_not_allowed"
    assert "GET" in response["Allow"]


def test_no_trailing_slash(alice):
    response = client_of(alice).get(URL + "/")
    assert response.status_code == 404
    assert response.json()["error_code"] == "not_found"
