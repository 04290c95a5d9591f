"""The node's Redis or Valkey server, and the few commands that the agent needs.

Every call is sent once and never repeated by itself: a MODULE LOAD that killed the server must not kill it again.
"""

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import redis
from redis.exceptions import AuthenticationError, BusyLoadingError, NoPermissionError, RedisError, ResponseError

from rollout.agent.failure import AgentError, Failure
from rollout.agent.inspection.regular_file import read_secret
from rollout.agent.server.adoptions import Adoptions
from rollout.agent.settings import AgentSettings
from rollout.messages import Reason
from rollout.tls import in_words, secured

#: The longest time to connect, and for the answer to a command other than MODULE LOAD and UNLOAD, seconds.
ANSWER_SECONDS = 5.0


class RefusedError(AgentError):
    """The server answered with an error. The message is the server's.

    `lacks_permission`: the agent's user may not call the command.
    """

    def __init__(self, error: ResponseError) -> None:
        super().__init__(str(error))
        self.lacks_permission = isinstance(error, NoPermissionError)


class ServerLostError(Failure):
    """The server closed the connection instead of answering."""

    def __init__(self, words: str) -> None:
        super().__init__(Reason.SERVER_UNREACHABLE, f"The server closed the connection: {words}.")


class UserRefusedError(Failure):
    """The server refuses the agent's user or its password."""


class ServerSilentError(Failure):
    """The server did not answer in time."""

    def __init__(self, command: str, seconds: float) -> None:
        super().__init__(Reason.SERVER_UNREACHABLE, f"The server did not answer {command} within {seconds:.1f} s.")
        self.seconds = seconds


class ServerLoadingError(Failure):
    """The server is reading its data, and answers few commands."""

    def __init__(self) -> None:
        super().__init__(Reason.SERVER_UNREACHABLE, "The server is still loading its data. Retry later.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModule:
    """One entry of MODULE LIST. `path` is as the server sees it, and empty for a built-in module."""

    name: str
    version: int
    path: str
    args: tuple[str, ...] = ()


class Session:
    """One connection to the server. Each call may take `seconds`."""

    def __init__(self, connection: Any, seconds: float, adoptions: Adoptions | None = None) -> None:
        self._connection = connection
        self._seconds = seconds
        self._adoptions = adoptions

    def modules(self) -> tuple[LoadedModule, ...]:
        """Return all loaded modules. The path of an adopted one is that in the module store."""
        modules = self.modules_as_loaded()
        known = {each.source: each for each in self._adoptions.all()} if self._adoptions else {}
        adopted = {each: known[key] for each in modules if (key := (each.name, each.version, each.path)) in known}
        if not adopted:
            return modules
        run_id = self.info("server").get("run_id")
        return tuple(
            replace(each, path=adopted[each].target) if each in adopted and adopted[each].run_id == run_id else each
            for each in modules
        )

    def modules_as_loaded(self) -> tuple[LoadedModule, ...]:
        """Return all loaded modules with the paths from which the server has loaded them."""
        return tuple(_loaded_module(pairs) for pairs in self.call("MODULE", "LIST"))

    def load(self, path: str, args: Iterable[str]) -> None:
        self.call("MODULE", "LOAD", path, *args)

    def unload(self, name: str) -> None:
        self.call("MODULE", "UNLOAD", name)

    def swap(self, name: str, path: str, args: Iterable[str]) -> tuple[RefusedError | None, RefusedError | None]:
        """Unload `name` and load `path`, in one transaction. Return the error of each, or None.

        No client is served in between. EXEC goes on after an error. Raises: `RefusedError` if neither was tried.
        """
        unload, load = ("MODULE", "UNLOAD", name), ("MODULE", "LOAD", path, *args)
        with self._answering("MODULE UNLOAD and LOAD"):
            self._connection.send_packed_command(self._connection.pack_commands([("MULTI",), unload, load, ("EXEC",)]))
            queued = [self._read() for _ in range(3)]
            answers = self._read()
        if refused := next((each for each in queued if isinstance(each, ResponseError)), None):
            raise RefusedError(refused)
        if isinstance(answers, ResponseError):
            raise RefusedError(answers)
        unloaded, loaded = (RefusedError(each) if isinstance(each, ResponseError) else None for each in answers)
        return unloaded, loaded

    def unload_and_count(self, name: str) -> tuple[dict[str, int], RefusedError | None]:
        """Unload `name`. Return the calls of each command until then, and the error. No client is served in between.

        Raises: `RefusedError` if it was not tried.
        """
        words = [("MULTI",), ("INFO", "commandstats"), ("MODULE", "UNLOAD", name), ("EXEC",)]
        *queued, answers = self.call_all(words, "MODULE UNLOAD")
        if refused := next((each for each in (*queued, answers) if isinstance(each, RefusedError)), None):
            raise refused
        stats, unloaded = answers
        if isinstance(stats, ResponseError):
            raise RefusedError(stats)
        return calls_in(_fields(stats)), RefusedError(unloaded) if isinstance(unloaded, ResponseError) else None

    def commands_of(self, module_name: str) -> list[str]:
        """Return the names of the commands that a loaded module has registered."""
        return list(self.call("COMMAND", "LIST", "FILTERBY", "MODULE", module_name))

    def write_commands_of(self, module_name: str) -> list[str]:
        """Return the names of those that write."""
        names = self.commands_of(module_name)
        answers = self.call("COMMAND", "INFO", *names) if names else []
        return [name for name, answer in zip(names, answers, strict=True) if answer and _is_write(answer)]

    def loads(self) -> int:
        """Return how often MODULE LOAD was called since the server started, or CONFIG RESETSTAT was called."""
        return _loads_in(self.info("commandstats"))

    def called(self, commands: Iterable[str], *, loads: int) -> list[str]:
        """Return the commands that were called since MODULE LOAD was called for the last time.

        `loads`: how often it was called by then. If it is fewer times now, CONFIG RESETSTAT has reset all counts, and no call
        is known: then these are all commands.
        """
        stats = self.info("commandstats")
        counts = calls_in(stats)
        return [each for each in commands if counts.get(each.lower()) or _loads_in(stats) < loads]

    def writes_aof(self) -> bool:
        return self.info("persistence").get("aof_enabled") != "0"

    def has_keys(self) -> bool:
        """Return True if any database has a key."""
        return bool(self.info("keyspace"))

    def missing(self, commands: Sequence[str]) -> list[str]:
        """Return the commands that the server does not know."""
        if not commands:
            return []
        answers = self.call("COMMAND", "INFO", *commands)
        return [name for name, answer in zip(commands, answers, strict=True) if not answer]

    def log_file(self) -> str:
        """Return the path of the server's log as the server sees it, empty if it logs to its standard output."""
        answer = self.call("CONFIG", "GET", "logfile")
        file = str(answer[1]) if answer else ""
        if not file or file.startswith("/"):
            return file
        return f"{self.call('CONFIG', 'GET', 'dir')[1]}/{file}"

    def acl_rules(self) -> list[str]:
        """Return the rules of all ACL users, which include the hashes of their passwords."""
        return [str(each) for each in self.call("ACL", "LIST")]

    def ping(self) -> None:
        self.call("PING")

    def shutdown(self, *, saves: bool) -> None:
        """Save the data if asked to, and end the server. Raises: `RefusedError` if it goes on, `ServerSilentError`."""
        try:
            self.call("SHUTDOWN", "SAVE" if saves else "NOSAVE")
        except ServerLostError:
            return

    def info(self, *sections: str) -> dict[str, str]:
        """Return the fields of these sections of INFO. Servers before Redis 7.0 take only one."""
        return _fields(self.call("INFO", *sections))

    def call_all(self, commands: Sequence[Sequence[str]], what: str) -> list[Any]:
        """Call all commands at once. Return the answer, or the error, of each. `what` names them in a failure."""
        with self._answering(what):
            self._connection.send_packed_command(self._connection.pack_commands(commands))
            answers = [self._read() for _ in commands]
        return [RefusedError(each) if isinstance(each, ResponseError) else each for each in answers]

    def call(self, *words: str | bytes) -> Any:
        """Call a command and return the answer. Raises: `RefusedError`, `ServerLostError`, `ServerSilentError`, `Failure`."""
        with self._answering(" ".join(map(str, words[:2]))):
            self._connection.send_command(*words)
            return self._connection.read_response()

    def _read(self) -> Any:
        """Return the next answer. An error that the server answers is returned too."""
        try:
            return self._connection.read_response()
        except ResponseError as error:
            return error

    @contextmanager
    def _answering(self, command: str) -> Iterator[None]:
        try:
            yield
        except BusyLoadingError as error:
            raise ServerLoadingError from error
        except redis.TimeoutError as error:
            raise ServerSilentError(command, self._seconds) from error
        except ResponseError as error:
            raise RefusedError(error) from error
        except (RedisError, OSError) as error:
            raise ServerLostError(str(error)) from error


class Server:
    """The server of these settings. No connection is open between two sessions."""

    def __init__(self, settings: AgentSettings, adoptions: Adoptions | None = None) -> None:
        self._settings = settings
        self._adoptions = adoptions

    @contextmanager
    def session(self, seconds: float = ANSWER_SECONDS, *, encoding_errors: str = "replace") -> Iterator[Session]:
        """Open a connection. Raises: `Failure` (server_unreachable) if that fails, or the password is refused.

        `encoding_errors`: how to read what is no UTF-8. With `surrogateescape`, it is sent as it was read.
        """
        connection = self._connection(seconds, encoding_errors)
        try:
            self._connect(connection)
            yield Session(connection, seconds, self._adoptions)
        finally:
            connection.disconnect()

    def comes_back(self, seconds: float) -> bool:
        """Return True if the server answers within `seconds`."""
        end = time.monotonic() + seconds
        while True:
            try:
                with self.session(ANSWER_SECONDS) as session:
                    session.ping()
                    return True
            except (Failure, RefusedError):
                if time.monotonic() > end:
                    return False
                time.sleep(0.05)

    def _connect(self, connection: Any) -> None:
        started = time.monotonic()
        try:
            connection.connect()
        except redis.TimeoutError as error:  # a server that hangs accepts no connection once its backlog is full
            raise ServerSilentError("a new connection", time.monotonic() - started) from error
        except (RedisError, OSError) as error:
            url = self._settings.server_url.rpartition("@")[2]
            words = in_words(error, "MODFLEET_SERVER_CA")
            kind = UserRefusedError if isinstance(error, AuthenticationError) else Failure
            raise kind(Reason.SERVER_UNREACHABLE, f"The server at {url} cannot be reached: {words}.") from error

    def _connection(self, seconds: float, encoding_errors: str) -> Any:
        password_file = self._settings.server_password_file
        credentials = {
            "username": self._settings.server_user or None,
            "password": read_secret(password_file) if password_file else None,
        }
        pool = redis.ConnectionPool.from_url(
            secured(
                self._settings.server_url,
                ca=self._settings.server_ca,
                certificate=self._settings.server_certificate,
                key=self._settings.server_key,
            ),
            socket_timeout=seconds,
            socket_connect_timeout=min(seconds, ANSWER_SECONDS),
            protocol=2,
            decode_responses=True,
            encoding_errors=encoding_errors,
            driver_info=None,  # else redis-py reads its own package metadata for each connection, 2.5 ms
            **{key: value for key, value in credentials.items() if value},
        )
        return pool.make_connection()


def calls_in(info: Mapping[str, str]) -> dict[str, int]:
    """Return the calls of each command in INFO's commandstats, with those of its subcommands."""
    calls: dict[str, int] = {}
    for key, value in info.items():
        if key.startswith("cmdstat_") and (found := re.match(r"calls=(\d+)", value)):
            name = key.removeprefix("cmdstat_").partition("|")[0].lower()
            calls[name] = calls.get(name, 0) + int(found[1])
    return calls


def _loads_in(info: Mapping[str, str]) -> int:
    found = re.match(r"calls=(\d+)", info.get("cmdstat_module|load", ""))
    return int(found[1]) if found else 0


def _fields(text: object) -> dict[str, str]:
    return {key: value for key, colon, value in (line.partition(":") for line in str(text).splitlines()) if colon}


def _is_write(answer: Sequence[Any]) -> bool:
    """Return True if this answer of COMMAND INFO is of a command that writes, or has a subcommand that does."""
    subcommands = answer[9] if len(answer) > 9 else ()  # since Redis 7.0
    return "write" in answer[2] or any(_is_write(each) for each in subcommands)


def _loaded_module(pairs: Sequence[Any]) -> LoadedModule:
    fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
    return LoadedModule(
        name=str(fields["name"]),
        version=int(fields["ver"]),
        path=str(fields.get("path", "")),  # since Redis 7.0
        args=tuple(str(word) for word in fields.get("args", ())),
    )
