"""Changes one line of the server's main configuration file, at its place."""

import os
from pathlib import Path

from durable import remove_temporaries, replacing
from rollout.agent.failure import Failure
from rollout.agent.inspection.configuration import split_words
from rollout.agent.inspection.regular_file import open_regular
from rollout.agent.inspection.start_lines import LoadLine
from rollout.messages import Reason


def replace_line(file: Path, line: LoadLine, text: str) -> None:
    """Write `text` instead of `line`. The file keeps its owner and its rights.

    Raises: `Failure` (persistence_conflict) if another hand has changed the line, `OSError`.
    """
    with open_regular(file) as opened:
        found, lines = os.fstat(opened.fileno()), opened.read().splitlines(keepends=True)
    index = int(line.place.rpartition(":")[2]) - 1
    written = lines[index].decode(errors="surrogateescape") if index < len(lines) else ""
    words = split_words(written) or ()
    if tuple(words[1:]) != (line.path, *line.args):
        raise Failure(Reason.PERSISTENCE_CONFLICT, f"{line.place} was changed at the same time. Retry.")
    end = lines[index][len(lines[index].rstrip(b"\r\n")) :]
    lines[index] = text.encode(errors="surrogateescape") + end
    remove_temporaries(file)  # of an agent that was killed here: the file may contain passwords
    with replacing(file, mode=found.st_mode & 0o7777) as new:
        os.fchown(new.fileno(), found.st_uid, found.st_gid)
        new.writelines(lines)
