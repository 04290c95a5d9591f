"""GET /v1/users/{uid}"""

import pytest

from tests.plugins.cast import client_of


def test_it_works(alice, bob):
    response = client_of(alice).get(f"/v1/users/{bob.uid}")
    assert response.status_code == 200
    assert response.json()["email"] == "bob@example.com"
    assert "password" not in response.json()


@pytest.mark.parametrize(("uid", "code"), [("99", "user_not_found"), ("9" * 30, "user_not_found"), ("x", "not_found")])
def test_no_such_user(alice, uid, code):
    response = client_of(alice).get(f"/v1/users/{uid}")
    assert (response.status_code, response.json()["error_code"]) == (404, code)


def test_a_uid_of_thousands_of_digits(alice):
    assert client_of(alice).get(f"/v1/users/{'9' * 5000}").status_code == 404


def test_a_viewer_may_not(bob):
    assert client_of(bob).get(f"/v1/users/{bob.uid}").status_code == 403


def test_head(alice):
    response = client_of(alice).head(f"/v1/users/{alice.uid}")
    assert (response.status_code, response.content) == (200, b"")
    assert int(response["Content-Length"]) > 0
