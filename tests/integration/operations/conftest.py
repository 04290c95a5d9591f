"""A broker of the test's own, and the words of a scrape."""

from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rest_framework.test import APIClient

from accounts.models import User
from tests.integration.rollout.conftest import broker, carried_by, dead_broker, waits  # noqa: F401  # fixtures
from tests.plugins.cast import client_of


@pytest.fixture
def viewer(bob: User) -> APIClient:
    return client_of(bob)


@pytest.fixture
def scrape(viewer: APIClient) -> Callable[..., dict[tuple[str, ...], float]]:
    """All samples by name and labels, as `(name, *values of the labels)`."""

    def ask(client: APIClient = viewer) -> dict[tuple[str, ...], float]:
        response = client.get("/metrics")
        assert response.status_code == 200, response.content
        return {
            (each.name, *each.labels.values()): each.value
            for family in text_string_to_metric_families(response.content.decode())
            for each in family.samples
        }

    return ask
