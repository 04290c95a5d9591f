import pytest

from tests.plugins.cast import client_of


@pytest.fixture
def admin(alice):
    return client_of(alice)
