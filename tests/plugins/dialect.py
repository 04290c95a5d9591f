"""Which tests run on both databases.

Every test runs on SQLite. Those that depend on the database's dialect (locks, raw SQL, conflicts, queries that the
databases plan or compare differently) have the marker `dialect`, and `make test-postgres` runs them again on PostgreSQL.
A test below one of the paths here gets it by itself. Elsewhere, write `@pytest.mark.dialect`, or
`pytestmark = pytest.mark.dialect` for a file.
"""

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
#: Folders and files below `tests/`, each with its reason.
BOTH_DATABASES = {
    "integration/eventstore": "the log: raw SQL, the append lock, triggers, notifications",
    "integration/rollout": "concurrent decisions, row locks, and the largest queries",
    "integration/webhooks": "deliveries are claimed by conditional updates",
    "integration/api/test_idempotency.py": "a unique key decides which of two requests is first",
    "integration/api/test_idempotency_at_once.py": "the same, with threads",
    "integration/api/test_pagination.py": "cursors compare text and times in SQL",
}


def pytest_itemcollected(item: pytest.Item) -> None:
    if any(item.path.is_relative_to(TESTS / each) for each in BOTH_DATABASES):
        item.add_marker(pytest.mark.dialect)
