from dataclasses import replace

import pytest

from tests.plugins.cast import client_of


@pytest.fixture
def admin(alice):
    return client_of(alice)


@pytest.fixture(autouse=True)
def stored(storage):
    """Every upload of these tests goes to a folder of the test's own."""
    return storage


@pytest.fixture
def named(settings):
    """Sets NODE_NAME."""

    def set_name(name):
        settings.ENVIRONMENT = replace(settings.ENVIRONMENT, node_name=name)

    return set_name
