"""The test database, and copies of it for tests that really commit.

The suite runs on the database that `MODFLEET_DATABASE_URL` names: on SQLite without it, on PostgreSQL under
`python -m tests.postgres -- pytest tests/integration`. `tests/plugins/dialect.py` says which tests run on both.

- `db` (or the mark `django_db`): all that the test does is rolled back. For nearly every test.
- `committed_db`: the test commits, in as many threads and processes as it likes.
  Also for what waits for the log to grow: the thread that looks has a connection of its own, and sees only commits.
- `transactional_db`, `live_server`: cannot be used, because they empty tables and the log refuses that.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

import pytest
from django.db import connection, connections
from django.db.backends.signals import connection_created
from django.test.utils import setup_databases, teardown_databases
from pytest_django import DjangoDbBlocker

from tests.waiting import PATIENCE

Result = TypeVar("Result")


@pytest.fixture(scope="session")
def django_db_setup(
    request: pytest.FixtureRequest,
    django_test_environment: None,
    django_db_blocker: DjangoDbBlocker,
    django_db_modify_db_settings: None,
    django_db_keepdb: bool,
) -> Iterator[None]:
    """Instead of pytest-django's own, which makes no test database for a run that only has `committed_db` tests."""
    verbosity = request.config.option.verbose
    with django_db_blocker.unblock():
        made = setup_databases(verbosity, interactive=False, keepdb=django_db_keepdb, serialized_aliases=())
    yield
    if not django_db_keepdb:
        with django_db_blocker.unblock():
            teardown_databases(made, verbosity)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Function) -> None:
    """A thread that still follows the log would ask for a database that the test has given back."""
    if "db" in item.fixturenames or item.get_closest_marker("django_db"):
        _join_watcher()


@pytest.fixture
def committed_db(django_db_setup: None, django_db_blocker: DjangoDbBlocker, tmp_path: Path) -> Iterator[str]:
    """A database of the test's own, migrated and empty, in which commits are real; its value is the URL.

    `django.db.connection` is that database in every thread for as long as the test lasts, and `MODFLEET_DATABASE_URL`
    names it for processes that the test starts. Connections that threads leave open are closed in the end.

        def test_two_rollouts_at_once(committed_db):
            first, second = at_once(lambda: start_rollout(...), lambda: start_rollout(...))
    """
    with django_db_blocker.unblock(), new_database(tmp_path) as url:
        yield url


@contextmanager
def new_database(folder: Path) -> Iterator[str]:
    """What `committed_db` gives, for fixtures that several tests share; an SQLite file is made in `folder`."""
    assert not connection.in_atomic_block, "`committed_db` does not go together with `db`"
    copy = _postgresql_copy() if connection.vendor == "postgresql" else _sqlite_copy(folder / "copy.sqlite3")
    with copy as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODFLEET_DATABASE_URL", url)
        yield url


def at_once(*functions: Callable[[], Result]) -> list[Result]:
    """What the functions return, each called in a thread of its own and all of them released together.

    Raises what the first of them raised, after all have ended.
    """
    barrier = threading.Barrier(len(functions))

    def run(function: Callable[[], Result]) -> Result:
        barrier.wait(timeout=PATIENCE)
        try:
            return function()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(functions)) as pool:
        started = [pool.submit(run, each) for each in functions]
    return [each.result() for each in started]


@pytest.fixture
def between_queries() -> Callable[[str, Callable[[], object]], AbstractContextManager[None]]:
    """`with between_queries(table, action)`: once the first query of the table is answered, another connection carries
    `action` out before this thread asks anything more."""

    @contextmanager
    def arrange(table: str, action: Callable[[], object]) -> Iterator[None]:
        waiting = [action]

        def act(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            answer = execute(sql, params, many, context)
            if table in sql and waiting:
                at_once(waiting.pop())
            return answer

        with connection.execute_wrapper(act):
            yield
        assert not waiting, f"{table} was not asked"

    return arrange


@contextmanager
def _sqlite_copy(path: Path) -> Iterator[str]:
    connection.ensure_connection()
    with closing(sqlite3.connect(path)) as target:
        connection.connection.backup(target)
        target.execute("PRAGMA journal_mode=WAL")  # here, because connections opened at once would contend for it
    with _switched_to(str(path)):
        yield f"sqlite:///{path}"
        _join_watcher()


@contextmanager
def _postgresql_copy() -> Iterator[str]:
    template, name = connection.settings_dict["NAME"], f"test_{uuid4().hex}"
    server: Any = connection.creation._nodb_cursor  # type: ignore[attr-defined]  # not in the stubs
    connections.close_all()  # a database that is in use cannot be copied
    with server() as cursor:
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    with _switched_to(name):
        try:
            yield _postgresql_url(connection.settings_dict)
        finally:
            connections.close_all()
            with server() as cursor:
                cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
            _join_watcher()


def _postgresql_url(settings: dict[str, Any]) -> str:
    user, password, host = (quote(settings[each], safe="") for each in ("USER", "PASSWORD", "HOST"))
    port = f":{settings['PORT']}" if settings["PORT"] else ""
    return f"postgresql://{user}:{password}@{host}{port}/{settings['NAME']}"


@contextmanager
def _switched_to(name: str) -> Iterator[None]:
    """All connections opened inside go to the database `name`, and none of them stays open."""
    opened: list[Any] = []

    def remember(connection: Any, **_: Any) -> None:
        opened.append(connection)

    kept = connections["default"]  # SQLite's test database is in memory: it lives as long as its connection
    settings = connections.settings["default"]  # what each thread makes its connections by
    former = settings["NAME"]
    del connections["default"]
    settings["NAME"] = name
    connection_created.connect(remember)
    try:
        yield
    finally:
        connection_created.disconnect(remember)
        for each in opened:
            each.inc_thread_sharing()
            each.close()
        settings["NAME"] = former
        connections["default"] = kept


def _join_watcher() -> None:
    """The thread that follows the log notices that nobody waits any more, or that its database is gone."""
    for each in threading.enumerate():
        if each.name == "log-watcher":
            each.join(timeout=PATIENCE)
