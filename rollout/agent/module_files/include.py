"""The file that the server's configuration includes: a `loadmodule` line for each module that a start must load.

A line keeps its place as long as the module has one: a module comes after the modules that it needs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from durable import make_directory, remove_temporaries, write_file
from rollout.agent.inspection.configuration import split_words

SIGNATURE = "# Written by Modfleet"
HEADER = f"{SIGNATURE}. Include it in the server's configuration."
#: Prefix for the line of a module that is being unloaded: a start skips the line, and a refused unload restores it.
PARKED = "# unloading: "


class IncludeFile:
    """The file at `path`. A file that does not exist has no lines."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ensure(self) -> None:
        """Create the file if it is missing: a server whose configuration names it without a glob does not start otherwise.
        Restore all parked lines, and delete what a killed agent has left."""
        remove_temporaries(self._path)
        if not self._path.exists():
            self._write([])
        self.unpark()

    def has(self, module_path: PurePosixPath, args: Iterable[str]) -> bool:
        """Return True if a start loads exactly this."""
        return load_line(module_path, args) in self._lines()

    def names(self, directory: PurePosixPath) -> bool:
        """Return True if a start loads a file below `directory`."""
        return any(_is_below(line, directory) for line in self._lines())

    def loads(self) -> list[tuple[str, tuple[str, ...]]]:
        """Return path and arguments of each module that a start loads."""
        found = [split_words(line) or () for line in self._lines()]
        return [(words[1], words[2:]) for words in found if len(words) > 1 and words[0] == "loadmodule"]

    def has_quotes(self, directory: PurePosixPath) -> bool:
        """Return True if a line that loads a file below `directory` has a word that needs quotes."""
        lines = [line for line in self._lines() if _is_below(line, directory)]
        return any(needs_quotes(word) for line in lines for word in split_words(line) or ())

    def remember(
        self,
        module_directory: PurePosixPath,
        module_path: PurePosixPath,
        args: Iterable[str],
        order: Sequence[PurePosixPath] = (),
    ) -> None:
        """Make a start load `module_path`, and nothing else below `module_directory`.

        Modules below the directories in `order` are loaded in that order. All other lines keep their places.
        """
        line = load_line(module_path, args)
        lines = self._replaced(module_directory, line) if self.names(module_directory) else [*self._lines(), line]
        self._change(_sorted(lines, order))

    def restore(self, module_directory: PurePosixPath, module_path: PurePosixPath, args: Iterable[str]) -> None:
        """Do the same, but only if a start loads something else below `module_directory`."""
        self._change(self._replaced(module_directory, load_line(module_path, args)))

    def redirect(self, directory: PurePosixPath, to: PurePosixPath) -> None:
        """Make a start load from `to` what it loads from `directory`."""
        lines = self._lines()
        self._change(
            [line.replace(f"{directory}/", f"{to}/", 1) if _is_below(line, directory) else line for line in lines]
        )

    def forget(self, directory: PurePosixPath) -> None:
        """Make a start load nothing from `directory`."""
        self._change([line for line in self._lines() if not _is_below(line.removeprefix(PARKED), directory)])

    def drop_missing(self, exists: Callable[[str], bool]) -> list[str]:
        """Remove the lines whose file does not exist: with one of them, the server does not start. Return the paths."""
        lines = {line: _path_in(line) for line in self._lines()}
        missing = {line: path for line, path in lines.items() if path and not exists(path)}
        self._change([line for line in lines if line not in missing])
        return list(missing.values())

    @contextmanager
    def parked(self, directory: PurePosixPath) -> Iterator[None]:
        """Make a start load nothing from `directory`. If the block raises, restore the lines."""
        lines = self._lines()
        try:
            self._change([PARKED + line if _is_below(line, directory) else line for line in lines])
            yield
        except BaseException:
            self.unpark()
            raise

    def unpark(self) -> bool:
        """Restore all parked lines. Return False if there were none."""
        lines = self._lines()
        self._change([line.removeprefix(PARKED) for line in lines])
        return any(line.startswith(PARKED) for line in lines)

    def _replaced(self, module_directory: PurePosixPath, line: str) -> list[str]:
        """Return all lines, with `line` instead of the first line of `module_directory`, and without its other lines."""
        found = [index for index, each in enumerate(self._lines()) if _is_below(each, module_directory)]
        changed = dict.fromkeys(found) | dict.fromkeys(found[:1], line)
        lines = [changed.get(index, each) for index, each in enumerate(self._lines())]
        return [each for each in lines if each is not None]

    def _lines(self) -> list[str]:
        if not self._path.exists():
            return []
        return [line for line in self._path.read_text().splitlines() if line and not line.startswith(SIGNATURE)]

    def _change(self, lines: list[str]) -> None:
        if lines != self._lines():
            self._write(lines)

    def _write(self, lines: list[str]) -> None:
        make_directory(self._path.parent, mode=0o755)
        text = "".join(f"{line}\n" for line in [HEADER, *lines])
        write_file(self._path, text.encode(), mode=0o644)  # the server reads it as another user


def load_line(module_path: PurePosixPath | str, args: Iterable[str]) -> str:
    """Return the `loadmodule` line, with each word quoted if it needs quotes."""
    return " ".join(["loadmodule", *(quoted(word) for word in (str(module_path), *args))])


def _path_in(line: str) -> str:
    """Return the path of the module that the line loads, empty if it loads none."""
    words = split_words(line) or ()
    return words[1] if len(words) > 1 and words[0] == "loadmodule" else ""


def _is_below(line: str, directory: PurePosixPath) -> bool:
    """Return True if the line loads a file below `directory`."""
    path = _path_in(line)
    return bool(path) and PurePosixPath(path).is_relative_to(directory)


def _sorted(lines: Sequence[str], order: Sequence[PurePosixPath]) -> list[str]:
    """Return `lines`, with the lines of `order` in that order. Together they keep their places."""
    ranks = {
        index: next((rank for rank, directory in enumerate(order) if _is_below(line, directory)), None)
        for index, line in enumerate(lines)
    }
    places = [index for index, rank in ranks.items() if rank is not None]
    ranked = sorted(places, key=lambda index: ranks[index] or 0)
    moved = {place: lines[index] for place, index in zip(places, ranked, strict=True)}
    return [moved.get(index, line) for index, line in enumerate(lines)]


def needs_quotes(word: str) -> bool:
    """Return True if a configuration line without quotes would be read as other words."""
    return not word or any(each.isspace() or each in "\"'\\" or not each.isprintable() for each in word)


def quoted(word: str) -> str:
    """Return `word` as one argument of a configuration line."""
    return f'"{"".join(_ESCAPES.get(each) or _escaped(each) for each in word)}"' if needs_quotes(word) else word


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escaped(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 0x20 or ord(character) == 0x7F else character
