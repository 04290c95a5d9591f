"""Finds keys of modules' data types and takes their values, without hurting the server: small steps, and limits."""

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rollout.agent.failure import AgentError
from rollout.agent.server import place
from rollout.agent.server.session import RefusedError, Session

#: Keys that one SCAN looks at: well below a millisecond.
SCAN_COUNT = 100
#: TYPE answers these for the server's own types, and `none` for a key that has expired.
OWN_TYPES = frozenset({"none", "string", "list", "set", "zset", "hash", "stream", "vectorset"})
#: A sample of keys takes so many calls of SCAN at most, and has so many keys of each type: more than are tried, because some
#: may be too large, or deleted meanwhile.
MOST_STEPS, SAMPLED_KEYS = 10_000, 60
#: So many values of each type are taken, each of so many bytes at most, together of so many.
TAKEN_VALUES, LARGEST_VALUE, MOST_BYTES = 20, 1_000_000, 16_000_000


class TooManyKeysError(AgentError):
    """The time was over before all keys were looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleKey:
    """A key of a module's data type. `type` is the name that the module gave it."""

    type: str
    database: int
    name: str = field(repr=False)


def first_module_key(
    session: Session, seconds: float, *, besides: Collection[str], before_step: Callable[[], object]
) -> ModuleKey | None:
    """Return a key of a module's data type in any database, None if there is none. Looks for `seconds` at most.

    `besides`: data types that do not count.

    `before_step` is called before each step, and may raise. The session must read keys as they are, and ends in another
    database. Raises: `TooManyKeysError`, `RefusedError`, `Failure`.
    """
    end = time.monotonic() + seconds
    for keys in _steps(session):
        if found := [each for each in keys if each.type not in besides]:
            return min(found, key=lambda each: each.type)
        if time.monotonic() > end:
            raise TooManyKeysError
        before_step()
    return None


def some_module_keys(session: Session, seconds: float) -> dict[str, list[ModuleKey]]:
    """Return some keys of each data type of a module that was seen within `seconds`. The session: as for `first_module_key`.

    SCAN follows a hash, so the keys that it looks at first are a sample. Raises: `RefusedError`, `Failure`.
    """
    end, found = time.monotonic() + seconds, dict[str, list[ModuleKey]]()
    for number, keys in enumerate(_steps(session), start=1):
        for each in keys:
            of_type = found.setdefault(each.type, [])
            if len(of_type) < SAMPLED_KEYS:
                of_type.append(each)
        if number == MOST_STEPS or time.monotonic() > end:
            break
    return found


def values_of(session: Session, keys: Iterable[ModuleKey], seconds: float, *, most_bytes: int) -> list[bytes]:
    """Return what DUMP answers for some of the keys, which have one type. The session: as for `first_module_key`.

    Large values are left out. Raises: `RefusedError`, `Failure`.
    """
    end, taken, selected = time.monotonic() + seconds, list[bytes](), 0
    _read_own(session, session.info("replication", "cluster"))
    for each in keys:
        if len(taken) == TAKEN_VALUES or time.monotonic() > end:
            break
        selected = _select(session, each.database, selected)
        size = session.call("MEMORY", "USAGE", each.name)
        value = None if size is None or size > LARGEST_VALUE else session.call("DUMP", each.name)
        if value is None:
            continue
        raw = value.encode("utf-8", "surrogateescape")
        if len(raw) > LARGEST_VALUE:  # the module does not know the size of its values: the next one may be larger
            break
        if len(raw) <= most_bytes:
            most_bytes -= len(raw)
            taken.append(raw)
    return taken


def _steps(session: Session) -> Iterator[list[ModuleKey]]:
    """Yield the keys of modules' data types, for some keys of the server at a time: of each database in turn."""
    info = session.info("replication", "cluster", "keyspace")
    _read_own(session, info)
    cursors = dict.fromkeys(sorted(int(name[2:]) for name in info if re.fullmatch(r"db\d+", name)), "0")
    selected = 0
    while cursors:
        database = next(iter(cursors))
        selected = _select(session, database, selected)
        cursor, names = session.call("SCAN", cursors.pop(database), "COUNT", str(SCAN_COUNT))
        yield [
            ModuleKey(type=kind, database=database, name=name)
            for name, kind in zip(names, _types(session, names), strict=True)
            if kind not in OWN_TYPES
        ]
        if cursor != "0":
            cursors[database] = cursor  # the last one now


def _read_own(session: Session, info: Mapping[str, str]) -> None:
    """A replica of a cluster redirects each call that names a key to its master, until the session says READONLY."""
    if info.get("cluster_enabled") == "1" and place.role(info) == "replica":
        session.call("READONLY")


def _select(session: Session, database: int, selected: int) -> int:
    """Return the database, which is selected then. A session begins in 0; a cluster that has only that one refuses SELECT."""
    if database != selected:
        session.call("SELECT", str(database))
    return database


def _types(session: Session, names: Sequence[str]) -> list[str]:
    answers = session.call_all([("TYPE", name) for name in names], "TYPE") if names else []
    if refused := next((each for each in answers if isinstance(each, RefusedError)), None):
        raise refused
    return answers
