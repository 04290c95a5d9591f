"""Finds out if a former version of a module can read what the new one writes.

1. Start a server, load the other modules of the live one and the new version, RESTORE the values, SAVE.
2. Start it on that RDB with the former version, and RESTORE the values again: DUMP and RDB may differ.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rollout.agent.failure import AgentError
from rollout.agent.module_files.include import load_line
from rollout.agent.scratch.live import LiveServer
from rollout.agent.scratch.load import load_others, refuse_other_version
from rollout.agent.scratch.server import (
    ScratchEndedError,
    ScratchServer,
    ScratchSilentError,
    last_words,
    scratch_server,
)
from rollout.agent.server.server_log import redacted
from rollout.agent.server.session import LoadedModule, RefusedError, Session
from rollout.agent.server.swap import load


class NotTriedError(AgentError):
    """It is not known if the former version can read that. The message is one or two sentences."""


class CannotReadError(AgentError):
    """The former version cannot read what the new one writes. The message is one or two sentences, with the server's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """Both versions, and the other modules of the server in the order of their load. Their paths are as the agent sees them."""

    former: LoadedModule
    new: LoadedModule
    others: tuple[LoadedModule, ...]


def read_back(live: LiveServer, versions: Versions, values: Sequence[bytes], *, seconds: float) -> None:
    """Let the former version read the values, which DUMP has returned with the new one.

    It takes `seconds` at most. Raises: `CannotReadError`; `NotTriedError` or `UnavailableError` if that could not be tried.
    """
    paths = [each.path for each in (versions.former, versions.new, *versions.others)]
    confinement = live.confinement.showing(paths)
    if not confinement.is_isolated and (forbidden := [each for each in paths if confinement.forbids(each)]):
        raise NotTriedError(f"{confinement.unit} forbids the server to execute {forbidden[0]}.")
    with scratch_server(live.program, confinement, seconds=seconds, copied=live.running) as server:
        try:
            others = _write(server, live, versions, values)
            _read(server, (*others, versions.former), values)
        except ScratchSilentError as error:
            raise NotTriedError(f"The trial took longer than {seconds:.3g} s.") from error


def _write(
    server: ScratchServer, live: LiveServer, versions: Versions, values: Sequence[bytes]
) -> tuple[LoadedModule, ...]:
    """Save an RDB with the new version. Return the other modules that have loaded."""
    try:
        with server.started() as session:
            refuse_other_version(session, live)
            others = load_others(session, versions.others)
            load(session, versions.new)
            _restore(session, values)
            session.call("SAVE")
    except ScratchEndedError as error:
        raise NotTriedError(f"With the new version: {error.in_words}") from error
    except RefusedError as error:
        raise NotTriedError(f"With the new version, a scratch server refused: {error}.") from error
    return others


def _read(server: ScratchServer, modules: Sequence[LoadedModule], values: Sequence[bytes]) -> None:
    lines = [load_line(each.path, each.args) for each in modules]
    try:
        with server.started(lines) as session:
            if (found := session.call("DBSIZE")) != len(values):
                raise CannotReadError(
                    f"A server with the former version does not read all keys: {found} of {len(values)}."
                )
            server.mark_log()
            try:
                _restore(session, values)
            except RefusedError as refused:
                words = f"a server refuses a value of the new one ({str(refused).rstrip('.')})"
                raise CannotReadError(_in_words(words, server.log(), modules)) from refused
    except ScratchEndedError as error:
        _refuse_if_it_never_starts(server, lines)
        words = f"a server does not read what the new one has saved ({error.ended})"
        raise CannotReadError(_in_words(words, error.lines, modules)) from error
    except RefusedError as error:
        raise NotTriedError(f"With the former version, a scratch server refused: {error}.") from error


def _restore(session: Session, values: Sequence[bytes]) -> None:
    """Raises: `RefusedError`. The keys have other names than in the live server: names are data."""
    for number, value in enumerate(values):
        session.call("RESTORE", str(number), "0", value, "REPLACE")


def _in_words(what: str, log: Sequence[str], modules: Iterable[LoadedModule]) -> str:
    """Return the sentences with the server's own words: what it has logged before it checked the RDB, which is whole."""
    checks = next((place for place, line in enumerate(log) if "Checking RDB file" in line), len(log))
    lines = [redacted(each, {module.name for module in modules}) for each in log[:checks]]
    logged = last_words([each for each in lines if not each.startswith("*")] or lines)
    return f"With the former version, {what}.{f' It logged: {logged}.' if logged else ''}"


def _refuse_if_it_never_starts(server: ScratchServer, lines: Sequence[str]) -> None:
    """Raises: `NotTriedError` if the server does not start without the RDB either."""
    try:
        with server.started([*lines, "dbfilename none"]):
            return
    except ScratchEndedError as error:
        raise NotTriedError(f"With the former version: {error.in_words}") from error
