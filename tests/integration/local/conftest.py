from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pytest_django import Settings


@pytest.fixture(autouse=True)
def stored(storage: Path) -> Path:
    """Every upload of these tests goes to a folder of the test's own."""
    return storage


@pytest.fixture
def named(settings: Settings) -> Callable[[str], None]:
    """Sets NODE_NAME."""

    def set_name(name: str) -> None:
        settings.ENVIRONMENT = replace(settings.ENVIRONMENT, node_name=name)

    return set_name
