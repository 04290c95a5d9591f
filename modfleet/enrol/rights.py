"""What an agent may do: `observe` always, then `load`, `restart`; and the server's user that it logs in as."""

from collections.abc import Collection, Mapping

from modfleet.failure import UsageError
from rollout.agent.doctor.acl import Extra, Level, acl_rules

#: The agent's user at the server.
SERVER_USER = "modfleet-agent"

OBSERVE = Level.OBSERVE.value
LOAD = Level.LOAD.value
RESTART = Level.RESTART.value

#: The rights that `--add` adds.
ADDED = {
    LOAD: "load and unload modules in the running server, and at its next start",
    RESTART: "load, restart the server and fail over",
}
#: A command that needs the right. It is the newest one, so that an install after an upgrade adds what is missing.
PROBES: dict[str, tuple[str, ...]] = {
    OBSERVE: ("PUBSUB", "NUMSUB"),
    LOAD: ("ACL", "LIST"),
    RESTART: ("CLUSTER", "FAILOVER"),
}
#: A command that an agent needs if it writes lines: after CONFIG REWRITE by another hand, the main file has them.
REWRITE_PROBE = ("CONFIG", "REWRITE")
#: What an agent that loads modules needs for removals, and to keep the options of modules over an upgrade.
FEATURES = (Extra.KEYS, Extra.REMOVAL, Extra.OPTIONS)
#: Who may own the lines from which a start of the server loads its modules; the first one is the default.
OWNERS = ("include", "rewrite", "external")


def rights_of(access: str) -> frozenset[str]:
    """Return all rights of an agent with this access."""
    levels = [each.value for each in Level]
    return frozenset(levels[: levels.index(access) + 1])


def present_rights(settings: Mapping[str, str]) -> frozenset[str]:
    """Return the rights in the node's settings; none if the node is new. Raises: `UsageError`."""
    if not settings:
        return frozenset()
    try:
        return rights_of(settings.get("MODFLEET_ACCESS", LOAD))
    except ValueError as error:
        raise UsageError("MODFLEET_ACCESS in the node's settings must be observe, load or restart.") from error


def access_of(rights: Collection[str]) -> Level:
    """Return the highest level, which is the setting MODFLEET_ACCESS."""
    return [each for each in Level if each in rights][-1]


def writes_lines(rights: Collection[str], owner: str) -> bool:
    """Return True if the agent writes the lines from which a start of the server loads its modules."""
    return LOAD in rights and owner != "external"


def probes(rights: Collection[str], owner: str) -> list[tuple[str, ...]]:
    """Return a command for each right that the server's user needs. With an external owner, the agent changes nothing."""
    needed = [PROBES[each] for each in sorted(rights) if each == OBSERVE or owner != "external"]
    return [*needed, REWRITE_PROBE] if writes_lines(rights, owner) else needed


def rules(rights: Collection[str], owner: str, password_sha256: str, *, has_atomic_migrations: bool = False) -> str:
    """Return the rules of the server's user, for ACL SETUSER and for a line `user modfleet-agent ...` of a file.

    `has_atomic_migrations`: the server knows the command that shows them.
    """
    level = Level.OBSERVE if owner == "external" else access_of(rights)
    extras = set(FEATURES) if level is not Level.OBSERVE else set[Extra]()
    if level is Level.RESTART:
        extras.add(Extra.VALUES)
    if writes_lines(rights, owner):
        extras.add(Extra.REWRITE)
    if has_atomic_migrations:
        extras.add(Extra.MIGRATIONS)
    return f"on #{password_sha256} {acl_rules(level, extras)}"
