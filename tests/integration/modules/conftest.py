import pytest
from rest_framework.test import APIClient

from accounts.models import User
from tests.plugins.cast import client_of


@pytest.fixture
def admin(alice: User) -> APIClient:
    return client_of(alice)
