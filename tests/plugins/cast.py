"""The people of the tests, and clients that speak for them.

alice is an admin, bob may look at everything, carol manages users, mallory has no role at all.
"""

import base64
from collections.abc import Callable, Iterator

import pytest
from django.test import override_settings
from rest_framework.test import APIClient

from accounts import services
from accounts.credentials import remembered
from accounts.models import User
from accounts.roles import Role

PASSWORD = "correct horse 1"


def basic(login: str, password: str = PASSWORD) -> str:
    """An Authorization header's value."""
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()


def client_of(user: User) -> APIClient:
    """A client that sends the user's Basic credentials."""
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=basic(user.username))
    return client


@pytest.fixture
def anyone() -> APIClient:
    """A client without credentials."""
    return APIClient()


@pytest.fixture
def new_user(db: None) -> Iterator[Callable[[str, Role], User]]:
    """Makes an account; its password is `PASSWORD`, hashed fast."""
    remembered.clear()
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield lambda name, role: services.create_user(
            name=name, email=f"{name}@example.com", password=PASSWORD, role=role, by=None
        )
    remembered.clear()


@pytest.fixture
def alice(new_user: Callable[[str, Role], User]) -> User:
    return new_user("alice", Role.ADMIN)


@pytest.fixture
def admin(alice: User) -> APIClient:
    """alice's client."""
    return client_of(alice)


@pytest.fixture
def bob(new_user: Callable[[str, Role], User]) -> User:
    return new_user("bob", Role.CLUSTER_VIEWER)


@pytest.fixture
def carol(new_user: Callable[[str, Role], User]) -> User:
    return new_user("carol", Role.USER_MANAGER)


@pytest.fixture
def mallory(new_user: Callable[[str, Role], User]) -> User:
    return new_user("mallory", Role.NONE)
