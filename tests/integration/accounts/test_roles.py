"""Which role may call which endpoint: the vendor's table."""

import pytest
from rest_framework.views import APIView

from accounts.permissions import RequiresPermission
from accounts.roles import ROLES_WITH, Permission, Role
from tests.plugins.cast import client_of

EVERYBODY = set(Role) - {Role.NONE}
MANAGERS = {Role.ADMIN, Role.USER_MANAGER}
ENDPOINTS = [
    ("get", "/v1/cluster", EVERYBODY),
    ("put", "/v1/cluster", {Role.ADMIN}),
    ("get", "/v1/users", MANAGERS),
    ("post", "/v1/users", MANAGERS),
    ("get", "/v1/users/99", MANAGERS),
    ("put", "/v1/users/99", MANAGERS),
    ("delete", "/v1/users/99", MANAGERS),
    ("post", "/v1/users/authorize", set(Role)),
]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("method", "url", "allowed"), ENDPOINTS)
def test_a_role_at_an_endpoint(new_user, role, method, url, allowed):
    response = getattr(client_of(new_user("somebody", role)), method)(url, {}, format="json")
    assert (response.status_code != 403) == (role in allowed)


def test_no_permission_is_forgotten():
    assert ROLES_WITH.keys() == set(Permission)


@pytest.mark.parametrize("permission", Permission)
def test_an_admin_may_do_all_and_nobody_without_a_role_anything(permission):
    assert Role.ADMIN in ROLES_WITH[permission]
    assert Role.NONE not in ROLES_WITH[permission]


def test_what_a_view_does_not_declare_is_refused(rf, alice):
    class Undeclared(APIView):
        def get(self): ...

    request = rf.get("/")
    request.user = alice
    assert not RequiresPermission().has_permission(request, Undeclared())
