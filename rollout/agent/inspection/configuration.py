"""The server's configuration files with their includes, and the options of its command line."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from glob import escape, iglob
from itertools import islice
from pathlib import Path

from rollout.agent.inspection.host_files import ROOT, on_host
from rollout.agent.inspection.regular_file import open_regular

#: Redis and Valkey refuse deeper includes.
DEEPEST_INCLUDE = 16
#: The most configuration files that are read, the most bytes of each, and the most lines of all. The server names the
#: first file, and may be hostile.
MOST_FILES = 1_000
MOST_BYTES = 1_000_000
MOST_LINES = 100_000
#: Why a line could not be read: the server does not start with it.
UNBALANCED = "unbalanced quotes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Directive:
    """One line of a configuration file. `words` starts with its name in small letters. `line` counts from 1.

    An option of the command line has the line 0.
    """

    file: str
    line: int
    words: tuple[str, ...]

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.line else "the command line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The main configuration file with its includes, in the order in which a start reads them.

    `unread` names each file or pattern that could not be read, with the reason. With any, a missing line is unknown.
    """

    file: str
    directives: tuple[Directive, ...] = ()
    files: tuple[str, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)

    def all(self, name: str) -> list[Directive]:
        return [each for each in self.directives if each.words[0] == name]

    def last(self, name: str) -> str | None:
        """Return the first value of the last line with this name, which is the one that counts."""
        found = [each.words[1] for each in self.all(name) if len(each.words) > 1]
        return found[-1] if found else None


def read_configuration(file: str, root: Path = ROOT) -> Configuration:
    """Read the configuration file `file`, as INFO names it, and all its includes."""
    files: list[str] = []
    unread: dict[str, str] = {}
    lines = _read(file, root, None, DEEPEST_INCLUDE, files, unread)
    directives = tuple(islice(lines, MOST_LINES))
    if next(lines, None) is not None:
        unread[file] = f"more than {MOST_LINES} lines"
    return Configuration(file=file, directives=directives, files=tuple(files), unread=unread)


def from_arguments(arguments: tuple[str, ...]) -> tuple[Directive, ...]:
    """Return the options of a command line, such as `--port 0`, as lines. They count after those of the file."""
    lines: list[list[str]] = []
    for word in arguments:
        if word.startswith("--"):
            lines.append([word[2:].lower()])
        elif lines:
            lines[-1].append(word)
    return tuple(Directive(file="command line", line=0, words=tuple(words)) for words in lines)


def read_options(arguments: tuple[str, ...], root: Path = ROOT) -> Configuration:
    """Read the options of a command line, and the files that they include."""
    files: list[str] = []
    unread: dict[str, str] = {}
    directives: list[Directive] = []
    for option in from_arguments(arguments):
        directives.append(option)
        if option.words[0] == "include" and len(option.words) > 1:
            for included in _included(option.words[1], root, None, unread):
                directives += islice(_read(included, root, None, DEEPEST_INCLUDE, files, unread), MOST_LINES)
    return Configuration(file="", directives=tuple(directives), files=tuple(files), unread=unread)


def split_words(line: str) -> tuple[str, ...] | None:
    """Return the words of a configuration line as the server splits them. None if its quotes are not balanced.

    A word may go on after its quotes, as in Valkey 9. Redis does not start with such a line.
    """
    words = []
    rest = line.strip(" \t\r\n")
    while rest:
        match = _WORD.match(rest)
        if not match:
            return None
        words.append("".join(_unquoted(each[0]) for each in _PART.finditer(match[0])))
        rest = rest[match.end() :].lstrip(_SPACES)
    return tuple(words)


_SPACES = " \t\r\n\v\f"
_PART = re.compile(r"""[^\s"']++|"(?:\\.|[^"\\])*+"|'(?:\\'|[^'])*+'""")
_WORD = re.compile(rf"(?:{_PART.pattern})++(?!\S)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "a": "\a"}


def _unquoted(part: str) -> str:
    match part[0]:
        case "'":
            return part[1:-1].replace("\\'", "'")
        case '"':
            return re.sub(r"\\(x[0-9a-fA-F]{2}|.)", _unescaped, part[1:-1])
        case _:
            return part


def _unescaped(found: "re.Match[str]") -> str:
    return chr(int(found[1][1:], 16)) if len(found[1]) == 3 else _ESCAPES.get(found[1], found[1])


def _read(
    file: str, root: Path, directory: str | None, depth: int, files: list[str], unread: dict[str, str]
) -> Iterator[Directive]:
    """Yield the lines of a file and its includes. `directory` is the one that an earlier line `dir` has set."""
    if len(files) >= MOST_FILES:
        unread[file] = f"more than {MOST_FILES} files"
        return
    try:
        with open_regular(on_host(root, file)) as opened:
            content = opened.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # a NUL in the path
        unread[file] = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return
    if len(content) > MOST_BYTES:
        unread[file] = f"more than {MOST_BYTES} bytes"
        return
    text = content.decode(errors="surrogateescape").replace("\r\n", "\n")
    files.append(file)
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.strip().startswith("#"):
            continue
        words = split_words(line)
        if not words:
            unread[f"{file}:{number}"] = UNBALANCED
            continue
        directive = Directive(file=file, line=number, words=(words[0].lower(), *words[1:]))
        yield directive
        if directive.words[0] == "dir" and len(words) > 1 and words[1].startswith("/"):
            directory = words[1]
        if directive.words[0] == "include" and len(words) > 1:
            for included in _included(words[1], root, directory, unread):
                if depth == 0:
                    unread[included] = "too many levels of includes"
                else:
                    yield from _read(included, root, directory, depth - 1, files, unread)


def _included(pattern: str, root: Path, directory: str | None, unread: dict[str, str]) -> list[str]:
    """Return the files of an `include` line. The server takes a pattern from 7.0 on, and reads the matches in order."""
    if not pattern.startswith("/"):
        if directory is None:  # relative to the directory in which the server was started
            unread[pattern] = "a relative path"
            return []
        pattern = f"{directory.rstrip('/')}/{pattern}"
    if not any(each in pattern for each in "*?["):
        return [pattern]
    base = str(root).rstrip("/")
    parent = on_host(root, pattern.rpartition("/")[0] or "/")
    if parent.is_dir() and not os.access(parent, os.R_OK | os.X_OK):
        unread[pattern] = "Permission denied"
    found = iglob(f"{escape(base)}{pattern}")  # noqa: PTH207 - as glob(3): `*` matches no name that starts with a dot
    return sorted(each.removeprefix(base) for each in islice(found, MOST_FILES + 1))
