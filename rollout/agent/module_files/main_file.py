"""Changes `loadmodule` lines of the server's main configuration file, each at its place."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from durable import remove_temporaries, replacing
from rollout.agent.failure import Failure
from rollout.agent.inspection.configuration import split_words
from rollout.agent.inspection.regular_file import open_regular
from rollout.agent.inspection.start_lines import LoadLine
from rollout.messages import Reason


def change_lines(file: Path, changes: Mapping[LoadLine, str | None], added: Iterable[str] = ()) -> None:
    """Write each text instead of its line, None for no line, and the `added` ones at the end, in one step. The file keeps
    its owner and its rights.

    Raises: `Failure` (persistence_conflict) if another hand has changed one of the lines, `OSError`.
    """
    with open_regular(file) as opened:
        found, lines = os.fstat(opened.fileno()), opened.read().splitlines(keepends=True)
    for line, text in changes.items():
        index = int(line.place.rpartition(":")[2]) - 1
        written = lines[index].decode(errors="surrogateescape") if index < len(lines) else ""
        if tuple((split_words(written) or ())[1:]) != (line.path, *line.args):
            raise _changed(line.place)
        end = lines[index][len(lines[index].rstrip(b"\r\n")) :]
        lines[index] = b"" if text is None else _bytes(text) + end
    added = list(added)
    if added and lines and not lines[-1].endswith(b"\n"):
        lines.append(b"\n")
    lines += [_bytes(text) + b"\n" for text in added]
    remove_temporaries(file)  # of an agent that was killed here: the file may contain passwords
    with replacing(file, mode=found.st_mode & 0o7777) as new:
        os.fchown(new.fileno(), found.st_uid, found.st_gid)
        new.writelines(lines)
        new.flush()
        os.fsync(new.fileno())
        # CONFIG REWRITE, for example at a failover by Sentinel, may have replaced the file while ours went to the disk.
        if _identity(file.stat()) != _identity(found):
            raise _changed(str(file))


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _changed(what: str) -> Failure:
    return Failure(Reason.PERSISTENCE_CONFLICT, f"{what} was changed at the same time. Retry.")


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns
