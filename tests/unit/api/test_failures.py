"""Errors of drivers to what keeps a database or a disk from its work."""

import errno
import logging
import sqlite3

import psycopg
import pytest
from django import db
from psycopg_pool import PoolTimeout

from api.failures import Cause, database_cause, database_refusal, disk_refusal, log_failure
from api.statuses import status_of


def raised(error, cause):
    error.__cause__ = cause
    return error


def sqlite(code):
    error = sqlite3.OperationalError("from SQLite")
    error.sqlite_errorcode = code
    return raised(db.OperationalError("from SQLite"), error)


def postgresql(state, kind=db.OperationalError):
    return raised(kind("from PostgreSQL"), psycopg.errors.lookup(state)("from PostgreSQL"))


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (sqlite(sqlite3.SQLITE_FULL), Cause.FULL),
        (sqlite(sqlite3.SQLITE_BUSY), Cause.LOCKED),
        (sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT), Cause.LOCKED),
        (sqlite(sqlite3.SQLITE_READONLY_DBMOVED), Cause.READ_ONLY),
        (sqlite(sqlite3.SQLITE_IOERR_WRITE), Cause.UNREACHABLE),
        (sqlite(sqlite3.SQLITE_CANTOPEN), Cause.UNREACHABLE),
        (sqlite(sqlite3.SQLITE_ERROR), None),
        (sqlite(sqlite3.SQLITE_CORRUPT), None),
        (postgresql("53100"), Cause.FULL),
        (postgresql("53300"), Cause.BUSY),
        (postgresql("55P03"), Cause.LOCKED),
        (postgresql("57P01"), Cause.UNREACHABLE),
        (postgresql("57P03"), Cause.UNREACHABLE),
        (postgresql("08006"), Cause.UNREACHABLE),
        (postgresql("25006", db.InternalError), Cause.READ_ONLY),
        (postgresql("42P01", db.ProgrammingError), None),
        (postgresql("23505", db.IntegrityError), None),
        (
            raised(db.OperationalError(), psycopg.OperationalError("the server closed the connection")),
            Cause.UNREACHABLE,
        ),
        (raised(db.InterfaceError(), psycopg.InterfaceError("the connection is closed")), Cause.UNREACHABLE),
        (raised(db.OperationalError(), PoolTimeout()), Cause.BUSY),
        (db.IntegrityError(), None),
        (RuntimeError(), None),
        (None, None),
    ],
)
def test_the_database(error, cause):
    assert database_cause(error) == cause
    refusal = database_refusal(error)
    assert (refusal is None) == (cause is None)
    if refusal is not None:
        assert (int(status_of(refusal)), refusal.code) == (
            (507, "storage_full") if cause == Cause.FULL else (503, "database_unavailable")
        )
        assert "from" not in refusal.description


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "x"), "storage_full"),
        (OSError(errno.EDQUOT, "x"), "storage_full"),
        (OSError(errno.EROFS, "x"), "storage_unavailable"),
        (OSError(errno.EIO, "x"), "storage_unavailable"),
        (RuntimeError("of a storage's library"), "storage_unavailable"),
    ],
)
def test_the_packages(error, code):
    assert disk_refusal(error).code == code
    assert disk_refusal(error).retry_after_seconds


def test_what_passes_is_one_line_of_the_log(caplog):
    log_failure(logging.getLogger("x"), "again", sqlite(sqlite3.SQLITE_BUSY))
    log_failure(logging.getLogger("x"), "again", RuntimeError())
    assert [(each.levelname, each.exc_info is None) for each in caplog.records] == [("WARNING", True), ("ERROR", False)]
