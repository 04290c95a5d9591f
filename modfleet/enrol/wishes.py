"""What a person asks `modfleet agent install` for, and what is checked before anything is written."""

import re
import shlex
import socket
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from modfleet.enrol import server
from modfleet.enrol.host import Host
from modfleet.enrol.join import usable_identity
from modfleet.enrol.join_token import JoinToken
from modfleet.enrol.layout import Layout, nodes_of, read_settings
from modfleet.enrol.rights import OBSERVE, SERVER_USER, present_rights
from modfleet.enrol.server import Login
from modfleet.failure import UsageError

#: How long the first heartbeat is waited for, seconds.
PATIENCE_SECONDS = 60.0


#: Directories that the agent's unit hides from it.
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - no file is created there


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """The options of the command. `service`: run the agent as a unit of systemd."""

    control: str | None = None
    server: str | None = None
    token: JoinToken | None = None
    name: str | None = None
    observe: bool = False
    add: tuple[str, ...] = ()
    persistence: str | None = None
    yes: bool = False
    service: bool = True
    admin: Login | None = None
    wait_seconds: float = PATIENCE_SECONDS


def node_of(wishes: Wishes, host: Host) -> str:
    """Return the name of the node: the given one, else that of the server's agent here, else that of this host."""
    if wishes.name:
        return wishes.name
    present = {node: read_settings(host, node).get("MODFLEET_SERVER_URL") for node in nodes_of(host)}
    if wishes.server:
        same = [node for node, url in present.items() if url == wishes.server]
        if same:
            return same[0]
        name = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())
        return f"{name}-{server.short_name(wishes.server)}" if name in present else name
    if len(present) == 1:
        return next(iter(present))
    names = f"this host has {', '.join(present)}" if present else "this host has none yet: give --server too"
    raise UsageError(f"Give the --name of the node: {names}.")


def has_joined(settings: dict[str, str]) -> bool:
    """Return True if the node has joined, and still has its key. Raises: `UsageError` if the key cannot be read."""
    path = settings.get("MODFLEET_IDENTITY_FILE")
    if not path or not Path(path).exists():
        return False
    usable_identity(Path(path))
    return True


def check(wishes: Wishes, host: Host, node: str, settings: dict[str, str], *, is_enrolled: bool) -> None:
    """Raises: `UsageError` if an option is missing, or contradicts what is installed."""
    if not is_enrolled:
        given = {"--control": wishes.control, "--server": wishes.server, "--token": wishes.token}
        missing = [name for name, value in given.items() if not value]
        if missing:
            raise UsageError(f"{node} is not enrolled yet. Give {', '.join(missing)}.")
    for option, value, variable in (
        ("--server", wishes.server, "MODFLEET_SERVER_URL"),
        ("--control", wishes.control if is_enrolled else None, "MODFLEET_CONTROL_URL"),
    ):
        present = settings.get(variable)
        if value and present and value != present:
            raise UsageError(
                f"{node} has {variable}={present}, not {value}. Leave {option} out, choose another --name, or run "
                f"`modfleet agent uninstall {shlex.quote(node)}{host.options}` first."
            )
    more = present_rights(settings) - {OBSERVE}
    if wishes.observe and more:
        raise UsageError(
            f"{node} has the rights {', '.join(sorted(more))} already, and --observe takes none away. Run "
            f"`modfleet agent uninstall {shlex.quote(node)}{host.options}` first."
        )
    if wishes.service:
        _require_usable_installation(Path(sys.executable).with_name("celery"))


def _require_usable_installation(program: Path) -> None:
    """Raises: `UsageError` if the agent's unit or its user cannot reach the program."""
    if any(program.is_relative_to(each) for each in HIDDEN):
        raise UsageError(
            f"The agent's unit cannot see {program}. Install Modfleet into /opt/modfleet, or use --no-service."
        )
    for path in (program, *program.parents):
        if path.exists() and not path.stat().st_mode & stat.S_IXOTH:
            raise UsageError(
                f"The agent's user cannot use {path}. Run `chmod -R a+rX {shlex.quote(sys.prefix)}`, or install Modfleet into "
                "/opt/modfleet with `umask 022`."
            )


def require_one_agent(wishes: Wishes, host: Host, node: str) -> None:
    """Raises: `UsageError` if the server has an agent of another name on this host."""
    for other in nodes_of(host):
        if other != node and wishes.server and read_settings(host, other).get("MODFLEET_SERVER_URL") == wishes.server:
            raise UsageError(
                f"{wishes.server} has the agent {other} already. Run `modfleet agent uninstall {shlex.quote(other)}{host.options}` first."
            )


def logins(wishes: Wishes, host: Host, layout: Layout, settings: dict[str, str]) -> list[Login]:
    """Return the users to ask the server as: the administrator, the default user, the agent's own user."""
    logins = [wishes.admin or Login()]
    password = settings.get("MODFLEET_SERVER_PASSWORD_FILE") or str(host.path(layout.server_password))
    if Path(password).exists():
        logins.append(Login(user=settings.get("MODFLEET_SERVER_USER", SERVER_USER), password_file=Path(password)))
    return logins
