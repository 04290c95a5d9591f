"""Heads of the log, noted outside of the database: they show later that the end of the log was cut off or written anew.

A line of the file is `POSITION:HASH`. Whoever can change the database must not be able to change the file: ship the
file, or the same facts from the JSON log, to another host.
"""

import logging
import os
import re
from pathlib import Path

from eventstore.reading import Head, hash_at, head

logger = logging.getLogger(__name__)

_LINE = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


class HeadError(ValueError):
    """What was given is no head; the message says how one is written."""


def parse_head(text: str) -> Head:
    """The head that `POSITION:HASH` names. Raises: `HeadError`."""
    found = _LINE.fullmatch(text.strip())
    if found is None:
        raise HeadError(f"{text.strip()[:100]!r} is no head: write POSITION:HASH, as `verify_log` prints it")
    return Head(int(found[1]), found[2])


def read_heads(path: Path) -> list[Head]:
    """All heads in the file. A last line without its end is left out: a crash cut it off. Raises: `HeadError`, `OSError`."""
    *lines, _ = path.read_text().split("\n")
    if not lines:
        raise HeadError(f"{path} holds no head")
    return [parse_head(line) for line in lines]


def note_head(path: Path) -> Head:
    """Add the newest event's position and hash to the file and to the program's log, and return them.

    Nothing is added to the file if it ends with the same head. Raises: `OSError`; the program's log has the head then.
    """
    newest = _newest()
    logger.info("head of the log: %s:%s", *newest, extra={"position": newest.position, "hash": newest.hash})
    line = f"{newest.position}:{newest.hash}\n".encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        noted = file.read()
        whole = noted[: noted.rfind(b"\n") + 1]  # without what a crash cut off
        if not whole.endswith(line):
            file.truncate(len(whole))
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    return newest


def _newest() -> Head:
    position = head()
    return Head(position, hash_at(position))
