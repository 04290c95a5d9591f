"""Heads of the log in a file outside of the database. They show later if the end of the log was cut off or replaced.

Each line of the file is `POSITION:HASH`. Keep it where someone who can change the database cannot change it: send the
file, or the same facts from the program's log output, to another host.
"""

import logging
import os
import re
from pathlib import Path

from eventstore.verification import Head, newest_head

logger = logging.getLogger(__name__)

_LINE = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


class HeadError(ValueError):
    """The text is not a head. The message shows the form of one."""


def parse_head(text: str) -> Head:
    """Return the head that is written as `POSITION:HASH`. Raises: `HeadError`."""
    found = _LINE.fullmatch(text.strip())
    if found is None:
        raise HeadError(f"{text.strip()[:100]!r} is not a head: write POSITION:HASH, as `verify_log` prints it")
    return Head(int(found[1]), found[2])


def read_heads(path: Path) -> list[Head]:
    """Return all heads in the file. A last line without a line end is ignored: a crash cut it off.

    Raises: `HeadError`, `OSError`.
    """
    *lines, _ = path.read_text().split("\n")
    if not lines:
        raise HeadError(f"{path} has no head")
    return [parse_head(line) for line in lines]


def note_head(path: Path) -> Head:
    """Add the head of the log to the file and to the program's log output, and return it.

    If the file ends with the same head, the file does not change. Raises: `OSError`; the log output has the head then.
    """
    newest = newest_head()
    logger.info("head of the log: %s:%s", *newest, extra={"position": newest.position, "hash": newest.hash})
    line = f"{newest.position}:{newest.hash}\n".encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        noted = file.read()
        whole = noted[: noted.rfind(b"\n") + 1]  # without a line that a crash cut off
        if not whole.endswith(line):
            file.truncate(len(whole))
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    return newest
