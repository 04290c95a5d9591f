"""The file that the server's configuration includes: a `loadmodule` line for each module that passed its probe."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from rollout.agent.durable import write_file

HEADER = "# Written by Modfleet after each probe. Include it in the server's configuration."


class IncludeFile:
    """The file at `path`; None: the node does not persist what it loads."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def ensure(self) -> None:
        """The file exists: a server whose include is missing does not start."""
        if self._path and not self._path.exists():
            self._write([])

    def remember(self, module_folder: PurePosixPath, module_path: PurePosixPath, args: Iterable[str]) -> None:
        """A restart loads `module_path`, and nothing else below `module_folder`."""
        line = " ".join(["loadmodule", *(quoted(word) for word in (str(module_path), *args))])
        self._change([*self._lines_outside(module_folder), line])

    def forget(self, folder: PurePosixPath) -> None:
        """A restart loads nothing from `folder`."""
        self._change(self._lines_outside(folder))

    def _lines_outside(self, folder: PurePosixPath) -> list[str]:
        prefix = f"loadmodule {quoted(f'{folder}/')}".removesuffix('"')
        return [line for line in self._lines() if not line.startswith(prefix)]

    def _lines(self) -> list[str]:
        if not self._path or not self._path.exists():
            return []
        return [line for line in self._path.read_text().splitlines() if line and line != HEADER]

    def _change(self, lines: list[str]) -> None:
        if self._path and lines != self._lines():
            self._write(lines)

    def _write(self, lines: list[str]) -> None:
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_file(self._path, "".join(f"{line}\n" for line in [HEADER, *lines]).encode())


def quoted(word: str) -> str:
    """`word` as one argument of a configuration line."""
    if word and not any(each.isspace() or each in "\"'\\" for each in word):
        return word
    escaped = (
        word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    )
    return f'"{escaped}"'
