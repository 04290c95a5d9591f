"""The adopted modules: the server runs them from a foreign path, and its next start loads the same bytes from the module store.

One file in the journal's directory. An entry counts only for the server process that ran the module when it was adopted.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

import decoding
from durable import write_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """`path`: where the server has loaded the module from. `target`: the same file in the module store, as the server sees it."""

    name: str
    version: int
    path: str
    target: str
    run_id: str

    @property
    def source(self) -> tuple[str, int, str]:
        """Name, version and path, as MODULE LIST has them."""
        return self.name, self.version, self.path


class Adoptions:
    """The adopted modules of one node, in `directory`. A file that is missing or damaged has none: they are foreign again."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / ".adopted"

    def all(self) -> list[Adopted]:
        try:
            return decoding.decode(self._file.read_bytes(), list[Adopted])
        except (OSError, msgspec.MsgspecError):
            return []

    def add(self, adopted: Adopted) -> None:
        """Raises: `OSError`."""
        self._write([*(each for each in self.all() if each.name != adopted.name), adopted])

    def forget(self, module_name: str) -> None:
        """Forget the module: the server no longer runs it from the foreign path. Raises: `OSError`."""
        known = self.all()
        if any(each.name == module_name for each in known):
            self._write([each for each in known if each.name != module_name])

    def in_store(self, path: str) -> str:
        """Return the path in the module store of an adopted module that was loaded from `path`, else `path`."""
        return next((each.target for each in self.all() if each.path == path), path)

    def _write(self, adopted: list[Adopted]) -> None:
        write_file(self._file, msgspec.json.encode(adopted), mode=0o600)
