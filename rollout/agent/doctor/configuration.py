"""Checks of the server's configuration files: the include line, one owner of each `loadmodule` line, and Sentinels."""

import glob
import os
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from rollout.agent.doctor.host import Host
from rollout.agent.doctor.outcome import Outcome, UnknownError, failed, passed, unknown, warned
from rollout.agent.inspection.configuration import UNBALANCED, Directive
from rollout.agent.inspection.rewritable import can_rewrite
from rollout.agent.module_files.include import IncludeFile, quoted
from rollout.agent.server.sentinels import count_sentinels


def include_line(host: Host) -> Outcome:
    if host.settings.observe:
        return passed("Not needed: the agent only observes.")
    if host.settings.persistence != "include":
        return passed(f"Not needed: MODFLEET_PERSISTENCE is {host.settings.persistence}.")
    file = include_file(host)
    configuration = host.configuration
    place = configuration.file or "the server's configuration file"
    pattern = f"{glob.escape(str(PurePosixPath(file).parent))}/*.conf" if file.endswith(".conf") else glob.escape(file)
    fix = f"Add this line to {place}: include {quoted(pattern)}"
    for line in (each for each in host.directives if each.words[0] == "include" and len(each.words) > 1):
        if _matches(line.words[1], file):
            return passed(f"{line.place} includes {file}.")
    if configuration.unread:
        name, reason = next(iter(configuration.unread.items()))
        return unknown(f"No include line for {file} was found, but {name} cannot be read: {reason}.", fix)
    if host.process.arguments is None:
        said = (
            f"{configuration.file} has no include line"
            if configuration.file
            else "The server has no configuration file"
        )
        return warned(f"{said} for {file}, and the options of its command line are not known.", fix)
    return failed(f"No line of the server's configuration includes {file}: a restart loads no module.", fix)


def loadmodule_owner(host: Host) -> Outcome:
    """A module that two lines load stops the next start of the server."""
    for place, reason in host.configuration.unread.items():
        if reason == UNBALANCED:
            return failed(
                f"The line {place} has unbalanced quotes. The server will not start again.",
                "If CONFIG REWRITE has written it: give the module arguments without quotes, and remove the line.",
            )
    lines = [each for each in host.directives if each.words[0] == "loadmodule" and len(each.words) > 1]
    modules = {each.path: each.name for each in host.loaded or () if each.path}
    owners: dict[str, list[Directive]] = {}
    for line in lines:
        owners.setdefault(_module(host, line.words[1], modules), []).append(line)
    for name, found in owners.items():
        if len(found) > 1:
            places = " and ".join(each.place for each in found)
            return failed(
                f"Two lines load the module {name}: {places}. The server will not start again.",
                "Keep the line in the agent's include file, and remove the other one.",
            )
    stems: dict[str, list[Directive]] = {}
    for line in lines:
        stems.setdefault(PurePosixPath(line.words[1]).stem, []).append(line)
    for stem, found in stems.items():
        if len(found) > 1:
            places = " and ".join(each.place for each in found)
            return warned(
                f"Two lines load a file named {stem}: {places}. If it is the same module, the server will not start again.",
                "Keep the line in the agent's include file, and remove the other one.",
            )
    if host.configuration.unread:
        name, reason = next(iter(host.configuration.unread.items()))
        return unknown(f"{name} cannot be read: {reason}. It may load a module a second time.")
    return passed(f"No two of the {len(lines)} `loadmodule` lines load the same module.")


def sentinel(host: Host) -> Outcome:
    """At a failover, Sentinel calls CONFIG REWRITE: then the main file loads each module, and our file too."""
    owner = host.settings.persistence
    if host.settings.observe or owner == "external":
        return passed("Not needed: the agent writes no line.")
    with host.session() as session:
        count = count_sentinels(session)
    if count == 0:
        return passed("No Sentinel watches the server.")
    if not can_rewrite(host.info.get("config_file"), _pid(host), host.root):
        return passed(
            "The server cannot write its main configuration file, so CONFIG REWRITE by a Sentinel changes nothing."
        )
    if count is None:
        fix = f"ACL SETUSER {quoted(host.user)} +pubsub|numsub; then save the ACL."
        return unknown("It is not known if a Sentinel watches the server.", fix)
    watched = f"{count} Sentinel{'s watch' if count > 1 else ' watches'} the server"
    danger = (
        "At a failover, Sentinel calls CONFIG REWRITE. Then two lines load each module, and the server does not start."
    )
    if owner == "include":
        return failed(
            f"{watched}, and MODFLEET_PERSISTENCE is include. {danger}",
            f"Run `modfleet agent install --name {host.settings.node} --persistence rewrite`. Without that command, set "
            "MODFLEET_PERSISTENCE=rewrite and restart the agent.",
        )
    if IncludeFile(host.settings.include_file or host.settings.modules_dir / "modfleet.conf").loads():
        return failed(
            f"{watched}, and {include_file(host)} still loads a module. {danger}",
            "The agent moves these lines into the main file within a minute. If not, its log says why.",
        )
    return passed(f"{watched}, and the server writes the lines itself.")


def _pid(host: Host) -> int | None:
    try:
        return host.process.pid
    except UnknownError:
        return None


def include_file(host: Host) -> str:
    """Return the path of the agent's include file, as the server sees it."""
    settings = host.settings
    file = settings.include_file or settings.modules_dir / "modfleet.conf"
    if file.is_relative_to(settings.modules_dir):
        return str(PurePosixPath(host.server_modules_dir) / file.relative_to(settings.modules_dir))
    return os.path.realpath(file)


def _matches(pattern: str, file: str) -> bool:
    """Return True if the pattern of an include line matches the file. `*` matches no `/` and no leading dot."""
    if not any(each in pattern for each in "*?["):
        return pattern == file or os.path.realpath(pattern) == file
    parent, name = PurePosixPath(os.path.realpath(Path(pattern).parent)).parts, PurePosixPath(pattern).name
    parts = (*parent, name)
    names = PurePosixPath(file).parts
    return len(parts) == len(names) and all(
        fnmatchcase(part, each) and (each[:1] != "." or part[:1] == ".")
        for each, part in zip(parts, names, strict=True)
    )


def _module(host: Host, path: str, modules: dict[str, str]) -> str:
    """Return the name of the module at a path if it is known, or else the path without symbolic links."""
    if path in modules:
        return modules[path]
    store = PurePosixPath(host.server_modules_dir)
    if PurePosixPath(path).is_relative_to(store):
        return PurePosixPath(path).relative_to(store).parts[0]
    return modules.get(os.path.realpath(path), os.path.realpath(path))
