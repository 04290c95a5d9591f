"""Finds a key of a module's data type, without hurting the server: small steps, and a limit of time."""

import re
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from rollout.agent.failure import AgentError
from rollout.agent.server.session import RefusedError, Session

#: Keys that one SCAN looks at: well below a millisecond.
SCAN_COUNT = 100
#: TYPE answers these for the server's own types, and `none` for a key that has expired.
OWN_TYPES = frozenset({"none", "string", "list", "set", "zset", "hash", "stream", "vectorset"})


class TooManyKeysError(AgentError):
    """The time was over before all keys were looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleKey:
    """A key of a module's data type. `type` is the name that the module gave it."""

    type: str
    database: int


def first_module_key(
    session: Session, seconds: float, *, besides: Collection[str], before_step: Callable[[], object]
) -> ModuleKey | None:
    """Return a key of a module's data type in any database, None if there is none. Looks for `seconds` at most.

    `besides`: data types that do not count.

    `before_step` is called before each step, and may raise. The session must read keys as they are, and ends in another
    database. Raises: `TooManyKeysError`, `RefusedError`, `Failure`.
    """
    end = time.monotonic() + seconds
    for database in sorted(int(name[2:]) for name in session.info("keyspace") if re.fullmatch(r"db\d+", name)):
        if database:  # a cluster that has only database 0 refuses SELECT
            session.call("SELECT", str(database))
        for types in _types(session):
            if found := sorted(set(types).difference(OWN_TYPES, besides)):
                return ModuleKey(type=found[0], database=database)
            if time.monotonic() > end:
                raise TooManyKeysError
            before_step()
    return None


def _types(session: Session) -> Iterator[list[str]]:
    """Yield the types of the keys of the database, some at a time."""
    cursor = ""
    while cursor != "0":
        cursor, keys = session.call("SCAN", cursor or "0", "COUNT", str(SCAN_COUNT))
        answers = session.call_all([("TYPE", key) for key in keys], "TYPE") if keys else []
        if refused := next((each for each in answers if isinstance(each, RefusedError)), None):
            raise refused
        yield answers
