"""The start check: would the server's program on disk start with all modules that its configuration names?

A scratch server of that program reads the same `loadmodule` lines and settings of modules in the same order, without
data.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from errno import ENOENT
from pathlib import Path

from rollout.agent.inspection.configuration import Configuration, Directive, read_configuration, read_options
from rollout.agent.inspection.host_files import ROOT
from rollout.agent.inspection.mounts import sees_same
from rollout.agent.module_files.include import load_line, quoted
from rollout.agent.scratch.live import LiveServer
from rollout.agent.scratch.server import (
    ScratchEndedError,
    ScratchServer,
    ScratchSilentError,
    UnavailableError,
    last_words,
    scratch_server,
)
from rollout.agent.server.server_log import redacted
from rollout.agent.server.session import LoadedModule, RefusedError
from rollout.agent.server.texts import storable
from rollout.messages import WouldStart

#: Limit of a reason, characters.
LONGEST_REASON = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class StartResult:
    """`reason` is one or two sentences, empty for `yes`. `checked_at` is Unix time in seconds."""

    result: WouldStart
    reason: str = ""
    checked_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NextStart:
    """What the next start of the server reads. `lines`: those that load a module or configure one, in their order.

    `stops`: why such a start cannot succeed. `unknown`: why not all of it is known. Both may be empty. `are_all`: no option
    of the command line can be missing. `files`: path, inode, size and time of change of the program and of each file.
    """

    live: LiveServer
    lines: tuple[Directive, ...] = ()
    are_all: bool = True
    stops: str = ""
    unknown: str = ""
    files: tuple[tuple[str | int, ...], ...] = ()

    @property
    def modules(self) -> list[Directive]:
        return [each for each in self.lines if each.words[0] == "loadmodule" and len(each.words) > 1]


#: Lines as they would be after a change, from those that are read.
Change = Callable[[tuple[Directive, ...]], tuple[Directive, ...]]


def next_start(live: LiveServer, change: Change | None = None) -> NextStart:
    """Read what the next start of the server reads. With `change`: what it would read after that change."""
    if live.process and sees_same("/", "/", live.process.pid, ROOT) is False:
        return NextStart(live=live, unknown="The server runs in another container than the agent.")
    arguments = live.process.arguments if live.process else None
    if not live.config_file and arguments is None:
        words = "The server was started without a configuration file, and its command line is not visible."
        return NextStart(live=live, unknown=words)
    main = read_configuration(live.config_file) if live.config_file else Configuration(file="")
    options = read_options(arguments or ())
    lines = tuple(each for each in (*main.directives, *options.directives) if _concerns_modules(each.words[0]))
    if change:
        lines = change(lines)
    # systemd puts variables into a command line: systemd.service(5). Their values are not known.
    are_all = arguments is not None and not any("$" in each for each in arguments)
    start = NextStart(live=live, lines=lines, are_all=are_all)
    stops, unknown = _unread(main, options)
    for line in start.modules:
        if stops or unknown:
            break
        stops, unknown = _unusable(line, live)
    paths = [str(live.program), *main.files, *options.files, *(each.words[1] for each in start.modules)]
    files = tuple(_identity(each) for each in paths)
    return NextStart(live=live, lines=lines, are_all=start.are_all, stops=stops, unknown=unknown, files=files)


def check_start(start: NextStart, loaded: Iterable[LoadedModule], *, seconds: float) -> StartResult:
    """Return if the server would start. `loaded`: the modules of the live server. It takes a few times `seconds` at most."""
    if start.stops or start.unknown:
        return start_result(WouldStart.NO if start.stops else WouldStart.UNKNOWN, start.stops or start.unknown)
    try:
        confinement = start.live.confinement.showing(each.words[1] for each in start.modules)
        with scratch_server(start.live.program, confinement, seconds=seconds) as server:
            if reason := _refusal(server, start, seconds):
                return start_result(WouldStart.NO, reason)
    except UnavailableError as error:
        return start_result(WouldStart.UNKNOWN, str(error))
    named = {each.words[1] for each in start.modules}
    hidden = [each.name for each in loaded if each.path.startswith("/") and each.path not in named]
    if hidden and not start.are_all:
        words = (
            f"No visible line loads {', '.join(hidden)}, and the options of the server's command line are not known."
        )
        return start_result(WouldStart.UNKNOWN, words)
    return start_result(WouldStart.YES, "")


def start_result(result: WouldStart, reason: str) -> StartResult:
    return StartResult(result=result, reason=storable(reason)[:LONGEST_REASON])


def _concerns_modules(name: str) -> bool:
    return name == "loadmodule" or "." in name


def _unread(*configurations: Configuration) -> tuple[str, str]:
    """Return why a start cannot succeed, and what cannot be read; both may be empty."""
    for each in configurations:
        for name, reason in each.unread.items():
            # A missing main file is one that the agent does not see: the server has read it.
            if reason == os.strerror(ENOENT) and name != each.file:
                return f"The configuration includes {name}, which does not exist.", ""
            return "", f"{name} cannot be read: {reason}."
    return "", ""


def _unusable(line: Directive, live: LiveServer) -> tuple[str, str]:
    """Return the same two for a line that loads a module."""
    path = Path(line.words[1])
    if not path.is_absolute():
        return "", f"{line.place} loads {path}: the directory of a relative path is not known."
    try:
        path.stat()
        is_trusted = live.confinement.trusts(path)
    except FileNotFoundError:
        return f"{line.place} loads {path}, which does not exist.", ""
    except OSError as error:
        return "", f"{line.place} loads {path}, which the agent cannot read: {error.strerror}."
    if not live.confinement.is_isolated and live.confinement.forbids(path):
        return f"{line.place} loads {path}, which {live.confinement.unit} forbids the server to execute.", ""
    if not is_trusted:
        return "", f"{line.place} loads {path}, which another user than root and the agent's can change."
    if live.confinement.user is None and not os.access(path, os.R_OK):
        return "", f"{line.place} loads {path}, which the agent cannot read: Permission denied."
    return "", ""


def _identity(path: str) -> tuple[str | int, ...]:
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return (path,)
    # The time of change: a person can set that of the content, and it does not tell of other rights.
    return path, found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns


def _refusal(server: ScratchServer, start: NextStart, seconds: float) -> str:
    """Return why the server does not start, empty if it does."""
    try:
        with server.started([" ".join([each.words[0], *map(quoted, each.words[1:])]) for each in start.lines]):
            return ""
    except ScratchSilentError:
        return f"The server has not started within {seconds:.3g} s."
    except ScratchEndedError as error:
        if not start.lines:
            raise UnavailableError(error.in_words) from error
        return _explained(server, start.modules, error)


def _explained(server: ScratchServer, modules: Sequence[Directive], error: ScratchEndedError) -> str:
    logged = last_words([redacted(each, ()) for each in error.lines]) or "its log is empty"
    found = re.search(r"Can't load module from (.*): server aborting", "\n".join(error.lines))
    culprits = [each for each in modules if found and each.words[1] == found[1]]
    if not culprits:
        return f"The server does not start ({error.ended}): {logged}."
    culprit = culprits[-1]
    try:
        if twin := _twin(server, modules[: modules.index(culprit)], culprit):
            return twin
    except (ScratchEndedError, ScratchSilentError, RefusedError):
        pass  # it does not load alone either
    return f"The server does not start with {culprit.place}, which loads {culprit.words[1]}: {logged}."


def _twin(server: ScratchServer, before: Sequence[Directive], culprit: Directive) -> str:
    """Return the sentence for a module that an earlier line has loaded, or an empty text."""
    with server.started() as session:
        session.load(culprit.words[1], culprit.words[2:])
        own = next((each.name for each in session.modules() if each.path == culprit.words[1]), "")
    with server.started([load_line(each.words[1], each.words[2:]) for each in before]) as session:
        paths = {each.path: each.name for each in session.modules()}
        names = {paths[each.words[1]]: each.place for each in before if each.words[1] in paths}
    if own not in names:
        return ""
    return f"Two lines load the module {own}: {names[own]} and {culprit.place}. Remove one of them."
