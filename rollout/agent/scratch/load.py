"""Loads a module into a scratch server, and learns what the live server would have to bear.

1. Start a server, load the other modules of the live one, then the module.
2. Save an empty RDB, and unload the module.
3. Start the server again on that RDB, without the module.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from rollout.agent.failure import Failure
from rollout.agent.module_files.include import load_line
from rollout.agent.scratch.live import LiveServer
from rollout.agent.scratch.server import (
    ScratchEndedError,
    ScratchServer,
    ScratchSilentError,
    UnavailableError,
    last_words,
    scratch_server,
)
from rollout.agent.server.causes import LoadRefusedError, UnloadRefusedError, taken_commands, why_not_loaded
from rollout.agent.server.observation import product
from rollout.agent.server.server_log import escaped, redacted
from rollout.agent.server.session import LoadedModule, RefusedError, Session
from rollout.agent.server.swap import load, unload
from rollout.agent.server.texts import storable
from rollout.messages import MOST_SCRATCH_FACTS, Reason, ScratchLoad

#: Limit of each fact, characters.
LONGEST_FACT = 250


class ScratchLoadError(Failure):
    """The module did not load in a scratch server. `lines` are what that server logged; not redacted."""

    def __init__(self, reason: Reason, message: str, lines: Sequence[str], names: Sequence[str]) -> None:
        shown = last_words([redacted(each, names) for each in lines])
        logged = f" The server logged: {shown}." if shown else ""
        super().__init__(reason, f"In a scratch server: {message}{logged}")
        self.lines = tuple(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What to load. `module` and `others` have paths as the agent sees them. `others` are in the order of their load, as
    far as it is known. `commands` are those that the module is expected to add."""

    key: str
    module: LoadedModule
    others: tuple[LoadedModule, ...]
    commands: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.module.name} {self.module.version}"


def load_in_scratch(live: LiveServer, trial: Trial, *, seconds: float) -> ScratchLoad:
    """Load the module, and return what was learned. It takes `seconds` at most.

    Raises: `ScratchLoadError`; `UnavailableError` if no scratch server can run here.
    """
    confinement = live.confinement
    if not confinement.is_isolated and confinement.forbids(trial.module.path):
        words = f"{confinement.unit} forbids the server to execute {trial.module.path}. Add its directory to ExecPaths."
        raise _failed(trial, Reason.EXECUTION_FORBIDDEN, words, ())
    confinement = confinement.showing([trial.module.path, *(each.path for each in trial.others)])
    with scratch_server(live.program, confinement, seconds=seconds, copied=live.running) as server:
        learned, loaded = _first_start(server, live, trial, seconds)
        aux_data, difference = _second_start(server, loaded)
        differences = (*live.confinement.differences, *learned.differences, *difference)
        return replace(learned, aux_data=aux_data, differences=_facts(differences))


def _first_start(
    server: ScratchServer, live: LiveServer, trial: Trial, seconds: float
) -> tuple[ScratchLoad, tuple[LoadedModule, ...]]:
    """Return what was learned, and the other modules that were loaded."""
    others = trial.others
    while True:
        doing = f"{others[0].name} {others[0].version} was loaded" if others else "it started"
        try:
            with server.started() as session:
                refuse_other_version(session, live)
                loaded = load_others(session, others)
                left_out = [f"module: {each.name} is not loaded in it" for each in trial.others if each not in loaded]
                doing = f"{trial.name} was loaded"
                server.mark_log()
                _load(server, session, trial)
                commands = session.commands_of(trial.module.name)
                options = _options(session, trial.module.name)
                doing = f"{trial.name} saved an empty RDB"
                session.call("SAVE")
                doing = f"{trial.name} was unloaded"
                has_types = _exports_types(session, trial.module)
                session.ping()
        except ScratchSilentError as error:
            if not doing.startswith(trial.name):
                raise UnavailableError(f"{error} The module was not loaded yet.") from error
            words = f"the server did not answer within {seconds:.3g} s when {doing}."
            raise _failed(trial, Reason.SCRATCH_HUNG, words, error.lines) from error
        except RefusedError as refused:  # a module can change the commands that a server gets
            if not doing.startswith(trial.name):
                raise UnavailableError(
                    f"The scratch server refused: {refused}. The module was not loaded yet."
                ) from refused
            words = f"after {trial.name} was loaded, the server refused: {refused}."
            raise _failed(trial, Reason.SCRATCH_LOAD_FAILED, words, server.log()) from refused
        except ScratchEndedError as error:
            if others and not doing.startswith(trial.name):
                others = ()  # the fault is not the module's: try it alone
                continue
            if not doing.startswith(trial.name):
                raise UnavailableError(error.in_words) from error
            words = f"the server ended when {doing} ({error.ended})."
            raise _failed(trial, Reason.SCRATCH_LOAD_FAILED, words, error.lines) from error
        learned = ScratchLoad(
            key=trial.key,
            has_types=has_types,
            commands=_facts(sorted(commands)),
            options=_facts(sorted(options)),
            differences=tuple(left_out),
        )
        return learned, loaded


def _second_start(server: ScratchServer, loaded: Sequence[LoadedModule]) -> tuple[bool | None, tuple[str, ...]]:
    """Start without the module, on the RDB that was saved with it. Return True if that fails for its auxiliary data."""
    lines = [load_line(each.path, each.args) for each in loaded]
    try:
        with server.started(lines):
            return False, ()
    except (ScratchEndedError, ScratchSilentError) as error:
        if any("AUX" in each for each in error.lines):
            return True, ()
        return None, (f"auxiliary data: not known, the start without the module failed: {last_words(error.lines)}",)


def refuse_other_version(session: Session, live: LiveServer) -> None:
    """Raises: `UnavailableError` if the program on disk is not the one that runs."""
    on_disk = " ".join(product(session.info("server")))
    if on_disk != live.product:
        raise UnavailableError(
            f"The program {live.program} is {on_disk}, and the running server is {live.product}. Restart the server, or "
            f"install the module first on a node that runs {live.product} with its program."
        )


def load_others(session: Session, others: Sequence[LoadedModule]) -> tuple[LoadedModule, ...]:
    """Load the other modules, and return those that have loaded. A module is tried again after those that it may need."""
    loaded: list[LoadedModule] = []
    while True:
        before = len(loaded)
        for each in others:
            if each not in loaded:
                with suppress(RefusedError):
                    session.load(each.path, each.args)
                    loaded.append(each)
        if len(loaded) in {before, len(others)}:
            return tuple(loaded)


def _load(server: ScratchServer, session: Session, trial: Trial) -> None:
    try:
        load(session, trial.module)
    except LoadRefusedError as refused:
        try:
            taken = taken_commands(session, trial.module, trial.commands)
        except RefusedError:
            taken = {}
        lines = server.log()
        cause = why_not_loaded(refused, lines, taken)
        raise _failed(trial, cause.reason, cause.message, lines) from refused


def _exports_types(session: Session, module: LoadedModule) -> bool | None:
    """Unload the module. Return True if it exports data types; None if that is not known.

    A server looks for data types first: if it names a timer, a blocked client or another module, there is none (moduleUnload in
    module.c of Redis 7.0.15 and Valkey 9.1).
    """
    try:
        unload(session, module)
    except UnloadRefusedError as refused:
        if refused.reason in {Reason.MODULE_BUSY, Reason.USED_BY_MODULE}:
            return False
        return True if refused.exports_types else None
    return False


def _options(session: Session, module_name: str) -> list[str]:
    answer = session.call("CONFIG", "GET", f"{module_name}.*")
    return [str(each) for each in answer[::2]]


def _failed(trial: Trial, reason: Reason, message: str, lines: Sequence[str]) -> ScratchLoadError:
    return ScratchLoadError(reason, message, lines, [trial.module.name, *trial.commands])


def _facts(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(escaped(storable(each))[:LONGEST_FACT] for each in texts[:MOST_SCRATCH_FACTS])
