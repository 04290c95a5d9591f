"""What the server logged since just before a command: why it refused, in its own words.

Lines may contain data of clients, so `redacted` removes it before anything leaves the node:

- a text in quotes, unless it is a path, a version of a symbol, or one of the module's names and commands;
- IP addresses, hosts with a port, URLs, and anything with an `@`;
- the word after `user`, `username`, `login`, `password`, `requirepass`, `secret`, `token`, `key` or `channel`, also if
  such a word ends a name, as in `BROKER_PASSWORD`;
- runs of 16 or more hexadecimal digits, and of 24 or more characters of Base64 that contain a digit.

Paths, and the symbol after `undefined symbol:`, are kept. Control characters are escaped.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from rollout.agent.inspection.process import server_pid, unit_of
from rollout.agent.inspection.regular_file import open_regular
from rollout.agent.server.session import RefusedError, Session
from rollout.agent.settings import AgentSettings
from rollout.messages import LONGEST_LOG_LINE, MOST_LOG_LINES

#: Bytes that are read after the mark, at most.
MOST_BYTES = 1_000_000
#: Characters of a line that are looked at, at most.
LONGEST_RAW = 4 * LONGEST_LOG_LINE
#: Lines that are kept before a crash report. The report gets the others.
LINES_BEFORE_CRASH = 8
#: How long journald may take to store what the server wrote, and to answer, seconds.
JOURNAL_SECONDS = 1.0
JOURNALCTL_SECONDS = 10.0

#: Process, role and time before a line. The level stays: `#` is a warning.
_HEAD = re.compile(r"^\d+:[A-Z] .{0,40}?\d\d:\d\d:\d\d\.\d{3} (?=[-.*#] )")
_LOGFMT = re.compile(r'^pid=\d+ role=\S+ timestamp=.{1,40}? level=(\w+) message="(.*)"$')
_LEVELS = {"debug": ".", "info": "-", "notice": "*", "warning": "#"}
#: Logged by Valkey for every module that uses the functions of Redis.
_USELESS = re.compile(r"Legacy Redis Module \S+ found")
#: What systemd logs about the unit of a server that did not end on request.
_UNIT_FAILED = re.compile(r"Main process exited, code=(?:killed|dumped|exited, status=[1-9])")
_CRASH = re.compile(r"BUG REPORT START|crashed by signal|Guru Meditation|ASSERTION FAILED")
_FAILED_START = re.compile(
    r"server aborting|Fatal error loading|Terminating server after|Internal error in RDB reading|reading the append only file"
)
#: Of a replica. Valkey says `primary`.
_FULL_SYNC = re.compile(r"Full resync from (?:master|primary):", re.IGNORECASE)
#: After the stack come registers, memory and the arguments of clients' commands.
_CRASH_END = re.compile(r"-- (REGISTERS|INFO OUTPUT|DUMPING CODE|CLIENT LIST|CURRENT CLIENT)|argv\[")

_PRIVATE = re.compile(
    r"(?P<kept>undefined symbol: [^\s'\"`]+|(?<![\w./+-])/[^\s'\"`@]+(?![^\s'\"`:,;)\]]))"
    r"|(?P<word>(?<![A-Za-z0-9])(?i:user|username|login|password|requirepass|secret|token|key|channel)\b[ =:]+)"
    r"(?!(?:has|is|was|does|not|name|names|type|types|in|for|to|of|and|or)\b)[^\s'\"`][^\s,;]*"
    r"|(?P<url>\b[a-z][a-z0-9+.-]*://\S+)"
    r"|(?<![^\s'\"`(\[<=:,])(?P<at>[^\s'\"`]*[^\s'\"`@]@[^\s'\"`]+)"
    r"|(?P<quoted>(?<!\w)(?P<quote>['\"`])(?P<inner>.*?)(?:(?:(?P=quote)|(?<=\w)')(?!\w)|$))"
    r"|(?P<address>(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?(?![\w.])"
    r"|(?<![\w:.])\[?(?=[0-9A-Fa-f.:]*(?:::|(?::[0-9A-Fa-f]+){5}))[0-9A-Fa-f:]*:[0-9A-Fa-f.:]*(?:%\w+)?(?:\]:\d+)?"
    r"|(?<![\w.-])(?:[A-Za-z0-9_-]+\.)+[A-Za-z]{2,}:\d+(?!\w))"
    r"|(?P<blob>(?<![\w+/=])(?:(?:0x)?[0-9A-Fa-f]{16,}(?!\w)|(?=[A-Za-z+/]*\d)[A-Za-z0-9+/]{24,}={0,2}(?!\w)))"
)
_SYMBOL_VERSION = re.compile(r"[A-Z]+_[0-9.]+")
_HIDDEN = "..."


def redacted(line: str, names: Collection[str]) -> str:
    """Return the line without clients' data, by the rules above. `names`: of the module and its commands, which stay."""
    kept = {name.lower() for name in names}

    def shown(found: re.Match[str]) -> str:
        if found["kept"]:
            return found[0]
        if found["word"]:
            return found["word"] + _HIDDEN
        if found["url"] or found["address"]:
            return "<address>"
        if found["quoted"]:
            inner = found["inner"]
            is_plain = inner.startswith("/") or _SYMBOL_VERSION.fullmatch(inner) or inner.lower().lstrip("+-") in kept
            return found[0] if is_plain else f"{found['quote']}{_HIDDEN}{found['quote']}"
        return _HIDDEN

    return escaped(_PRIVATE.sub(shown, line[:LONGEST_RAW]))[:LONGEST_LOG_LINE]


def escaped(text: str) -> str:
    """Return the text with its control characters in words, for terminals."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class _Source(Protocol):
    def read(self) -> bytes:
        """Return what was logged since the source was opened, at most `MOST_BYTES`. Raises: `OSError`."""

    def read_end(self) -> bytes:
        """Return the newest bytes of the same. Raises: `OSError`."""

    def skip(self) -> None:
        """Leave out what was logged until now."""

    def close(self) -> None: ...


class _File:
    """A log file. It stays open, so that what was logged before a rotation can be read after it.

    Symbolic links are followed only now. Later, the server could replace a directory or a file by a link to a secret that
    only the agent can read.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(os.path.realpath(path))
        try:
            self._file: BinaryIO | None = _regular(self._path)
        except FileNotFoundError:  # rotated: the server creates it with the next line
            self._file = None
        self._start = os.fstat(self._file.fileno()).st_size if self._file else 0

    def read(self) -> bytes:
        return self._read(from_end=False)

    def read_end(self) -> bytes:
        return self._read(from_end=True)

    def _read(self, *, from_end: bool) -> bytes:
        if self._file is None:
            with _regular(self._path) as file:
                return file.read(MOST_BYTES)
        own = os.fstat(self._file.fileno())
        start = self._start if own.st_size >= self._start else 0  # else it was truncated
        self._file.seek(max(start, own.st_size - MOST_BYTES) if from_end else start)
        text = self._file.read(MOST_BYTES)
        with suppress(OSError):
            if not os.path.samestat(own, self._path.stat()):
                with _regular(self._path) as newer:
                    text += newer.read(MOST_BYTES)
        return text

    def skip(self) -> None:
        with suppress(OSError):
            newest = _regular(self._path)  # after a rotation, another file than before
            self.close()
            self._file, self._start = newest, os.fstat(newest.fileno()).st_size

    def close(self) -> None:
        if self._file:
            self._file.close()


def _regular(path: Path) -> BinaryIO:
    """Open a regular file that has exactly this path. Raises: `OSError`."""
    file = open_regular(path)
    # The path of what is open: between a check of the path and `open`, the server could change the path.
    if Path(f"/proc/self/fd/{file.fileno()}").readlink() != path:
        file.close()
        raise OSError(f"{path} was replaced by a symbolic link")
    return file


class _Journal:
    """The journal of a systemd unit."""

    def __init__(self, unit: str) -> None:
        program = shutil.which("journalctl")
        if program is None:
            raise OSError("there is no journalctl")
        self._words = [program, "--quiet", "--no-pager", "--output", "cat", "--unit", unit]
        self._since = time.time()

    def read(self) -> bytes:
        return self._read()[:MOST_BYTES]

    def read_end(self) -> bytes:
        return self._read()[-MOST_BYTES:]

    def _read(self) -> bytes:
        end = time.monotonic() + JOURNAL_SECONDS
        words = [*self._words, "--since", f"@{self._since:.6f}"]
        while True:
            try:
                done = subprocess.run(words, capture_output=True, timeout=JOURNALCTL_SECONDS, check=False)  # noqa: S603 - the unit's name is checked
            except subprocess.TimeoutExpired as error:
                raise OSError("journalctl did not answer") from error
            if done.returncode:
                raise OSError(done.stderr.decode(errors="replace").strip() or "journalctl failed")
            if done.stdout or time.monotonic() > end:
                return done.stdout
            time.sleep(JOURNAL_SECONDS / 10)

    def skip(self) -> None:
        self._since = time.time()

    def close(self) -> None:
        pass


class ServerLog:
    """The log of one node's server, during one operation. `problem`: why it cannot be read, empty if it can, or if no
    mark was set."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._source: _Source | None = None
        #: The journal of the server's unit, if the log is a file.
        self._unit: _Source | None = None
        self._quoted: tuple[str, ...] = ()
        self.problem = ""

    def mark(self, session: Session, *, may_ask: bool = True) -> None:
        """Remember the end of the log. Only the first mark counts. `may_ask`: the server may be asked for its log's path."""
        if self._source is not None:
            return
        self._unit = self._unit or self._unit_journal()
        problems = []
        for opened in self._sources(session, may_ask=may_ask):
            if not isinstance(opened, str):
                self._source, self.problem = opened, ""
                return
            problems.append(opened)
        self.problem = "; ".join(problems)

    def quote(self, lines: Sequence[str]) -> None:
        """Return these lines from now on: those of a scratch server, before the live one was changed."""
        self._quoted = tuple(lines)[:MOST_LOG_LINES]

    def lines(self) -> tuple[str, ...]:
        """Return the telling lines since the mark, at most `MOST_LOG_LINES`, without process and time. Not redacted."""
        if self._source is None:
            return self._quoted
        try:
            text = self._source.read()
        except OSError as error:
            self.problem = _in_words(error)
            return ()
        return telling_lines(text.decode(errors="replace").splitlines())

    def failed_starts(self) -> int:
        """Return how many starts of the server have failed since the mark, as far as its log says."""
        try:
            text = self._source.read_end().decode(errors="replace") if self._source else ""
        except OSError:
            return 0
        return len(_FAILED_START.findall(text))

    def full_syncs(self) -> int:
        """Return how many full synchronizations with its master the server has begun since the mark, as far as a log file says.
        The journal is not read: that may take a second."""
        if not isinstance(self._source, _File):
            return 0
        try:
            return len(_FULL_SYNC.findall(self._source.read_end().decode(errors="replace")))
        except OSError:
            return 0

    def sign_of_crash(self) -> str:
        """Return as a sentence what says that the server has crashed since the mark; empty if nothing is seen to."""
        for source in filter(None, (self._source, self._unit)):
            try:
                text = source.read_end().decode(errors="replace")
            except OSError:
                continue
            if _CRASH.search(text):
                return "Its log has a crash report."
            if _UNIT_FAILED.search(text):
                return "Its unit did not end on request: a signal or an error ended it."
        return ""

    def skip(self) -> None:
        """Move the mark to the end of the log."""
        for source in filter(None, (self._source, self._unit)):
            source.skip()

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
        self._source = self._unit = None

    def _unit_journal(self) -> _Source | None:
        """Return the journal of the server's systemd unit, None if no unit is found on this host."""
        pid = server_pid(self._settings.server_url, {})
        unit = self._settings.server_unit or (unit_of(pid) if pid else None)
        try:
            return _Journal(unit) if unit else None
        except OSError:
            return None

    def _sources(self, session: Session, *, may_ask: bool) -> Iterator[_Source | str]:
        """Yield the opened sources, or why they cannot be opened."""
        settings = self._settings
        if settings.server_log:
            yield _opened(settings.server_log)
        elif may_ask:  # not both: each refused CONFIG GET is counted by the server
            yield _named_by(session)
        if settings.server_unit:
            try:
                yield _Journal(settings.server_unit)
            except OSError as error:
                yield str(error)


def _named_by(session: Session) -> _Source | str:
    try:
        path = session.log_file()
    except RefusedError:
        return "the agent's user may not call CONFIG GET"
    return _opened(Path(path)) if path else "the server has no log file"


def _opened(path: Path) -> _Source | str:
    try:
        return _File(path)
    except OSError as error:
        return _in_words(error)
    except ValueError as error:  # a NUL in the path
        return f"the server's log: {error}"


def _in_words(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def telling_lines(lines: Sequence[str]) -> tuple[str, ...]:
    """Return the telling lines of a log, at most `MOST_LOG_LINES`, without process and time. Not redacted."""
    return _telling([_tidy(each) for each in lines if each.strip()])


def _tidy(line: str) -> str:
    if found := _LOGFMT.match(line):
        return f"{_LEVELS.get(found[1], '*')} {found[2]}"
    return _HEAD.sub("", line).strip()


def _telling(lines: Sequence[str]) -> tuple[str, ...]:
    """Return the first and the last lines, or the last lines before a crash report and those of the report up to the end of
    the stack. If starts have failed, those before the first and the last failure: what a later start logs would take their place."""
    crash = next((place for place, line in enumerate(lines) if _CRASH.search(line)), len(lines))
    before = [each for each in lines[:crash] if not _USELESS.search(each)]
    if crash == len(lines):
        half = MOST_LOG_LINES // 2
        if failed := [place + 1 for place, line in enumerate(before) if _FAILED_START.search(line)]:
            return (*before[: failed[0]][-half:], *before[failed[0] : failed[-1]][-half:])
        return tuple(before if len(before) <= MOST_LOG_LINES else [*before[:half], *before[-half:]])
    stack: list[str] = []
    for line in lines[crash:]:
        if _CRASH_END.search(line):
            break
        if not line.startswith("---"):
            stack.append(line)
    return tuple([*before[-LINES_BEFORE_CRASH:], *stack][:MOST_LOG_LINES])
