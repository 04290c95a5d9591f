from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def stored(storage: Path) -> Path:
    """Every upload of these tests goes to a folder of the test's own."""
    return storage
