"""Checks of the server: version, MODULE command, rights of the agent's user, renamed commands, and not the broker."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from rollout.agent.doctor import acl, broker
from rollout.agent.doctor.acl import Level
from rollout.agent.doctor.host import Host, is_refused, pairs
from rollout.agent.doctor.outcome import Outcome, UnknownError, failed, passed, unknown, warned
from rollout.agent.module_files.include import quoted
from rollout.agent.restart.supervision import supervision_of
from rollout.agent.server.observation import OLDEST, has_atomic_migrations
from rollout.agent.server.session import RefusedError, Session
from rollout.agent.settings import is_broker

#: A name that no module and no file has.
NONE = "modfleet.doctor"
#: Commands without a harmless form: they are only queued, or tested by ACL DRYRUN. ACL LIST ends Redis 7.0 if a rule names a
#: command whose module was unloaded.
NEVER_CALLED = frozenset({"config|rewrite", "acl|list"})
#: How to test whether a user may call each command. None of the others changes the server, also if it is allowed.
HARMLESS: dict[str, tuple[str, ...]] = {
    "ping": ("PING",),
    "info": ("INFO", "server"),
    "module|list": ("MODULE", "LIST"),
    "command|info": ("COMMAND", "INFO", "ping"),
    "command|list": ("COMMAND", "LIST", "FILTERBY", "MODULE", NONE),
    "cluster|info": ("CLUSTER", "INFO"),
    "cluster|nodes": ("CLUSTER", "NODES"),
    "cluster|getslotmigrations": ("CLUSTER", "GETSLOTMIGRATIONS"),
    "pubsub|numsub": ("PUBSUB", "NUMSUB"),
    "module|load": ("MODULE", "LOAD", f"/nonexistent/{NONE}.so"),
    "module|unload": ("MODULE", "UNLOAD", NONE),
    "config|rewrite": ("CONFIG", "REWRITE"),
    "acl|list": ("ACL", "LIST"),
    "multi": ("MULTI",),
    "exec": ("EXEC",),
}
#: Without it the agent does not see Sentinels. Only an agent that writes an include file must.
OPTIONAL = "pubsub|numsub"
#: Commands of later operations: without them, restarts and failovers are not possible.
RENAMED = ("module", "config", "shutdown", "acl", "failover", "replicaof")
#: Rounds of `_shares_numbers`.
ROUNDS = 4


def server_socket(host: Host) -> Outcome:
    return host.server_socket


def server_version(host: Host) -> Outcome:
    try:
        product, version = _version(host)
    except UnknownError as error:
        if host.server_socket.status != "pass":
            raise
        return failed(f"The version of the server is not known: {error}", "Allow INFO to the agent's user (`+info`).")
    oldest = OLDEST[product]
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if not numbers:
        return failed(f"The version of the server is not known: it says `{version}`.", "Use Redis 7.0+ or Valkey 7.2+.")
    if (int(numbers[1]), int(numbers[2])) < oldest:
        return failed(
            f"{product.capitalize()} {version} is not supported.",
            f"Upgrade the server to {product.capitalize()} {oldest[0]}.{oldest[1]} or later.",
        )
    return passed(f"{product.capitalize()} {version} is supported.")


def server_is_broker(host: Host) -> Outcome:
    problem = failed(
        "MODFLEET_SERVER_URL is the broker: a module that crashes it would stop the whole fleet.",
        "Give the broker its own server.",
    )
    if is_broker(host.settings):
        return problem
    return problem if _shares_numbers(host) else passed("The server is not the broker.")


def enable_module_command(host: Host) -> Outcome:
    """Unload a module that does not exist: the server looks at the setting before rights and names."""
    if _observes(host):
        return passed("Not needed: this agent loads no modules.")
    with host.session() as session:
        words, lacks_rights = "OK", False
        try:
            session.call("MODULE", "UNLOAD", NONE)
        except RefusedError as error:
            words, lacks_rights = str(error), is_refused(error)
    if "unknown command" in words:
        return unknown("The command MODULE is renamed: see rename_command.")
    if lacks_rights or "no such module" in words:
        return passed("The server allows MODULE commands on this connection.")
    if "MODULE command not allowed" not in words:
        return unknown(f"The server answers: {words.rstrip('.')}.")
    with host.session() as session:
        value = _config_get(session, "enable-module-command") or _configured(host, "enable-module-command")
    said = f"`enable-module-command` is `{value}`" if value else "`enable-module-command` is off for this connection"
    words = f"The server refuses MODULE LOAD: {said}."
    fix = (
        "Set `enable-module-command local` and connect by a Unix socket or loopback, or set `yes`. Restart the server."
    )
    with host.session() as session:
        info = session.info("server", "memory")
    if supervision_of(host.settings, info, host.root).problem:
        return failed(words, f"{fix} Or let the agent restart it: docs/howto/restarts.md.")
    return warned(f"{words} The agent restarts it instead.", fix)


def server_rights(host: Host) -> Outcome:
    commands = _needed(host)
    allowed = _allowed(host, commands)
    refused = [name for name in commands if allowed[name] is False]
    untested = [name for name in commands if allowed[name] is None]
    user = host.user
    if refused:
        words = f"The server refuses these commands to the user {user}: {', '.join(refused)}."
        fix = f"ACL SETUSER {quoted(user)} {' '.join(f'+{each}' for each in refused)}; then save the ACL."
        is_needed = host.settings.persistence == "include" and not _observes(host)
        return failed(words, fix) if is_needed or refused != [OPTIONAL] else warned(words, fix)
    if untested:
        return unknown(
            f"These rights of the user {user} could not be tested: {', '.join(untested)}.",
            "Correct enable_module_command and rename_command first, or allow `+acl|dryrun`.",
        )
    return passed(f"The user {user} may call the {len(commands)} commands that the agent needs.")


def rename_command(host: Host) -> Outcome:
    renamed = _renamed(host)
    if not renamed:
        return passed(f"The server has these commands: {', '.join(RENAMED).upper()}.")
    names = ", ".join(renamed).upper()
    fix = "Remove the `rename-command` lines, restart the server, and restrict the commands by ACL rules instead."
    if "module" in renamed:
        return failed(f"The server has renamed {names}: the agent cannot load modules.", fix)
    return warned(f"The server has renamed {names}: restarts and failovers will not be possible.", fix)


def _needed(host: Host) -> tuple[str, ...]:
    """Return the commands that the agent calls at this server: those of the cluster only in a cluster."""
    level = Level.OBSERVE if _observes(host) else Level.LOAD
    commands = acl.needed(level)
    if level is not Level.OBSERVE and host.settings.persistence == "rewrite":
        commands = (*commands, "config|rewrite")
    if "cluster" not in {host.info.get("redis_mode"), host.info.get("server_mode")}:
        return tuple(each for each in commands if not each.startswith("cluster|"))
    return (*commands, "cluster|getslotmigrations") if has_atomic_migrations(host.info) else commands


def _version(host: Host) -> tuple[str, str]:
    """Return product and version, from INFO or else from HELLO."""
    info = host.info
    for product in ("valkey", "redis"):
        if version := info.get(f"{product}_version"):
            return product, version
    hello = host.hello
    product, version = str(hello.get("server", "")), str(hello.get("version", ""))
    if product not in OLDEST:
        raise UnknownError(f"it says `{product} {version}`.")
    return product, version


def _observes(host: Host) -> bool:
    """Return True if the agent changes nothing at the server."""
    return host.settings.observe or host.settings.persistence == "external"


def _shares_numbers(host: Host) -> bool:
    """Return True if broker and server number their connections together. The node's user at the broker may not call INFO.

    A server numbers connections in the order in which they are opened. Two servers would have to keep step by chance,
    several times.
    """
    numbers: list[int] = []
    for _ in range(ROUNDS):
        with broker.connection(host) as raw:
            at_broker = broker.hello_id(raw)
        with host.session() as session:
            at_server = int(pairs(session.call("HELLO", "2"))["id"])
        if at_broker is None:
            raise UnknownError("The broker does not tell which server it is.")
        numbers += [at_broker, at_server]
    return all(one < other for one, other in pairwise(numbers))


def _allowed(host: Host, commands: Sequence[str]) -> dict[str, bool | None]:
    """Return for each command if the user may call it; None if that could not be tested.

    A user with all rights leaves no trace in the server's ACL LOG: the commands are queued in a transaction that is never
    executed. ACL DRYRUN is only for what remains.
    """
    allowed: dict[str, bool | None] = dict.fromkeys(commands)
    with host.session() as session:
        may_queue = _queues(session) if "multi" in commands else None
        for name in (each for each in commands if each not in {"multi", "exec"} and may_queue):
            allowed[name] = _may(session, HARMLESS[name])
    with host.session() as session:
        if "multi" in commands:
            allowed["multi"], allowed["exec"] = may_queue, _may(session, HARMLESS["exec"])
        for name in (each for each in commands if allowed[each] is None):
            is_tried = may_queue or name in NEVER_CALLED
            allowed[name] = _dry_run(session, host.user, HARMLESS[name]) if is_tried else _may(session, HARMLESS[name])
    return allowed


def _dry_run(session: Session, user: str, words: Iterable[str]) -> bool | None:
    try:
        return bool(session.call("ACL", "DRYRUN", user, *words) == "OK")
    except RefusedError:
        return None


def _queues(session: Session) -> bool | None:
    """Begin a transaction. Return False if the user may not."""
    try:
        return True if session.call("MULTI") == "OK" else None
    except RefusedError as error:
        return False if is_refused(error) else None


def _may(session: Session, words: tuple[str, ...]) -> bool | None:
    """Return True if the server does not refuse the command for lack of rights; None if it looks at no rights."""
    try:
        session.call(*words)
    except RefusedError as error:
        if is_refused(error):
            return False
        if "MODULE command not allowed" in str(error) or "unknown command" in str(error):
            return None
    return True


def _config_get(session: Session, name: str) -> str | None:
    try:
        answer: Any = session.call("CONFIG", "GET", name)
    except RefusedError:
        return None
    return str(answer[1]) if len(answer) == 2 else None


def _configured(host: Host, name: str) -> str | None:
    """Return the value in the configuration file, if it is known."""
    try:
        found = [each.words[1] for each in host.directives if each.words[0] == name and len(each.words) > 1]
    except UnknownError:
        return None
    return found[-1] if found else None


def _renamed(host: Host) -> list[str]:
    with host.session() as session:
        try:
            answers = session.call("COMMAND", "INFO", *RENAMED)
        except RefusedError:
            answers = None
    if answers is not None:
        return [name for name, answer in zip(RENAMED, answers, strict=True) if not answer]
    names = {
        each.words[1].lower() for each in host.directives if each.words[0] == "rename-command" and len(each.words) > 1
    }
    return [name for name in RENAMED if name in names]
