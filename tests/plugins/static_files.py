"""Static files are looked for when a test asks for one.

Every test client has middleware of its own, and WhiteNoise would list all static files for each: 20 ms a test.
"""

from collections.abc import Iterator

import pytest
from django.test import override_settings


@pytest.fixture(autouse=True, scope="session")
def _found_when_asked_for() -> Iterator[None]:
    with override_settings(WHITENOISE_AUTOREFRESH=True):
        yield
