"""A scratch server: a program with no data and no port, in a directory of its own, for as long as a block runs."""

import fcntl
import json
import os
import re
import secrets
import select
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from rollout.agent.failure import AgentError, Failure
from rollout.agent.module_files.include import quoted
from rollout.agent.scratch.confinement import Confinement, keeper_words, scratch_environment
from rollout.agent.scratch.keeper import delete
from rollout.agent.scratch.namespaces import NOT_STARTED
from rollout.agent.server.server_log import redacted, telling_lines
from rollout.agent.server.session import ServerSilentError, Session
from rollout.messages import Reason

PREFIX = "modfleet-scratch-"
#: The directory of the server in that of the agent.
OWN = "d"
#: The kernel's limit for the path of a Unix socket, bytes.
LONGEST_SOCKET_PATH = 107
#: No scratch server lives so long, seconds: a directory that is older was left behind by a keeper that was killed.
ABANDONED_SECONDS = 3600.0
#: Bytes of the log that are read.
MOST_LOG_BYTES = 1_000_000
#: Seconds between two attempts to connect to a server that starts.
POLL_SECONDS = 0.003
#: Seconds more than the deadline after which the keeper ends everything by itself.
GRACE_SECONDS = 10.0
#: How long the end of the keeper is waited for, seconds.
END_SECONDS = 10.0

#: Logged at each start.
_USELESS = re.compile(r"Server initialized|Memory overcommit|eady to accept connections")
_CRASH = re.compile(r"crashed by signal|ASSERTION FAILED|Guru Meditation")
#: Lines of a log in a message.
SHOWN_LINES = 3
_LINES = (
    *(
        "maxclients 100",
        "port 0",
        "save ''",
        "appendonly no",
        "enable-module-command yes",
        "daemonize no",
        "crash-memcheck-enabled no",
    ),
    *("unixsocketperm 700", "logfile ''", "always-show-logo no"),
)


class UnavailableError(AgentError):
    """No scratch server can run here. The message is one sentence."""


class ScratchEndedError(AgentError):
    """The scratch server has ended. `ended` says how, such as `exit code 1`; `lines` are the end of its log."""

    def __init__(self, ended: str, lines: Sequence[str]) -> None:
        super().__init__(f"The scratch server has ended ({ended}).")
        self.ended = ended
        self.lines = tuple(lines)

    @property
    def in_words(self) -> str:
        """The message, with the end of the log."""
        words = last_words([redacted(each, ()) for each in self.lines])
        return f"{self} It logged: {words}." if words else str(self)


class ScratchSilentError(AgentError):
    """The scratch server did not start, or did not answer, in time. It was killed."""

    def __init__(self, seconds: float, lines: Sequence[str]) -> None:
        super().__init__(f"The scratch server did not answer within {seconds:g} s.")
        self.lines = tuple(lines)


class ScratchServer:
    """The server in `directory`. `start` may be called several times: each ends the server before it."""

    def __init__(
        self,
        directory: Path,
        program: Path,
        confinement: Confinement,
        keeper_process: "subprocess.Popen[bytes]",
        *,
        seconds: float,
    ) -> None:
        self.directory = directory
        self._program = program
        self._confinement = confinement
        self._keeper = keeper_process
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._starts = 0
        self._ended = ""
        self._mark = 0

    @contextmanager
    def started(self, lines: Sequence[str] = ()) -> Iterator[Session]:
        """Start the server with these lines of configuration. Give a session once it has started.

        Raises: `ScratchEndedError`, `ScratchSilentError`, also for the calls of the session.
        """
        self._start(lines)
        connection = self._connected()
        try:
            yield Session(connection, self._left())
        except ServerSilentError as error:
            raise ScratchSilentError(self._seconds, self.log()) from error
        except Failure as failure:
            if failure.reason is not Reason.SERVER_UNREACHABLE:
                raise
            self._wait_for_end(GRACE_SECONDS)
            raise ScratchEndedError(self._ended or failure.message, self.log()) from failure
        finally:
            connection.disconnect()

    def mark_log(self) -> None:
        """Return from `log` only what is logged from now on."""
        self._mark = self._log_file().stat().st_size

    def log(self) -> tuple[str, ...]:
        """Return the telling lines of the log since the mark, or else since the start. Not redacted."""
        try:
            file = os.fdopen(os.open(self._log_file(), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
        except OSError:
            return ()
        with file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # without a barrier, the module can replace it
                return ()
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._mark, size - MOST_LOG_BYTES))
            text = file.read(MOST_LOG_BYTES)
        lines = text.decode(errors="replace").splitlines()
        started = next((place for place, line in enumerate(lines) if "Running mode=" in line), -1)
        told = [line for line in lines[started + 1 :] if not _USELESS.search(line)]
        return telling_lines(told)

    @property
    def _socket(self) -> Path:
        return self.directory / OWN / "s"

    def _log_file(self) -> Path:
        return self.directory / f"log{self._starts}"

    def _start(self, lines: Sequence[str]) -> None:
        self._starts, self._ended, self._mark = self._starts + 1, "", 0
        self._socket.unlink(missing_ok=True)
        configuration = self.directory / f"conf{self._starts}"
        own = (*_LINES, f"unixsocket {quoted(str(self._socket))}", f"dir {quoted(str(self.directory / OWN))}")
        configuration.write_text("".join(f"{line}\n" for line in (*own, *lines)), errors="surrogateescape")
        configuration.chmod(0o644)  # in a directory whose names no other user can list
        words = self._confinement.words(self._program, self.directory / OWN, [str(configuration)])
        self._send({"words": words, "output": str(self._log_file())})

    def _send(self, message: dict[str, Any]) -> None:
        try:
            os.write(self._keeper_input(), json.dumps(message).encode() + b"\n")
        except BrokenPipeError as error:
            raise UnavailableError("The process that starts scratch servers has ended.") from error

    def _keeper_input(self) -> int:
        assert self._keeper.stdin  # noqa: S101 - it has a pipe
        return self._keeper.stdin.fileno()

    def _connected(self) -> Any:
        pool = redis.ConnectionPool(
            connection_class=redis.UnixDomainSocketConnection,
            path=str(self._socket),
            socket_timeout=self._left(),
            protocol=2,
            decode_responses=True,
            encoding_errors="replace",
            driver_info=None,
        )
        connection: Any = pool.make_connection()
        while True:
            with suppress(redis.RedisError, OSError):
                connection.connect()
                connection.send_command("PING")  # a server accepts connections before it has loaded its modules
                connection.read_response()
                return connection
            self._wait_for_end(POLL_SECONDS)
            if self._ended == f"exit code {NOT_STARTED}":
                words = last_words([redacted(each, ()) for each in self.log()]) or "its log is empty"
                raise UnavailableError(f"The scratch server could not be started: {words}.")
            if self._ended:
                raise ScratchEndedError(self._ended, self.log())
            if self._left() <= POLL_SECONDS:
                raise ScratchSilentError(self._seconds, self.log())

    def _wait_for_end(self, seconds: float) -> None:
        """Wait until the program has ended, for at most so long."""
        assert self._keeper.stdout  # noqa: S101 - likewise
        if select.select([self._keeper.stdout], [], [], seconds)[0]:
            code = os.read(self._keeper.stdout.fileno(), 64).decode().split()
            number = int(code[-1]) if code else NOT_STARTED
            self._ended = f"signal {-number}" if number < 0 else f"exit code {number}"

    def _left(self) -> float:
        return max(POLL_SECONDS, self._end - time.monotonic())


@contextmanager
def scratch_server(
    program: Path, confinement: Confinement, *, seconds: float, copied: Path | None = None
) -> Iterator[ScratchServer]:
    """Give a scratch server of `program` that ends with the block, or after `seconds`. `copied`: the program to run instead,
    from a copy with the same name: a server may behave as its name says.

    Raises: `UnavailableError`.
    """
    if not os.access(copied or program, os.X_OK):
        raise UnavailableError(f"The server's program {program} cannot be executed here.")
    if not confinement.trusts(copied or program):
        raise UnavailableError(
            f"The server's program {program} can be replaced by another user than root and the agent's."
        )
    _sweep()
    process, directory = _keeper(), None
    try:
        name = _new_name()
        if copied:
            program = Path(name) / program.name
        directory = _directory(process, name, program, confinement, seconds)
        if copied:
            shutil.copyfile(copied, program)
            program.chmod(0o755)
        yield ScratchServer(directory, program, confinement, process, seconds=seconds)
    finally:
        _end(process)
        if directory is not None:  # left behind by a keeper that was killed
            delete(str(directory))


def last_words(lines: Sequence[str]) -> str:
    """Return the last lines of a log, in one line without a period; of a crash, those up to the first line of its report."""
    told = [line for line in lines if "BUG REPORT START" not in line]
    crash = next((place for place, line in enumerate(told) if _CRASH.search(line)), len(told) - 1)
    return "; ".join(each.lstrip("-.*# ").rstrip(". ") for each in told[max(0, crash + 1 - SHOWN_LINES) : crash + 1])


def _keeper() -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(  # noqa: S603 - our own program
            keeper_words(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            stderr=subprocess.DEVNULL,
            env=scratch_environment(os.environ),
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise UnavailableError(f"No process can be started: {error.strerror}.") from error


def _directory(
    process: "subprocess.Popen[bytes]", name: str, program: Path, confinement: Confinement, seconds: float
) -> Path:
    """Let the keeper create its directory, so that it also deletes the directory of an agent that is killed now."""
    assert process.stdin  # noqa: S101 - it has pipes
    assert process.stdout  # noqa: S101 - likewise
    limits = {
        "directory": name,
        "seconds": seconds + GRACE_SECONDS,
        "own": f"{name}/{OWN}",
        "user": confinement.user,
        "view": confinement.view(program),
        "barrier": confinement.barrier(program, name, f"{name}/{OWN}"),
        "helper": bool(confinement.bubblewrap) and not confinement.is_isolated,
        "megabytes": confinement.megabytes,
        "write_execute": not confinement.denies_write_execute,
        "resources": confinement.resources(seconds),
    }
    with suppress(BrokenPipeError):
        os.write(process.stdin.fileno(), json.dumps(limits).encode() + b"\n")
    answer = process.stdout.readline().decode().rstrip("\n")
    if answer != limits["directory"]:
        words = answer.strip() or "the process that creates it has ended"
        raise UnavailableError(f"The temporary directory {limits['directory']} cannot be created: {words}.")
    return Path(answer)


def _new_name() -> str:
    """Return a new path that leaves room for the name of a socket."""
    for parent in dict.fromkeys((tempfile.gettempdir(), "/tmp")):  # noqa: S108 - the directory is private
        name = f"{parent}/{PREFIX}{secrets.token_hex(4)}"
        if len(os.fsencode(name)) + len(f"/{OWN}/s") <= LONGEST_SOCKET_PATH:
            return name
    raise UnavailableError("The path of the directory for temporary files is too long. Set TMPDIR to a shorter one.")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Close the keeper's input: it kills the server, and ends. It is not killed: then nothing would end what is left."""
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)


def _sweep() -> None:
    """Delete directories that killed keepers have left behind."""
    with suppress(OSError):
        for each in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            found = each.lstat()
            is_old = found.st_mtime < time.time() - ABANDONED_SECONDS
            if is_old and found.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode) and not _is_held(each):
                delete(str(each))


def _is_held(directory: Path) -> bool:
    """Return True if a keeper lives that has created the directory: the clock alone may be wrong."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
