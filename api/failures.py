"""The causes for which a database or a disk cannot be used, from the error of its driver.

SQLite's codes: https://www.sqlite.org/rescode.html; PostgreSQL's: its documentation, appendix A; POSIX's: errno.
"""

import errno
import logging
from enum import StrEnum

from django.db import Error, InterfaceError, OperationalError
from psycopg_pool import PoolTimeout

from api.errors import ApiError, DatabaseUnavailableError, StorageFullError, StorageUnavailableError


class Cause(StrEnum):
    """Why nothing can be read or written now. `/readyz` shows it publicly."""

    FULL = "full"
    LOCKED = "locked"
    #: All connections or other resources are in use.
    BUSY = "busy"
    READ_ONLY = "read_only"
    UNREACHABLE = "unreachable"


_WORDS = {
    Cause.FULL: "its disk is full",
    Cause.LOCKED: "another process has locked it for a long time",
    Cause.BUSY: "it is overloaded",
    Cause.READ_ONLY: "it is read-only",
    Cause.UNREACHABLE: "it cannot be reached, or has an internal error",
}
#: The longest matching prefix counts.
_SQLSTATES = {
    "53100": Cause.FULL,
    "53": Cause.BUSY,
    "55P03": Cause.LOCKED,
    "57014": Cause.BUSY,  # a statement took too long
    "25006": Cause.READ_ONLY,
    "08": Cause.UNREACHABLE,
    "57P": Cause.UNREACHABLE,  # is shutting down, has crashed, or is starting
    "58": Cause.UNREACHABLE,  # errors of the system, such as of the disk
}
_SQLITE_CODES = {
    5: Cause.LOCKED,  # SQLITE_BUSY
    6: Cause.LOCKED,  # SQLITE_LOCKED
    8: Cause.READ_ONLY,  # SQLITE_READONLY
    10: Cause.UNREACHABLE,  # SQLITE_IOERR
    13: Cause.FULL,  # SQLITE_FULL
    14: Cause.UNREACHABLE,  # SQLITE_CANTOPEN
}
_ERRNOS = {
    errno.ENOSPC: Cause.FULL,
    errno.EDQUOT: Cause.FULL,
    errno.EFBIG: Cause.FULL,
    errno.EROFS: Cause.READ_ONLY,
    errno.EACCES: Cause.READ_ONLY,
    errno.EPERM: Cause.READ_ONLY,
}


def database_cause(error: BaseException | None) -> Cause | None:
    """Return the cause. None for a bug of the program, which waiting does not fix, and for any other exception."""
    if not isinstance(error, Error):
        return None
    driver = error.__cause__
    if isinstance(driver, PoolTimeout):
        return Cause.BUSY
    if (code := getattr(driver, "sqlite_errorcode", None)) is not None:
        return _SQLITE_CODES.get(code & 0xFF)
    if (state := getattr(driver, "sqlstate", None)) is not None:
        return next((_SQLSTATES[state[:size]] for size in (5, 3, 2) if state[:size] in _SQLSTATES), None)
    return Cause.UNREACHABLE if isinstance(error, OperationalError | InterfaceError) else None


def disk_cause(error: Exception) -> Cause:
    """Return the cause of an error of the package storage. Without an errno, the storage is not a local disk."""
    return _ERRNOS.get(getattr(error, "errno", None) or 0, Cause.UNREACHABLE)


def database_refusal(error: BaseException | None) -> ApiError | None:
    """Return the error for a request that has failed for a temporary cause."""
    match database_cause(error):
        case None:
            return None
        case Cause.FULL:
            return StorageFullError("The disk of the database is full. Nothing was changed.")
        case cause:
            return DatabaseUnavailableError(f"The database cannot be used now: {_WORDS[cause]}.")


def disk_refusal(error: Exception) -> ApiError:
    """Return the error for an upload that could not be stored."""
    cause = disk_cause(error)
    if cause == Cause.FULL:
        return StorageFullError("The disk of the packages is full. The package was not stored.")
    return StorageUnavailableError(f"The storage of packages cannot be used now: {_WORDS[cause]}.")


def log_failure(logger: logging.Logger, what_next: str, error: Exception) -> None:
    """Log one line if the database cannot be used now, and any other error with its traceback."""
    if database_cause(error) is None:
        logger.error(what_next, exc_info=error)
    else:
        logger.warning("%s: the database cannot be used: %s", what_next, " ".join(str(error).split()))
