"""Which tests run on both databases.

Every test runs on SQLite. Those that depend on the database's dialect (locks, raw SQL, conflicts, queries that the
databases plan, compare or refuse differently) have the marker `dialect`, and `make test-postgres` runs them again on
PostgreSQL. A test below one of the paths here gets it by itself. Elsewhere, write `@pytest.mark.dialect`, or
`pytestmark = pytest.mark.dialect` for a file.

`--guard-dialect` fails the run if code that differs between databases has sent nothing to this one. A module is enough:
one query of it shows that its tests are marked.
"""

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from django.db.backends.signals import connection_created

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
#: Folders and files below `tests/`, each with its reason.
BOTH_DATABASES = {
    "integration/eventstore": "the log: raw SQL, the append lock, triggers, notifications",
    "integration/rollout": "concurrent decisions, row locks, and the largest queries",
    "integration/webhooks": "deliveries are claimed by conditional updates",
    "integration/accounts/test_at_once.py": "the last admin stays, whichever of two requests is first",
    "integration/accounts/test_create_user.py": "addresses are compared without case",
    "integration/accounts/test_names.py": "names are compared without case, and inserted unless they are there",
    "integration/admin/test_lists.py": "searches, filters and columns that lists are sorted by",
    "integration/api/test_idempotency.py": "a unique key decides which of two requests is first",
    "integration/api/test_idempotency_at_once.py": "the same, with threads",
    "integration/api/test_pagination.py": "cursors compare text and times in SQL",
    "integration/console/test_sizes.py": "the largest queries of the pages",
    "integration/operations/test_metrics.py": "the log's size in bytes, and counts by group",
}
#: Code that means another thing, or another error, on another database.
DIFFERS = re.compile(
    r"connection\.vendor\b|\.cursor\(|select_for_update|(?:ignore|update)_conflicts|except IntegrityError"
    r"|__(?:iexact|icontains|istartswith|contains)\b|\b(?:Subquery|Exists|RawSQL|Window)\("
)
_sent: set[str] = set()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--guard-dialect", action="store_true", help="fail if code that differs sent nothing")


def pytest_itemcollected(item: pytest.Item) -> None:
    if _is_dialect(item.path):
        item.add_marker(pytest.mark.dialect)


@cache
def _is_dialect(path: Path) -> bool:
    return any(path.is_relative_to(TESTS / each) for each in BOTH_DATABASES)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--guard-dialect"):
        connection_created.connect(_watch)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not session.config.getoption("--guard-dialect"):
        return
    if hasattr(session.config, "workeroutput"):  # of xdist: the process that started it decides
        session.config.workeroutput["sent"] = sorted(_sent)
    elif set(_differing()) - _sent:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _sent.update(getattr(node, "workeroutput", {}).get("sent", ()))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.getoption("--guard-dialect"):
        for each in sorted(set(_differing()) - _sent):
            terminalreporter.write_line(f"{each} differs between databases, and sent nothing to this one: {__file__}")


def _differing() -> Iterator[str]:
    """Modules of production code, from the root."""
    for path in ROOT.glob("*/**/*.py"):
        name = str(path.relative_to(ROOT))
        if _is_production(name) and DIFFERS.search(path.read_text()):
            yield name


@cache
def _is_production(name: str) -> bool:
    return not name.startswith(("tests/", "bench/", "docs/", ".", "build/")) and "/migrations/" not in name


def _watch(connection: Any, **_: Any) -> None:
    connection.execute_wrappers.append(_note)


def _note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    """Every module of ours on the stack has to do with the query."""
    frame: FrameType | None = sys._getframe(1)
    while frame:
        if (name := _from_root(frame.f_code.co_filename)) is not None:
            _sent.add(name)
        frame = frame.f_back
    return execute(sql, params, many, context)


@cache
def _from_root(path: str) -> str | None:
    if not path.startswith(f"{ROOT}/"):
        return None
    name = path.removeprefix(f"{ROOT}/")
    return name if _is_production(name) else None
