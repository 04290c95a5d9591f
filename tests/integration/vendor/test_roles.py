"""Which role may call which endpoint: the vendor's table of permissions, and ours for the routes next to it."""

import pytest

from accounts.roles import Role
from eventstore import head
from tests.plugins.cast import basic, client_of
from tests.plugins.packages import ARTIFACTS, LOCAL

EVERYBODY = set(Role) - {Role.NONE}
ADMIN = {Role.ADMIN}
ENDPOINTS = [
    ("get", LOCAL, EVERYBODY),
    ("post", LOCAL, ADMIN),
    ("delete", f"{LOCAL}/greet/1", ADMIN),
    ("post", "/v2/modules/user-defined", ADMIN),
    ("delete", "/v2/modules/user-defined/1", ADMIN),
    ("get", "/v2/modules/user-defined", EVERYBODY),
    ("get", "/v2/modules/user-defined/1", EVERYBODY),
    ("get", ARTIFACTS, EVERYBODY),
    ("post", ARTIFACTS, ADMIN),
    ("get", f"{ARTIFACTS}/greet/1", EVERYBODY),
    ("delete", f"{ARTIFACTS}/greet/1", ADMIN),
    ("get", "/v1/modules", EVERYBODY),
    ("get", "/v1/modules/1", EVERYBODY),
    ("delete", "/v1/modules/1", ADMIN),
    ("post", "/v2/modules", ADMIN),
    ("delete", "/v2/modules/1", ADMIN),
    ("get", "/v1/actions", EVERYBODY),
    ("get", "/v1/actions/1", EVERYBODY),
    ("get", "/v1/nodes", EVERYBODY),
]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("method", "url", "allowed"), ENDPOINTS)
def test_a_role_at_an_endpoint(new_user, role, method, url, allowed):
    client = client_of(new_user("somebody", role))
    position = head()
    response = getattr(client, method)(url)
    assert (response.status_code != 403) == (role in allowed)
    if role not in allowed:
        assert response.json()["error_code"] == "permission_denied"
        assert head() == position


@pytest.mark.parametrize(("method", "url"), [each[:2] for each in ENDPOINTS])
def test_without_credentials(anyone, db, method, url):
    response = getattr(anyone, method)(url)
    assert (response.status_code, response.json()["error_code"]) == (401, "unauthenticated")
    assert response["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize(("method", "url"), [each[:2] for each in ENDPOINTS])
def test_with_wrong_credentials(anyone, alice, method, url):
    anyone.credentials(HTTP_AUTHORIZATION=basic("alice", "a wrong password"))
    response = getattr(anyone, method)(url)
    assert (response.status_code, response.json().keys()) == (401, {"error_code", "description"})
    assert response["Content-Length"] == str(len(response.content))
