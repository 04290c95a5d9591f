"""What an agent may do: `observe` always, then `load`, `persist`, `restart`; and the server's user that it logs in as."""

from collections.abc import Collection

from rollout.agent.doctor.acl import Extra, Level, acl_rules

#: The agent's user at the server.
SERVER_USER = "modfleet-agent"

OBSERVE = Level.OBSERVE.value
LOAD = Level.LOAD.value
RESTART = Level.RESTART.value
#: The only right that the server's user does not need.
PERSIST = "persist"

#: The rights that `--add` adds.
ADDED = {
    LOAD: "load and unload modules in the running server",
    PERSIST: "write the file from which a start of the server loads the modules",
    RESTART: "load, restart the server and fail over",
}
#: A command that needs the right. It is the newest one, so that an install after an upgrade adds what is missing.
PROBES = {OBSERVE: ("PUBSUB", "NUMSUB"), LOAD: ("MODULE", "LOAD", "/nonexistent"), RESTART: ("FAILOVER", "ABORT")}


def rights_of(access: str, *, persists: bool) -> frozenset[str]:
    """Return all rights of an agent with these settings."""
    levels = [each.value for each in Level]
    return frozenset(levels[: levels.index(access) + 1] + [PERSIST] * persists)


def access_of(rights: Collection[str]) -> Level:
    """Return the highest level, which is the setting MODFLEET_ACCESS."""
    return [each for each in Level if each in rights][-1]


def rules(rights: Collection[str], password_sha256: str, *, has_atomic_migrations: bool = False) -> str:
    """Return the rules of the server's user, for ACL SETUSER and for a line `user modfleet-agent ...` of a file.

    `has_atomic_migrations`: the server knows the command that shows them.
    """
    return f"on #{password_sha256} {acl_rules(access_of(rights), [Extra.MIGRATIONS] * has_atomic_migrations)}"
