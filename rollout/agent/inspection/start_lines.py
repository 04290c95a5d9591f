"""The `loadmodule` and `include` lines that the next start of the server reads: of its configuration and its command line."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rollout.agent.inspection.configuration import Directive, from_arguments, read_configuration
from rollout.agent.inspection.host_files import ROOT
from rollout.agent.inspection.mounts import sees_same
from rollout.agent.inspection.process import Process, earliest_start, read_process, server_pid


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLine:
    """One `loadmodule` line. `file`: the configuration file that has it, empty for the command line. `path`: the module."""

    file: str
    place: str
    path: str
    args: tuple[str, ...] = ()

    def is_below(self, directory: PurePosixPath) -> bool:
        """Return True if the line loads a file below `directory`."""
        return PurePosixPath(self.path).is_relative_to(directory)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionLine:
    """One line that sets an option of a module, such as `greet.depth 7`. `name` is in small letters."""

    file: str
    place: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartLines:
    """The lines, in the order in which a start reads them. `main` is the configuration file, empty if there is none.

    `replicaof`: host and port of the master that the server follows after a start, empty for a master, None if it is not known.
    `problem`: why lines may be missing, one sentence; empty if all are known.
    """

    main: str = ""
    lines: tuple[LoadLine, ...] = ()
    includes: tuple[str, ...] = ()
    options: tuple[OptionLine, ...] = ()
    replicaof: tuple[str, ...] | None = None
    problem: str = ""


class StartReader:
    """Reads the lines of the server at `url`. While the server is down, it reads the file that was last known."""

    def __init__(self, url: str, root: Path = ROOT) -> None:
        self._url = url
        self._root = root
        self._run_id = ""
        self._process: Process | None = None
        self._view: Path | None = None
        self._started: float | None = None
        #: The last known main configuration file; None: not known.
        self.main: str | None = None

    @property
    def pid(self) -> int | None:
        """The pid of the server's process, None if it is not known."""
        return self._process.pid if self._process else None

    @property
    def uid(self) -> int | None:
        """The user of the server's process, None if it is not known."""
        return self._process.uid if self._process else None

    @property
    def view(self) -> Path | None:
        """Where the agent sees the root of the server's file system, None if it does not."""
        return self._view

    @property
    def started(self) -> float | None:
        """A moment before the start of the server's process, in seconds since 1970; None if it is not known."""
        return self._started

    def read(self, info: Mapping[str, str]) -> StartLines:
        """Return the lines. `info`: the section `server` of INFO, empty while the server is down."""
        if info.get("run_id") and info["run_id"] != self._run_id:
            self._find_process(info)
        self.main = info.get("config_file", self.main)
        if self.main is None:
            return StartLines(problem="The server's configuration file is not known.")
        return self._read(self.main)

    def _find_process(self, info: Mapping[str, str]) -> None:
        pid = server_pid(self._url, info, self._root)
        self._process = read_process(pid, self._root) if pid else None
        self._view = self._view_of(pid) if pid else None
        self._started = earliest_start(pid, info, self._root) if pid else None
        self._run_id = info["run_id"]

    def _view_of(self, pid: int) -> Path | None:
        own = self._root / f"proc/{pid}/root"
        if sees_same("/", "/", pid, self._root):
            return self._root
        return own if os.access(own, os.R_OK | os.X_OK) else None

    def _read(self, main: str) -> StartLines:
        view, arguments = self._view, self._process.arguments if self._process else None
        options = from_arguments(arguments or ())
        given = _load_lines(options)
        if not main:
            return StartLines(lines=given, replicaof=None if arguments is None else _replicaof(options))
        if view is None:
            if self._run_id:
                return StartLines(main=main, lines=given, problem="The server's file system is not visible.")
            view = self._root
        try:
            found = read_configuration(main, view)
        except OSError as error:
            return StartLines(main=main, lines=given, problem=f"{main} cannot be read: {error.strerror}.")
        name, reason = next(iter(found.unread.items()), ("", ""))
        return StartLines(
            main=main,
            lines=(*_load_lines(found.directives), *given),
            includes=tuple(" ".join(each.words[1:]) for each in found.all("include")),
            options=tuple(
                OptionLine(file=each.file, place=each.place, name=each.words[0])
                for each in found.directives
                if "." in each.words[0]
            ),
            replicaof=None if name else _replicaof((*found.directives, *options)),
            problem=f"{name} cannot be read: {reason}." if name else "",
        )


def _replicaof(directives: tuple[Directive, ...]) -> tuple[str, ...]:
    """Return host and port in the last line `replicaof`, which counts. `no one` is a master."""
    lines = [each.words[1:3] for each in directives if each.words[0] in {"replicaof", "slaveof"}]
    return () if not lines or [word.lower() for word in lines[-1]] == ["no", "one"] else lines[-1]


def _load_lines(directives: tuple[Directive, ...]) -> tuple[LoadLine, ...]:
    return tuple(
        LoadLine(file=each.file if each.line else "", place=each.place, path=each.words[1], args=each.words[2:])
        for each in directives
        if each.words[0] == "loadmodule" and len(each.words) > 1
    )
