"""The file that the server's configuration includes: a `loadmodule` line for each module that is to be loaded at a start.

A module keeps the place of its line for as long as it has one: a module that needs another one comes after it.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from durable import write_file

SIGNATURE = "# Written by Modfleet"
HEADER = f"{SIGNATURE}. Include it in the server's configuration."
#: In front of the line of a module that is being unloaded: a start skips it, and a refusal brings it back.
PARKED = "# unloading: "


class IncludeFile:
    """The file at `path`; None: the node does not persist what it loads."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def ensure(self) -> None:
        """The file exists, for a server whose include is missing does not start; no line is parked any more."""
        if self._path and not self._path.exists():
            self._write([])
        self._unpark()

    def has(self, module_path: PurePosixPath, args: Iterable[str]) -> bool:
        """Whether a start loads exactly that; always where nothing is persisted."""
        return self._path is None or _line(module_path, args) in self._lines()

    def names(self, folder: PurePosixPath) -> bool:
        """Whether a start loads anything from `folder`."""
        return any(_is_below(line, folder) for line in self._lines())

    def remember(
        self,
        module_folder: PurePosixPath,
        module_path: PurePosixPath,
        args: Iterable[str],
        order: Sequence[PurePosixPath] = (),
    ) -> None:
        """A start loads `module_path`, and nothing else below `module_folder`.

        Modules below the folders of `order` are loaded in that order; all other lines keep their places.
        """
        line = _line(module_path, args)
        lines = self._replaced(module_folder, line) if self.names(module_folder) else [*self._lines(), line]
        self._change(_sorted(lines, order))

    def restore(self, module_folder: PurePosixPath, module_path: PurePosixPath, args: Iterable[str]) -> None:
        """Likewise, but only where a start loads something else below `module_folder`."""
        self._change(self._replaced(module_folder, _line(module_path, args)))

    def redirect(self, folder: PurePosixPath, to: PurePosixPath) -> None:
        """What a start loads from `folder` it loads from the folder `to`."""
        lines = self._lines()
        self._change([line.replace(f"{folder}/", f"{to}/", 1) if _is_below(line, folder) else line for line in lines])

    def forget(self, folder: PurePosixPath) -> None:
        """A start loads nothing from `folder`."""
        self._change([line for line in self._lines() if not _is_below(line.removeprefix(PARKED), folder)])

    @contextmanager
    def parked(self, folder: PurePosixPath) -> Iterator[None]:
        """A start loads nothing from `folder`; if what is done in here fails, it does again."""
        lines = self._lines()
        self._change([PARKED + line if _is_below(line, folder) else line for line in lines])
        try:
            yield
        except BaseException:
            self._unpark()
            raise

    def _unpark(self) -> None:
        self._change([line.removeprefix(PARKED) for line in self._lines()])

    def _replaced(self, module_folder: PurePosixPath, line: str) -> list[str]:
        """All lines, `line` in the place of the first one of `module_folder`, and the others of it left out."""
        found = [index for index, each in enumerate(self._lines()) if _is_below(each, module_folder)]
        changed = dict.fromkeys(found) | dict.fromkeys(found[:1], line)
        lines = [changed.get(index, each) for index, each in enumerate(self._lines())]
        return [each for each in lines if each is not None]

    def _lines(self) -> list[str]:
        if not self._path or not self._path.exists():
            return []
        return [line for line in self._path.read_text().splitlines() if line and not line.startswith(SIGNATURE)]

    def _change(self, lines: list[str]) -> None:
        if self._path and lines != self._lines():
            self._write(lines)

    def _write(self, lines: list[str]) -> None:
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            text = "".join(f"{line}\n" for line in [HEADER, *lines])
            write_file(self._path, text.encode(), mode=0o644)  # the server, another user, reads it


def _line(module_path: PurePosixPath, args: Iterable[str]) -> str:
    return " ".join(["loadmodule", *(quoted(word) for word in (str(module_path), *args))])


def _is_below(line: str, folder: PurePosixPath) -> bool:
    """Whether the line loads a file below `folder`."""
    try:
        words = shlex.split(line)
    except ValueError:
        return False
    return len(words) > 1 and words[0] == "loadmodule" and PurePosixPath(words[1]).is_relative_to(folder)


def _sorted(lines: Sequence[str], order: Sequence[PurePosixPath]) -> list[str]:
    """`lines` with those of `order` in its order, in the places that they have together."""
    ranks = {
        index: next((rank for rank, folder in enumerate(order) if _is_below(line, folder)), None)
        for index, line in enumerate(lines)
    }
    places = [index for index, rank in ranks.items() if rank is not None]
    ranked = sorted(places, key=lambda index: ranks[index] or 0)
    moved = {place: lines[index] for place, index in zip(places, ranked, strict=True)}
    return [moved.get(index, line) for index, line in enumerate(lines)]


def quoted(word: str) -> str:
    """`word` as one argument of a configuration line."""
    if word and not any(each.isspace() or each in "\"'\\" for each in word):
        return word
    escaped = (
        word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    )
    return f'"{escaped}"'
