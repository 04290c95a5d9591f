"""The loads in scratch servers that have succeeded on this node, in one file of the journal's directory."""

import logging
from pathlib import Path

import msgspec

from durable import write_file
from rollout.messages import ScratchLoad

#: The most loads that are kept, the newest ones.
MOST_SUCCESSES = 200

log = logging.getLogger(__name__)


class Successes:
    """The successes in `directory`. A file that is missing or damaged has none: the modules are tried again."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / ".scratch.json"

    def find(self, key: str) -> ScratchLoad | None:
        return next((each for each in self._read() if each.key == key), None)

    def add(self, done: ScratchLoad) -> None:
        """Keep a success. An error of the disk is logged: the module is tried again the next time."""
        others = [each for each in self._read() if each.key != done.key]
        try:
            write_file(self._file, msgspec.json.encode([*others, done][-MOST_SUCCESSES:]), mode=0o600)
        except OSError as error:
            log.warning("The result of a scratch server cannot be kept: %s", error)

    def _read(self) -> list[ScratchLoad]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=list[ScratchLoad])
        except (OSError, msgspec.MsgspecError):
            return []
