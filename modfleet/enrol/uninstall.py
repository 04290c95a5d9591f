"""`modfleet agent uninstall`: remove the agent of one node. The server keeps its modules, also over a restart."""

import glob
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from modfleet.enrol import server
from modfleet.enrol.host import Host
from modfleet.enrol.layout import UNIT, Layout, nodes_of, read_settings
from modfleet.enrol.rights import SERVER_USER
from modfleet.enrol.server import Login
from modfleet.enrol.steps import Steps
from modfleet.failure import CommandError, ExitCode, UsageError
from rollout.agent.failure import Failure
from rollout.agent.inspection.configuration import MOST_BYTES
from rollout.agent.inspection.regular_file import open_regular
from rollout.agent.module_files.include import quoted
from rollout.agent.server.session import RefusedError


def uninstall(node: str, host: Host, tell: Callable[[str], None], *, purge: bool, admin: Login | None) -> ExitCode:
    """Stop the agent and delete its settings and identity. `purge`: delete its modules and journal too.

    Raises: `CommandError`, before anything changes, if `purge` would delete a module that is loaded, or may be.
    """
    layout = Layout(node=node)
    settings = read_settings(host, node)
    if not settings and not host.path(layout.state).exists():
        raise UsageError(f"This host has no node {node}{_others(host)}.")
    steps = Steps(tell)
    modules = Path(settings.get("MODFLEET_MODULES_DIR", host.seen(layout.modules)))
    include = Path(settings.get("MODFLEET_INCLUDE_FILE", modules / "modfleet.conf"))
    included = ""
    if purge:
        _require_unloaded(settings, modules, include, admin)
        included = _including_file(settings, modules, admin)
    if host.has_units:
        steps.step(host.stop(layout.unit), f"{layout.unit} is stopped")
    else:
        steps.by_you("end the agent's process, if it runs")
    for path in (layout.settings, layout.identity, layout.server_password):
        steps.step(host.delete(path), f"{host.seen(path)} is deleted")
    drop_ins = (layout.unit_drop_in, layout.broker_url_drop_in)
    for path in (layout.former_broker_url, layout.control_ca, layout.broker_ca, *drop_ins):
        if host.delete(path):
            steps.done(f"{host.seen(path)} is deleted")
    host.remove_empty(layout.unit_drop_in.rpartition("/")[0])
    if host.has_units and not any(nodes_of(host)):
        steps.step(host.delete(UNIT), f"{UNIT} is deleted")
    host.reload_units()
    if purge:
        for path in (layout.state, layout.library):
            if host.delete(path):
                steps.done(f"{host.seen(path)} is deleted")
        if included:
            steps.by_you(f"remove this line from {included}", f"include {quoted(_pattern(modules))}")
    else:
        host.remove_empty(layout.state)
        if any(modules.glob("*")):
            steps.note(f"kept: the modules in {modules}")
        lines = _load_lines(include)
        if lines:
            steps.note(
                f"kept: {include}, from which a start of the server loads {len(lines)} module{'s' * (len(lines) > 1)}"
            )
    _leave(node, steps, settings)
    return ExitCode.SUCCEEDED


def _leave(node: str, steps: Steps, settings: dict[str, str]) -> None:
    if settings.get("MODFLEET_SERVER_USER") == SERVER_USER:
        steps.by_you(
            "remove the server's user, also from its ACL file or configuration file", f"ACL DELUSER {SERVER_USER}"
        )
    steps.by_you("tell the control plane, on a workstation", f"modfleet nodes revoke {shlex.quote(node)}")


def _require_unloaded(settings: dict[str, str], modules: Path, include: Path, admin: Login | None) -> None:
    """Raises: `CommandError` if a module is loaded, would be loaded at a start, or if that is not known."""
    if lines := _load_lines(include):
        how = (
            "Remove the modules with `modfleet rollout start --action remove` first."
            if settings
            else f"The agent is uninstalled already: run MODULE UNLOAD for each module, then empty {include}."
        )
        raise CommandError(
            f"--purge would delete a module that the server loads at its next start: {lines[0]} in {include}. {how}"
        )
    if "MODFLEET_SERVER_URL" not in settings:
        raise CommandError(
            f"--purge needs to know that no module is loaded, but the settings with the server's URL are deleted. Delete "
            f"{modules} yourself, when the server no longer uses it."
        )
    try:
        with server.session(settings["MODFLEET_SERVER_URL"], admin or _own(settings)) as opened:
            loaded = [each.name for each in opened.modules() if Path(each.path).is_relative_to(modules)]
    except (Failure, RefusedError, OSError) as error:
        raise CommandError(
            f"--purge needs to know that no module is loaded, but the server does not tell: {str(error).rstrip('.')}."
        ) from error
    if loaded:
        raise CommandError(
            f"--purge would delete modules that are loaded: {', '.join(loaded)}. Remove them with a rollout first."
        )


def _own(settings: dict[str, str]) -> Login:
    password = settings.get("MODFLEET_SERVER_PASSWORD_FILE")
    return Login(user=settings.get("MODFLEET_SERVER_USER", ""), password_file=Path(password) if password else None)


def _pattern(modules: Path) -> str:
    return f"{glob.escape(str(modules))}/*.conf"


def _including_file(settings: dict[str, str], modules: Path, admin: Login | None) -> str:
    """Return the server's configuration file if it may have the `include` line of `modules`, else an empty string."""
    if settings.get("MODFLEET_PERSISTENCE", "include") != "include":
        return ""
    configuration = None
    with suppress(CommandError):
        configuration = server.detect(settings["MODFLEET_SERVER_URL"], [admin or _own(settings)]).configuration
    if configuration is None:
        return "the server's configuration file, if the line is there"
    has_line = any(each.words[1:] == (_pattern(modules),) for each in configuration.all("include"))
    return configuration.file if has_line or configuration.unread else ""


def _load_lines(include: Path) -> list[str]:
    if not include.exists():
        return []
    try:  # the agent's user may have put anything there
        with open_regular(include) as file:
            text = file.read(MOST_BYTES).decode(errors="replace")
    except OSError as error:
        raise CommandError(f"{include} cannot be read: {error.strerror}.") from error
    return [line for line in text.splitlines() if line.strip() and not line.startswith("# Written")]


def _others(host: Host) -> str:
    names = ", ".join(nodes_of(host))
    return f". It has {names}" if names else ""
