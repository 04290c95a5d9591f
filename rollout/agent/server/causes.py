"""Why the server refused: a reason for each cause that is known, and what to do. An unknown cause gets no advice.

The message quotes the server's answer and names of files, libraries, symbols and commands, but no line of the log.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from rollout.agent.failure import Failure
from rollout.agent.server.session import LoadedModule, RefusedError, Session
from rollout.messages import Reason

#: The most names that a message lists.
MOST_LISTED = 5


class LoadRefusedError(Failure):
    """The server refused to load the module, and the cause stands in its log. `note`: what else went wrong."""

    def __init__(self, module: LoadedModule, error: RefusedError, *, note: str = "") -> None:
        answer = str(error).removesuffix(" Please check the server logs.").rstrip(".")
        message = (
            f"The server refuses to load {module.name} {module.version}: {answer}. See the server's log for the cause."
        )
        super().__init__(Reason.LOAD_FAILED, " ".join(filter(None, (message, note))))
        self.module = module
        self.note = note


class UnloadRefusedError(Failure):
    """The server refused to unload the module. `exports_types`: it will refuse as long as it runs."""

    def __init__(self, loaded: LoadedModule, error: RefusedError) -> None:
        answer = str(error)
        reason, advice = next(
            ((reason, advice) for words, reason, advice in _UNLOAD if words in answer), (Reason.UNLOAD_REFUSED, "")
        )
        message = f"The server refuses to unload {loaded.name} {loaded.version}: {answer.rstrip('.')}."
        super().__init__(reason, " ".join(filter(None, (message, advice))))
        self.exports_types = reason is Reason.EXPORTS_DATA_TYPES


#: Words in the server's answer, as Redis 7.0 and Valkey 9.1 have them.
_UNLOAD = (
    (
        "data type",
        Reason.EXPORTS_DATA_TYPES,
        "A module that exports data types is only removed by a restart of the server: docs/howto/restarts.md.",
    ),
    ("holds timer", Reason.MODULE_BUSY, "Retry when its timers have fired."),
    ("blocked clients", Reason.MODULE_BUSY, "Retry when no client waits in one of its commands."),
    ("used by other modules", Reason.USED_BY_MODULE, "Remove the modules that use it first."),
    ("ACL users reference", Reason.ACL_REFERENCES_MODULE, "Remove its commands from the rules of the ACL users first."),
)


def refusal(error: RefusedError) -> Failure:
    """Return why the server refused a command that says nothing about the module."""
    answer = str(error)
    if error.lacks_permission:
        command = re.search(r"'([a-z|_-]+)' command", answer)
        what = f"call `{command[1]}`" if command else "do this"
        return Failure(
            Reason.PERMISSION_DENIED,
            f"The agent's user at the server may not {what}. Allow it with ACL SETUSER, then retry.",
        )
    if "command not allowed" in answer:
        return Failure(
            Reason.MODULE_COMMAND_DISABLED,
            "The server does not allow MODULE LOAD. Add `enable-module-command local` to its configuration and restart it: the "
            f"setting cannot be changed at run time. Or let the agent restart it: docs/howto/restarts.md. The server's answer: "
            f"{answer}",
        )
    if re.match(r"unknown command ['`]?module\b", answer, re.IGNORECASE):
        return Failure(
            Reason.MODULE_COMMAND_DISABLED,
            "The server does not know the command MODULE. Remove `rename-command MODULE` from its configuration, and "
            "restart it.",
        )
    return Failure(Reason.SERVER_UNREACHABLE, f"The server refuses the agent's commands: {answer.rstrip('.')}.")


def is_refusal_of_all(error: RefusedError) -> bool:
    """Return True if the error says nothing about the module."""
    return refusal(error).reason is not Reason.SERVER_UNREACHABLE


def why_not_loaded(refused: LoadRefusedError, lines: Sequence[str], taken: Mapping[str, str]) -> Failure:
    """Return the cause of a refused load, `refused` itself if it is not known.

    `lines`: what the server logged. `taken`: commands of the module that the server has from elsewhere, each with the
    module that has added it; empty for a command of the server.
    """
    module = refused.module
    path = re.escape(module.path)
    verdict = next((found[1] for line in lines if (found := re.search(rf"Module {path} (.*)", line))), "")
    cause = _cause_in(verdict, module.path)
    if cause is None and taken and ("initialization failed" in verdict or not verdict):
        names = ", ".join(f"{name} ({owner or 'the server itself'})" for name, owner in sorted(taken.items()))
        cause = (
            Reason.COMMAND_NAME_TAKEN,
            f"the server already has commands of the same name: {names}. Remove the other module first.",
        )
    if cause is None:
        return refused
    reason, words = cause
    message = f"The server refuses to load {module.name} {module.version}: {words}"
    return Failure(reason, " ".join(filter(None, (message, refused.note))))


def _cause_in(verdict: str, path: str) -> tuple[Reason, str] | None:
    """Return the cause that the server, or the dynamic linker, names. `verdict` follows the module's path."""
    if "does not have execute permissions" in verdict:
        return Reason.FILE_NOT_EXECUTABLE, f"{path} has no execute permission. Run `chmod a+x` on it, then retry."
    if "does not export RedisModule_OnLoad" in verdict:
        return (
            Reason.INCOMPATIBLE_SERVER,
            "it does not export RedisModule_OnLoad, which this server calls. Build it for this server.",
        )
    if "failed to map segment" in verdict:
        advice = "Remove `noexec` from the mount, or add the directory to ExecPaths of the server's unit, then retry."
        return Reason.EXECUTION_FORBIDDEN, f"the server may not execute {path}. {advice}"
    if found := re.search(r"undefined symbol: ([\w@.]{1,200})", verdict):
        return Reason.UNDEFINED_SYMBOL, f"no library on the node has the symbol {found[1]}."
    if found := re.search(r"([\w.+/-]{1,200}): version `(\w[\w.]{0,60})' not found", verdict):
        return Reason.MISSING_LIBRARY, f"{found[1]} is older than the module needs ({found[2]})."
    if found := re.search(r"failed to load: (\S{1,300}): cannot open shared object file: (.*)", verdict):
        return _cannot_open(found[1], found[2], path)
    return None


def _cannot_open(file: str, error: str, path: str) -> tuple[Reason, str] | None:
    if "Permission denied" in error:
        return Reason.FILE_NOT_READABLE, f"the server's user may not read {file}, or enter a directory above it."
    if "No such file" not in error:
        return None
    if file == path:
        advice = "Set MODFLEET_SERVER_MODULES_DIR to the path at which the server sees the modules."
        return Reason.FILE_NOT_FOUND, f"the server sees no file {file}. {advice}"
    return Reason.MISSING_LIBRARY, f"the node has no library {file}. Install it, then retry."


def taken_commands(session: Session, module: LoadedModule, commands: Iterable[str]) -> dict[str, str]:
    """Return the commands that the server has from elsewhere than this module, each with the module that added it.

    Empty for a command of the server itself.
    """
    names = [each.lower() for each in commands]
    own = {each.lower() for each in session.commands_of(module.name)}
    missing = set(session.missing(names))
    taken = dict.fromkeys((each for each in names if each not in own and each not in missing), "")
    if taken:
        for other in session.modules():
            taken |= {each.lower(): other.name for each in session.commands_of(other.name) if each.lower() in taken}
    return taken


def refuse_if_named_in_acl(session: Session, loaded: LoadedModule, *, user: str, keeps: Iterable[str] = ()) -> None:
    """Raises: `Failure` (acl_references_module) if an ACL user's rule names a command that the server loses with the module.

    Redis 7.0 unloads such a module, and the next ACL LIST ends the server. So this calls ACL LIST only while the module is
    loaded. `keeps`: commands that come back at once. If the agent's `user` may not call ACL LIST, the rules are not known:
    `Failure` (permission_denied), unless the server loses no command.
    """
    leaving = {each.lower() for each in session.commands_of(loaded.name)} - {each.lower() for each in keeps}
    if not leaving:
        return
    try:
        rules = session.acl_rules()
    except RefusedError as error:
        raise Failure(
            Reason.PERMISSION_DENIED,
            f"It is not known if ACL rules name commands of {loaded.name} {loaded.version}: {str(error).rstrip('.')}. Some "
            f"servers crash when a rule names an unknown command. Allow the agent to look: ACL SETUSER {user or 'default'} "
            "+acl|list. Then retry.",
        ) from error
    named = {rule.split()[1]: found for rule in rules if (found := _named_commands(rule) & leaving)}
    if named:
        commands = ", ".join(sorted(set().union(*named.values())))
        raise Failure(
            Reason.ACL_REFERENCES_MODULE,
            f"ACL users have rules that name {commands} of {loaded.name} {loaded.version}: {listed(sorted(named))}. "
            "Remove these rules first: some servers crash when a rule names an unknown command.",
        )


def listed(names: Sequence[str]) -> str:
    """Return `a, b, c, d, e and 7 more`."""
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _named_commands(rule: str) -> set[str]:
    """Return the commands, in lower case, that a line of ACL LIST allows or denies by name."""
    words = re.split(r"[\s()]+", rule)
    return {word[1:].partition("|")[0].lower() for word in words if word[:1] in {"+", "-"}}
