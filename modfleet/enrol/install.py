"""`modfleet agent install`: enrol the node, create all that its agent needs, and start the agent.

Each step looks at what is there first, so a second run changes nothing, and a run after a crash goes on.
"""

import re
import secrets
import shlex
import socket
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from modfleet.enrol import exchange, server
from modfleet.enrol.at_server import AtServer
from modfleet.enrol.exchange import UnreachableError
from modfleet.enrol.host import AGENT_USER, Host, group_name
from modfleet.enrol.join import Joined, exchanged, given_settings, usable_identity
from modfleet.enrol.join_token import JoinToken
from modfleet.enrol.layout import SETTINGS, UNIT, Layout, nodes_of, read_settings, settings_text, unit_text
from modfleet.enrol.rights import LOAD, OBSERVE, OWNERS, SERVER_USER, access_of, rights_of
from modfleet.enrol.server import FoundServer, Login
from modfleet.enrol.steps import Steps
from modfleet.failure import CommandError, ExitCode, UsageError
from rollout.agent.inspection.host_files import ROOT
from rollout.agent.inspection.mounts import mount_of
from rollout.agent.inspection.systemd import forbids_execution
from rollout.agent.settings import FORMER
from rollout.signing import key_id

#: How long the first heartbeat is waited for, and the pause between two looks, seconds.
PATIENCE_SECONDS, PAUSE_SECONDS = 60.0, 1.0
#: Settings that name the server's log.
LOG_SETTINGS = ("MODFLEET_SERVER_LOG", "MODFLEET_SERVER_UNIT")
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


def install(wishes: Wishes, host: Host, tell: Callable[[str], None], system: Path = ROOT) -> ExitCode:
    """Install the agent of one node. Raises: `CommandError`; before the node is enrolled, nothing is left behind then."""
    node = _node(wishes, host)
    layout = Layout(node=node)
    former = read_settings(host, node)
    wishes = replace(
        wishes,
        control=wishes.control or former.get("MODFLEET_CONTROL_URL"),
        server=wishes.server or former.get("MODFLEET_SERVER_URL"),
    )
    is_enrolled = _is_enrolled(former)
    _check(wishes, host, node, former, is_enrolled=is_enrolled)
    _require_one_agent(wishes, host, node)
    assert wishes.server is not None  # noqa: S101 - `_check`
    url = wishes.server
    found = server.detect(url, _logins(wishes, host, layout, former), system)
    owner = _owner(wishes, former, found)
    steps = Steps(tell)
    steps.found(_description(found))
    if found.is_rewritten and owner == "rewrite" and not wishes.persistence:
        steps.note("a Sentinel watches the server: MODFLEET_PERSISTENCE is rewrite")
    if is_enrolled:
        joined = None
        settings = former
        steps.unchanged(f"{node} is enrolled at {former['MODFLEET_CONTROL_URL']}")
        if wishes.token:
            key = former["MODFLEET_IDENTITY_FILE"]
            steps.note(f"the token was not used. If the node was revoked, delete {key} and run the command again")
    else:
        joined = _join(wishes, host, layout)
        settings = _joined(former, host, layout, joined, url)
        steps.done(f"enrolled {node} at {settings['MODFLEET_CONTROL_URL']}")
    rights = _rights(wishes, _present_rights(former), joined)
    directory = _modules_directory(found, host, layout, former, rights)
    settings = settings | {
        "MODFLEET_MODULES_DIR": directory,
        "MODFLEET_ACCESS": access_of(rights).value,
        "MODFLEET_PERSISTENCE": owner,
    }
    settings.pop(FORMER, None)
    if not any(each.startswith(LOG_SETTINGS) for each in settings):
        settings |= found.log_setting()
    must_restart = _create_files(host, layout, steps, settings, joined)
    at_server = AtServer(found, host, steps, rights=rights, owner=owner, yes=wishes.yes)
    if password_file := settings.get("MODFLEET_SERVER_PASSWORD_FILE"):
        at_server.user(settings.get("MODFLEET_SERVER_USER", ""), Path(password_file))
    at_server.socket()
    at_server.modules(directory)
    if not wishes.service:
        again = "restart the agent" if must_restart else "start the agent, unless it runs"
        steps.by_you(again if former else "start the agent", run_command(host, layout))
        return _wait(wishes, layout, steps, joined, runs=False)
    must_restart |= _create_units(host, layout, steps, found)
    steps.step(host.start(layout.unit, again=must_restart), f"{layout.unit} runs")
    return _wait(wishes, layout, steps, joined, runs=host.has_units)


# --- Before anything is written ---------------------------------------------------------------------------------------


def _node(wishes: Wishes, host: Host) -> str:
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


def _is_enrolled(settings: dict[str, str]) -> bool:
    """Return True if the node has joined, and still has its key. Raises: `UsageError` if the key cannot be read."""
    path = settings.get("MODFLEET_IDENTITY_FILE")
    if not path or not Path(path).exists():
        return False
    usable_identity(Path(path))
    return True


def _check(wishes: Wishes, host: Host, node: str, settings: dict[str, str], *, is_enrolled: bool) -> None:
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
    more = _present_rights(settings) - {OBSERVE}
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


def _require_one_agent(wishes: Wishes, host: Host, node: str) -> None:
    """Raises: `UsageError` if the server has an agent of another name on this host."""
    for other in nodes_of(host):
        if other != node and wishes.server and read_settings(host, other).get("MODFLEET_SERVER_URL") == wishes.server:
            raise UsageError(
                f"{wishes.server} has the agent {other} already. Run `modfleet agent uninstall {shlex.quote(other)}{host.options}` first."
            )


def _logins(wishes: Wishes, host: Host, layout: Layout, settings: dict[str, str]) -> list[Login]:
    """Return the users to ask the server as: the administrator, the default user, the agent's own user."""
    logins = [wishes.admin or Login()]
    password = settings.get("MODFLEET_SERVER_PASSWORD_FILE") or str(host.path(layout.server_password))
    if Path(password).exists():
        logins.append(Login(user=settings.get("MODFLEET_SERVER_USER", SERVER_USER), password_file=Path(password)))
    return logins


def _description(found: FoundServer) -> str:
    parts = [f"{found.name} {found.version} at {found.url}"]
    if found.process:
        parts.append(f"pid {found.process.pid}")
    parts += [each for each in (found.unit, found.configuration and found.configuration.file, found.log) if each]
    return ", ".join(parts)


# --- Exchange ---------------------------------------------------------------------------------------------------------


def _join(wishes: Wishes, host: Host, layout: Layout) -> Joined:
    """Exchange the token. The key is written first: after a crash, the next run repeats the exchange with the same key.

    Raises: `UnreachableError`; `UsageError` or `RefusedError`, and then nothing is left behind.
    """
    assert wishes.control is not None  # noqa: S101 - `_check`
    assert wishes.token is not None  # noqa: S101 - `_check`
    control = exchange.meet(wishes.control, wishes.token)
    path = host.path(layout.identity)
    new_directories = [each for each in path.parents if not each.exists()]
    host.make_directory(layout.state, mode=0o755)
    try:
        return exchanged(control, wishes.token, layout.node, path, observe=wishes.observe)
    except exchange.RefusedError:
        for each in new_directories:
            each.rmdir()
        raise


def _joined(settings: dict[str, str], host: Host, layout: Layout, joined: Joined, url: str) -> dict[str, str]:
    """Return the settings of the node after it has joined. An agent without an identity keeps its other settings."""
    made = {
        "MODFLEET_NODE": layout.node,
        "MODFLEET_CONTROL_URL": joined.control.url,
        "MODFLEET_IDENTITY_FILE": host.seen(layout.identity),
        "MODFLEET_SERVER_URL": url,
        "MODFLEET_JOURNAL_DIR": host.seen(layout.journal),
    }
    made |= given_settings(joined, control_ca=host.seen(layout.control_ca), broker_ca=host.seen(layout.broker_ca))
    if not settings:
        made["MODFLEET_SERVER_USER"] = SERVER_USER
        made["MODFLEET_SERVER_PASSWORD_FILE"] = host.seen(layout.server_password)
    replaced = ("MODFLEET_BROKER_URL", "MODFLEET_BROKER_CA", "MODFLEET_CONTROL_CA")
    kept = {name: value for name, value in settings.items() if not name.startswith(replaced)}
    return kept | made


# --- Rights -----------------------------------------------------------------------------------------------------------


def _present_rights(settings: dict[str, str]) -> frozenset[str]:
    """Return the rights in the node's settings; none if the node is new. Raises: `UsageError`."""
    if not settings:
        return frozenset()
    try:
        return rights_of(settings.get("MODFLEET_ACCESS", LOAD))
    except ValueError as error:
        raise UsageError("MODFLEET_ACCESS in the node's settings must be observe, load or restart.") from error


def _rights(wishes: Wishes, present: frozenset[str], joined: Joined | None) -> frozenset[str]:
    """Return the rights that the node has from now on. Rights are only added."""
    observes = wishes.observe or (joined is not None and joined.enrolled.observe)
    rights = (present or rights_of(OBSERVE if observes else LOAD)) | set(wishes.add)
    return rights_of(access_of(rights))


def _present_owner(settings: dict[str, str]) -> str:
    """Return who owns the lines of the server by the node's settings. An agent of an earlier release that loaded modules
    and wrote no lines has left them to another owner."""
    wrote = settings.get(FORMER, "true").lower() in {"true", "1", "yes", "on"}
    is_left = not wrote and settings.get("MODFLEET_ACCESS", LOAD) != OBSERVE
    return settings.get("MODFLEET_PERSISTENCE", "external" if is_left else OWNERS[0])


def _owner(wishes: Wishes, settings: dict[str, str], found: FoundServer) -> str:
    """Return who owns the lines of the server from now on. Raises: `UsageError` if a failover by Sentinel would stop its next
    start."""
    owner = wishes.persistence or _present_owner(settings)
    if owner != "include" or not found.is_rewritten:
        return owner
    if wishes.persistence:
        raise UsageError(
            "A Sentinel watches the server. At a failover it calls CONFIG REWRITE, and with --persistence include the server "
            "would then not start again. Use --persistence rewrite."
        )
    return "rewrite"


def _modules_directory(
    found: FoundServer, host: Host, layout: Layout, settings: dict[str, str], rights: frozenset[str]
) -> str:
    """Return the first directory from which the server may load modules; the last resort needs a drop-in.

    The directory does not change once the agent may load modules: the server's lines name it.
    """
    usual = host.seen(layout.modules)
    if LOAD in _present_rights(settings):
        return settings.get("MODFLEET_MODULES_DIR", usual)
    if LOAD not in rights:
        return usual
    return next((each for each in (usual, host.seen(layout.library)) if _is_executable(found, each)), usual)


def _is_executable(found: FoundServer, path: str) -> bool:
    mount = mount_of(path)
    options = mount.options if mount else frozenset()
    return not options & {"noexec", "ro"} and not forbids_execution(found.unit_settings, path)


# --- Files and units --------------------------------------------------------------------------------------------------


def _create_files(
    host: Host,
    layout: Layout,
    steps: Steps,
    settings: dict[str, str],
    joined: Joined | None,
) -> bool:
    """Create the user and the files. Return True if the agent must start again."""
    if host.has_units:
        steps.step(host.create_user(AGENT_USER), f"user {AGENT_USER}")
    directories = {layout.state: 0o755, layout.journal: 0o700}
    # The server runs as another user and reads the modules.
    directories |= {
        each: 0o755 for each in (layout.modules, layout.library) if host.seen(each) == settings["MODFLEET_MODULES_DIR"]
    }
    for path, mode in directories.items():
        steps.step(host.make_directory(path, mode=mode, owner=AGENT_USER), f"directory {host.seen(path)}")
    authorities = {layout.control_ca: joined.control.ca, layout.broker_ca: joined.enrolled.broker_ca} if joined else {}
    for path, content in authorities.items():
        if content:
            is_new = host.write(path, content.encode(), mode=0o644, owner=AGENT_USER)
            steps.step(is_new, f"file {host.seen(path)}")
    if settings.get("MODFLEET_SERVER_PASSWORD_FILE") == host.seen(layout.server_password):
        text = host.read(layout.server_password) or secrets.token_urlsafe(32)
        steps.step(
            host.write(layout.server_password, text.encode(), mode=0o600, owner=AGENT_USER),
            f"file {host.seen(layout.server_password)}",
        )
    identity = host.path(layout.identity)
    steps.step(host.own(identity, AGENT_USER) or joined is not None, f"file {host.seen(layout.identity)}")
    host.make_directory(SETTINGS, mode=0o700)
    # Written last: from now on the node counts as enrolled.
    is_new = host.write(layout.settings, settings_text(host, layout.node, settings), mode=0o600)
    steps.step(is_new, f"file {host.seen(layout.settings)}")
    return is_new or joined is not None


def _create_units(host: Host, layout: Layout, steps: Steps, found: FoundServer) -> bool:
    """Create the unit of the agents, and what this node adds to it. Return True if anything changed."""
    unit = unit_text(Path(sys.executable).parent).encode()
    present = host.path(UNIT)
    is_other = present.exists() and present.read_bytes() != unit
    changed = False
    for node in nodes_of(host) if is_other else ():
        # The unit of an older version read the broker's URL from a file.
        other = Layout(node=node)
        if host.path(other.former_broker_url).exists():
            if node == layout.node:
                host.delete(other.former_broker_url)
            else:
                changed |= host.write(other.broker_url_drop_in, _broker_url_lines(node), mode=0o644)
    is_new = host.write(UNIT, unit, mode=0o644)
    steps.step(is_new, f"unit {UNIT}")
    changed |= is_new
    group = found.socket_group()
    if group is not None:
        name = group_name(group)
        text = f"# The group that may connect to the server's socket.\n[Service]\nSupplementaryGroups={name}\n"
        is_new = host.write(layout.unit_drop_in, text.encode(), mode=0o644)
        steps.step(is_new, f"{layout.unit_drop_in} adds the group {name} to the agent")
        changed |= is_new
    if changed:
        host.reload_units()
    return changed


def _broker_url_lines(node: str) -> bytes:
    file = Layout(node=node).former_broker_url
    return (
        "# This agent was set up by an older version of Modfleet. `modfleet agent install` makes this file unnecessary.\n"
        f"[Service]\nLoadCredential=broker_url:{file}\nEnvironment=MODFLEET_BROKER_URL_FILE=%d/broker_url\n"
    ).encode()


# --- Start ------------------------------------------------------------------------------------------------------------


def run_command(host: Host, layout: Layout) -> str:
    """Return the command that runs the agent without a unit."""
    program = Path(sys.executable).parent / "modfleet"
    script = f"set -a; . {shlex.quote(host.seen(layout.settings))}; exec {shlex.quote(str(program))} agent"
    return f"sh -c {shlex.quote(script)}"


def _wait(wishes: Wishes, layout: Layout, steps: Steps, joined: Joined | None, *, runs: bool) -> ExitCode:
    """Wait for the first heartbeat, and for what the agent finds on this host.

    The exchange may be repeated with the same key, and its answer has the node's phase.
    """
    if joined is None or wishes.token is None:
        return ExitCode.SUCCEEDED
    answer, end = joined.enrolled, time.monotonic() + wishes.wait_seconds
    while runs and answer.identity != "pending" and not answer.is_examined:
        if time.monotonic() > end and answer.is_heard:
            break
        if time.monotonic() > end:
            raise CommandError(
                f"No heartbeat arrived within {wishes.wait_seconds:g} s. `journalctl -u {shlex.quote(layout.unit)}` shows why."
            )
        time.sleep(PAUSE_SECONDS)
        with suppress(UnreachableError):
            answer = exchange.enrol(
                joined.control, wishes.token, layout.node, joined.credentials, observe=wishes.observe
            )
    if answer.identity == "pending":
        key = key_id(joined.credentials.secret.public)
        steps.by_you("the node waits for acceptance", f"modfleet nodes accept {shlex.quote(layout.node)} --key {key}")
    elif runs:
        steps.done(f"the control plane received the first heartbeat: {layout.node} is {answer.phase}")
        if answer.degraded:
            steps.note(" ".join(answer.degraded.message.split()))
            steps.by_you("check the host", f"modfleet agent doctor --env-file {shlex.quote(layout.settings)}")
    return ExitCode.SUCCEEDED
