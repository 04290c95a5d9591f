"""The loads in scratch servers that have succeeded on this node, in one file of the journal's directory."""

import logging
from dataclasses import dataclass
from pathlib import Path

import msgspec

import decoding
from durable import write_file
from rollout.messages import ScratchLoad

#: The most loads that are kept, the newest ones.
MOST_SUCCESSES = 200

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Success:
    content_sha256: str
    done: ScratchLoad


class Successes:
    """The successes in `directory`. A file that is missing or damaged has none: the modules are tried again."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / ".scratch.json"

    def find(self, key: str) -> ScratchLoad | None:
        return next((each.done for each in self._read() if each.done.key == key), None)

    def of_content(self, content_sha256: str) -> list[ScratchLoad]:
        """Return the successes of a build, into any server."""
        return [each.done for each in self._read() if each.content_sha256 == content_sha256]

    def add(self, content_sha256: str, done: ScratchLoad) -> None:
        """Keep a success. An error of the disk is logged: the module is tried again the next time."""
        others = [each for each in self._read() if each.done.key != done.key]
        kept = [*others, _Success(content_sha256=content_sha256, done=done)][-MOST_SUCCESSES:]
        try:
            write_file(self._file, msgspec.json.encode(kept), mode=0o600)
        except OSError as error:
            log.warning("The result of a scratch server cannot be kept: %s", error)

    def _read(self) -> list[_Success]:
        try:
            return decoding.decode(self._file.read_bytes(), list[_Success])
        except (OSError, msgspec.MsgspecError):
            return []
