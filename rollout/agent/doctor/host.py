"""The facts that several checks need, each read once: about the server, its process and its configuration."""

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import redis
from redis.exceptions import AuthenticationError, NoPermissionError

from rollout import tls
from rollout.agent.control_plane.identity import IdentityError
from rollout.agent.control_plane.trust import Trust
from rollout.agent.doctor.outcome import Outcome, UnknownError, failed, passed, warned
from rollout.agent.failure import Failure
from rollout.agent.inspection.configuration import Configuration, Directive, from_arguments, read_configuration
from rollout.agent.inspection.host_files import ROOT
from rollout.agent.inspection.mounts import sees_same
from rollout.agent.inspection.process import Process, read_process, server_pid
from rollout.agent.inspection.systemd import unit_settings
from rollout.agent.server.session import LoadedModule, RefusedError, Server, ServerLoadingError, Session
from rollout.agent.settings import AgentSettings
from rollout.messages import FindingStatus

#: The longest time to connect to the server, and for each answer, seconds.
SERVER_SECONDS = 3.0

Value = TypeVar("Value")


class fact(Generic[Value]):  # noqa: N801 - used as a decorator, like `property`
    """A property that is computed once. If that raises `UnknownError`, each access raises it again."""

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self._name = compute.__name__

    def __get__(self, host: "Host", kind: type | None = None) -> Value:
        if self._name not in host.known:
            try:
                host.known[self._name] = self._compute(host)
            except UnknownError as error:
                host.known[self._name] = error
        value: Value | UnknownError = host.known[self._name]
        if isinstance(value, UnknownError):
            raise UnknownError(str(value), value.fix)
        return value


def errors(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and all errors that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_refused(error: BaseException) -> bool:
    """Return True if a server refused the user's command (NOPERM)."""
    # The error of a refused EXEC quotes the one of the rights.
    return any(isinstance(each, NoPermissionError) or ": NOPERM " in str(each) for each in errors(error))


def words_of(error: BaseException) -> str:
    """Return the operating system's words for the error if there are any, else those of its cause, without a period."""
    found = tuple(errors(error))
    if any(isinstance(each, (TimeoutError, redis.TimeoutError)) for each in found):
        return "no answer in time"
    if untrusted := next((each for each in found if isinstance(each, ssl.SSLCertVerificationError)), None):
        return f"its certificate is not trusted: {untrusted.verify_message}"
    if strerror := next((each.strerror for each in found if isinstance(each, OSError) and each.strerror), None):
        return strerror
    cause = error.__cause__ if isinstance(error, Failure) and error.__cause__ else error
    words = str(cause.args[0]) if isinstance(cause, KeyError) and cause.args else str(cause)
    return words.strip().rstrip(".") or type(cause).__name__


class Host:
    """The host of these settings. `root` is its file system."""

    def __init__(self, settings: AgentSettings, root: Path = ROOT) -> None:
        self.settings = settings
        self.root = root
        self.known: dict[str, Any] = {}

    @property
    def user(self) -> str:
        """The agent's user at the server."""
        return self.settings.server_user or urlsplit(self.settings.server_url).username or "default"

    @fact
    def trust(self) -> Trust:
        """The node's identity, with which it logs in to the broker."""
        try:
            return Trust(self.settings)
        except IdentityError as error:
            raise UnknownError("The node's identity cannot be used: see identity.") from error

    # --- Server

    @fact
    def server_socket(self) -> Outcome:
        """Connect, log in and PING."""
        parts = urlsplit(self.settings.server_url)
        url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"  # without a password
        try:
            with Server(self.settings).session(SERVER_SECONDS) as session:
                session.ping()
        except ServerLoadingError:
            return warned("The server is still loading its data.", "Wait until it has loaded them.")
        except (Failure, RefusedError, OSError, UnicodeDecodeError, ValueError) as error:
            return passed(f"The server at {url} answers.") if is_refused(error) else self._no_server(url, error)
        return passed(f"The server at {url} answers.")

    def _no_server(self, url: str, error: Exception) -> Outcome:
        found = tuple(errors(error))
        user, file = self.user, self.settings.server_password_file
        if isinstance(error, (OSError, UnicodeDecodeError)):
            return failed(
                f"The password file {file} cannot be read: {words_of(error)}.",
                "Let the agent's user read the file MODFLEET_SERVER_PASSWORD_FILE.",
            )
        if any(isinstance(each, AuthenticationError) for each in found):
            return failed(
                f"The server at {url} refuses the user {user} or its password.",
                f"`modfleet agent install --name {self.settings.node}` prints the user that the server needs. Otherwise, check "
                "MODFLEET_SERVER_USER and MODFLEET_SERVER_PASSWORD_FILE against the server's ACL.",
            )
        words = words_of(error)
        match next((each for each in found if isinstance(each, OSError)), None):
            case PermissionError():
                fix = "Add the agent's user to the group of the socket, and set `unixsocketperm 770` in the server."
            case ssl.SSLError():
                authority = tls.missing_authority(error, "MODFLEET_SERVER_CA")
                fix = f"{authority}." if authority else "Let the server use a certificate that this host trusts."
            case FileNotFoundError():
                fix = "Set `unixsocket` in the server's configuration to this path, or correct MODFLEET_SERVER_URL."
            case _:
                fix = "Start the server, or correct MODFLEET_SERVER_URL."
        return failed(f"The server at {url} cannot be reached: {words}.", fix)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a connection to the server. Raises: `UnknownError` if it does not answer."""
        if self.server_socket.status is not FindingStatus.PASS:
            raise UnknownError("The server does not answer: see server_socket.")
        try:
            with Server(self.settings).session(SERVER_SECONDS) as session:
                yield session
        except Failure as error:
            raise UnknownError(f"The server has stopped answering: {words_of(error)}.") from error

    @fact
    def info(self) -> dict[str, str]:
        """The section `server` of INFO; empty if the user may not read it."""
        with self.session() as session:
            try:
                return session.info("server")
            except RefusedError:
                return {}

    @fact
    def hello(self) -> dict[str, Any]:
        """The answer to HELLO, which every user may send."""
        with self.session() as session:
            try:
                return pairs(session.call("HELLO", "2"))
            except RefusedError as error:
                raise UnknownError(f"The server refuses HELLO: {error}.") from error

    @fact
    def loaded(self) -> tuple[LoadedModule, ...] | None:
        with self.session() as session:
            try:
                return session.modules()
            except RefusedError:
                return None

    # --- Process

    @fact
    def process(self) -> Process:
        pid = server_pid(self.settings.server_url, self.info, self.root)
        if pid is None:
            raise UnknownError(
                "The server's process was not found on this host: it runs elsewhere, or its socket is not visible.",
                "Run the doctor on the server's host, as root.",
            )
        return read_process(pid, self.root)

    @cached_property
    def server_modules_dir(self) -> str:
        """The directory of the modules, as the server sees it."""
        return str(self.settings.server_modules_dir or os.path.realpath(self.settings.modules_dir))

    @fact
    def unit(self) -> tuple[str, dict[str, str]] | None:
        """Name and settings of the server's systemd unit. None if the server is no service."""
        name = self.process.unit
        if name is None:
            if not os.access(self.root / f"proc/{self.process.pid}/cgroup", os.R_OK):
                raise UnknownError("The server's unit is not known: its control group cannot be read.")
            return None
        settings = unit_settings(name, self.root)
        if settings is None:
            raise UnknownError(f"The settings of the unit {name} cannot be read.")
        return name, settings

    # --- Configuration

    @fact
    def view(self) -> Path:
        """The server's file system, from here."""
        own = self.root / f"proc/{self.process.pid}/root"
        if os.access(own, os.R_OK | os.X_OK):
            return own
        if sees_same("/", "/", self.process.pid, self.root):
            return self.root
        raise UnknownError(
            "The server's file system is not visible: it runs in a container.", "Run the doctor as root."
        )

    @fact
    def configuration(self) -> Configuration:
        """The server's configuration file, with its includes. `file` is empty if the server was started without one."""
        file = self.info.get("config_file")
        if file is None:
            first = (self.process.arguments or ("",))[0]
            if not first.startswith("/"):
                raise UnknownError(
                    "The server's configuration file is not known.", "Allow INFO to the agent's user (`+info`)."
                )
            file = first
        if not file:
            return Configuration(file="")
        found = read_configuration(file, self.view)
        if file in found.unread:
            raise UnknownError(
                f"The configuration file {file} cannot be read: {found.unread[file]}.",
                "Run the doctor as root, or add the agent's user to the file's group.",
            )
        return found

    @property
    def directives(self) -> tuple[Directive, ...]:
        """All lines of the configuration, then the options of the command line as far as they are known."""
        return (*self.configuration.directives, *from_arguments(self.process.arguments or ()))


def pairs(answer: Any) -> dict[str, Any]:
    """Return the answer to HELLO by name."""
    named = answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))
    return {_string(key): _string(value) for key, value in named.items()}


def _string(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
