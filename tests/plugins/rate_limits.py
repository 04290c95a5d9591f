"""No test is kept waiting for what the tests before it did."""

import pytest

from accounts import failed_logins, throttles
from rollout.api.views import enrolment


@pytest.fixture(autouse=True)
def _counted_anew() -> None:
    for limit in (
        failed_logins.of_user,
        failed_logins.of_address,
        throttles.requests,
        throttles.uploads,
        enrolment.refused,
    ):
        limit.clear()
