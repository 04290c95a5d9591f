"""The server that the agent will load modules into, as this host and the server itself describe it. Nothing is changed."""

import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modfleet.failure import CommandError, UsageError
from rollout.agent.failure import Failure
from rollout.agent.inspection.configuration import Configuration, read_configuration
from rollout.agent.inspection.host_files import ROOT, on_host
from rollout.agent.inspection.mounts import sees_same
from rollout.agent.inspection.process import Process, read_process, server_pid, writes_to_socket
from rollout.agent.inspection.rewritable import can_rewrite
from rollout.agent.inspection.systemd import unit_settings
from rollout.agent.server.sentinels import is_watched
from rollout.agent.server.session import RefusedError, Server, Session
from rollout.agent.settings import AgentSettings

#: The oldest versions that are supported: older ones have other rules for users.
OLDEST = {"redis": (7, 0), "valkey": (7, 2)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user of the server. Without a name: the server's default user."""

    user: str = ""
    password_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundServer:
    """An empty or None field is not known. `login` is the user that was let in.

    `enable_module_command` is `yes`, `local` or `no`. `unit` is the server's systemd unit, `unit_settings` what it sets.
    `log` is its log file, if this host has it. `logs_to_journal`: it logs to the journal of its unit. `is_rewritten`: a
    Sentinel watches it, which calls CONFIG REWRITE at each failover.
    """

    url: str
    login: Login
    kind: str
    version: str
    process: Process | None = None
    configuration: Configuration | None = None
    unit: str | None = None
    unit_settings: Mapping[str, str] = field(default_factory=dict)
    enable_module_command: str = ""
    aclfile: str | None = None
    log: str = ""
    logs_to_journal: bool = False
    is_rewritten: bool = False

    @property
    def name(self) -> str:
        return {"redis": "Redis", "valkey": "Valkey"}[self.kind]

    @property
    def config_file(self) -> str | None:
        """Return the main configuration file, if it and all of its includes can be read."""
        known = self.configuration is not None and not self.configuration.unread
        return self.configuration.file if self.configuration and known else None

    @property
    def socket(self) -> Path | None:
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "unix" else None

    def socket_group(self) -> int | None:
        """Return the group that may connect to the socket. None: all users, or only the server's own user."""
        if self.socket is None:
            return None
        found = self.socket.stat()
        writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        return found.st_gid if writable == stat.S_IWGRP else None

    def log_setting(self) -> dict[str, str]:
        """Return the setting with which the agent finds the server's log; empty if the log is not known."""
        if self.log.isprintable() and self.log:  # the file of settings cannot hold a line break
            return {"MODFLEET_SERVER_LOG": self.log}
        return {"MODFLEET_SERVER_UNIT": self.unit} if self.unit and self.logs_to_journal else {}

    def only_for_itself(self) -> bool:
        """Return True if only the server's own user may connect to the socket."""
        return self.socket is not None and not self.socket.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def check_url(url: str) -> str:
    """Raises: `UsageError`."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UsageError(f"--server {url} is not a URL.") from error
    is_unix = parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc
    is_tcp = parts.scheme in {"redis", "rediss"} and bool(parts.hostname)
    if "@" in parts.netloc:
        raise UsageError(
            "--server must have no user and no password: --admin-user and --admin-password-file have them."
        )
    if not is_unix and not is_tcp:
        raise UsageError("--server must be unix:///PATH, redis://HOST:PORT or rediss://HOST:PORT.")
    return url


def short_name(url: str) -> str:
    """Return what tells this server from others on its host: its port, or the name of its socket."""
    parts = urlsplit(url)
    name = str(parts.port or 6379) if parts.scheme != "unix" else Path(unquote(parts.path)).stem
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)


@contextmanager
def session(url: str, login: Login) -> Iterator[Session]:
    """Open a connection to the server. Raises: `Failure`, `rollout.agent.server.session.RefusedError`."""
    nowhere = Path("/nonexistent")
    settings = AgentSettings(
        node="installer",
        broker_url="",
        control_url="",
        server_url=url,
        modules_dir=nowhere,
        journal_dir=nowhere,
        server_user=login.user,
        server_password_file=login.password_file,
    )
    with Server(settings).session() as opened:
        yield opened


def detect(url: str, logins: list[Login], system: Path = ROOT) -> FoundServer:
    """Return the server at `url`, asked as the first of `logins` that it accepts.

    Raises: `CommandError` if the server cannot be reached, accepts none of them, or is not supported.
    """
    for login in logins:
        try:
            with session(url, login) as opened:
                return _described(url, login, opened, system)
        except RefusedError:
            continue
        except (Failure, OSError) as failure:
            if not _is_login_refused(failure):
                raise CommandError(f"{str(failure).rstrip('.')}. Check --server.") from failure
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
            raise CommandError(
                f"The server at {url} does not answer as Redis or Valkey does. Check --server."
            ) from error
    if logins[0].password_file is not None:
        user = logins[0].user or "default"
        raise UsageError(
            f"The server at {url} refuses the user {user} or the password in {logins[0].password_file}. Check --admin-user "
            "and --admin-password-file."
        )
    raise UsageError(
        f"The server at {url} asks for a password. Give --admin-password-file, and --admin-user if the administrator is "
        "not `default`. They are used only now, and not stored."
    )


def _is_login_refused(failure: Exception) -> bool:
    return any(word in str(failure) for word in ("WRONGPASS", "NOAUTH", "NOPERM", "invalid username", "Authentication"))


def _described(url: str, login: Login, opened: Session, system: Path) -> FoundServer:
    info = opened.info("server")
    kind = "valkey" if "valkey_version" in info else "redis"
    version = info.get(f"{kind}_version", "")
    _require_supported(kind, version)
    pid = server_pid(url, info, system)
    process = read_process(pid, system) if pid else None
    unit = process.unit if process else None
    file = info.get("config_file", "")
    # In a container, the path names another file than on this host.
    is_here = pid is not None and sees_same(file, file, pid, system) is not False
    configuration = read_configuration(file, system) if file and is_here else None
    log = _log(opened)
    return FoundServer(
        url=url,
        login=login,
        kind=kind,
        version=version,
        process=process,
        configuration=configuration,
        unit=unit,
        unit_settings=(unit_settings(unit, system) if unit else None) or {},
        enable_module_command=_setting(opened, "enable-module-command") or "",
        aclfile=_setting(opened, "aclfile"),
        log=log if log and pid and _is_here(log, pid, system) else "",
        is_rewritten=can_rewrite(info.get("config_file"), pid, system) and is_watched(opened),
        logs_to_journal=log == "" and pid is not None and writes_to_socket(pid, system),
    )


def _log(opened: Session) -> str | None:
    """Return the path of the server's log, empty if it logs to its standard output; None if this user may not read it."""
    try:
        return opened.log_file()
    except RefusedError:
        return None


def _is_here(file: str, pid: int, system: Path) -> bool:
    """Return True if this host has the file, and the server does not see another one in its place."""
    try:
        exists = on_host(system, file).is_file()
    except OSError:  # this user may not enter its directory
        return False
    return exists and sees_same(file, file, pid, system) is not False


def _setting(opened: Session, name: str) -> str | None:
    """Return the setting in the running server; None if this user may not read it."""
    try:
        answer = opened.call("CONFIG", "GET", name)
    except RefusedError:
        return None
    return str(answer[1]) if len(answer) > 1 else None


def _require_supported(kind: str, version: str) -> None:
    found = re.match(r"(\d+)\.(\d+)", version)
    if not found or (int(found[1]), int(found[2])) < OLDEST[kind]:
        raise CommandError(
            f"The server is {kind.capitalize()} {version or 'of an unknown version'}. Modfleet supports Redis 7.0 and "
            "newer, and Valkey 7.2 and newer."
        )
