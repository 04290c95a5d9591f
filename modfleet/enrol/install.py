"""`modfleet agent install`: enrol the node, create all that its agent needs, and start the agent.

Each step looks at what is there first, so a second run changes nothing, and a run after a crash goes on.
"""

import secrets
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from modfleet.enrol import exchange, server
from modfleet.enrol.at_server import AtServer
from modfleet.enrol.choices import modules_directory, owner_of, rights_from_now_on
from modfleet.enrol.exchange import UnreachableError
from modfleet.enrol.host import AGENT_USER, Host, group_name
from modfleet.enrol.join import Joined, exchanged, given_settings
from modfleet.enrol.layout import SETTINGS, UNIT, Layout, nodes_of, read_settings, settings_text, unit_text
from modfleet.enrol.rights import SERVER_USER, access_of, present_rights
from modfleet.enrol.server import FoundServer
from modfleet.enrol.steps import Steps
from modfleet.enrol.wishes import Wishes, check, has_joined, logins, node_of, require_one_agent
from modfleet.failure import CommandError, ExitCode
from rollout.agent.inspection.host_files import ROOT
from rollout.agent.settings import FORMER
from rollout.signing import key_id

#: The pause between two looks for the first heartbeat, seconds.
PAUSE_SECONDS = 1.0
#: Settings that name the server's log.
LOG_SETTINGS = ("MODFLEET_SERVER_LOG", "MODFLEET_SERVER_UNIT")


def install(wishes: Wishes, host: Host, tell: Callable[[str], None], system: Path = ROOT) -> ExitCode:
    """Install the agent of one node. Raises: `CommandError`; before the node is enrolled, nothing is left behind then."""
    node = node_of(wishes, host)
    layout = Layout(node=node)
    former = read_settings(host, node)
    wishes = replace(
        wishes,
        control=wishes.control or former.get("MODFLEET_CONTROL_URL"),
        server=wishes.server or former.get("MODFLEET_SERVER_URL"),
    )
    is_enrolled = has_joined(former)
    check(wishes, host, node, former, is_enrolled=is_enrolled)
    require_one_agent(wishes, host, node)
    assert wishes.server is not None  # noqa: S101 - `check`
    url = wishes.server
    found = server.detect(url, logins(wishes, host, layout, former), system)
    owner = owner_of(wishes, former, found)
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
    rights = rights_from_now_on(wishes, present_rights(former), joined)
    directory = modules_directory(found, host, layout, former, rights)
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
    at_server.restart(settings.get("MODFLEET_RESTART", ""), layout.node)
    if not wishes.service:
        again = "restart the agent" if must_restart else "start the agent, unless it runs"
        steps.by_you(again if former else "start the agent", run_command(host, layout))
        return _wait(wishes, layout, steps, joined, runs=False)
    must_restart |= _create_units(host, layout, steps, found)
    steps.step(host.start(layout.unit, again=must_restart), f"{layout.unit} runs")
    return _wait(wishes, layout, steps, joined, runs=host.has_units)


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
    assert wishes.control is not None  # noqa: S101 - `check`
    assert wishes.token is not None  # noqa: S101 - `check`
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
