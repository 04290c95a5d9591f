"""Users of the node's server with least rights, for what the agent may do: observe, load, restart.

A line names only commands of Redis 7.0: a server does not start with an ACL file that names an unknown command.
"""

from collections.abc import Collection
from enum import StrEnum
from hashlib import sha256


class Level(StrEnum):
    #: Read the server's state. The server is never changed.
    OBSERVE = "observe"
    #: Also load and unload modules.
    LOAD = "load"
    #: Also restart the server and fail over.
    RESTART = "restart"


class Extra(StrEnum):
    """Rights that no level has: they show secrets, not every agent needs them, or not every server knows their commands.

    A check that needs one answers `unknown` without it, and an operation is refused.
    """

    #: List all keys and their types, to find those of a module.
    KEYS = "keys"
    #: Read values, to try in a scratch server if the former version can read them.
    VALUES = "values"
    #: ACL LIST: hashes of all passwords.
    ACL_LIST = "acl-list"
    #: CONFIG GET: also the passwords for replication and of the default user.
    CONFIG = "config"
    #: See atomic slot migrations: a command of Valkey 9.
    MIGRATIONS = "migrations"
    #: Remove modules: see if ACL rules name their commands (with the hashes of passwords), rewrite the append-only file, and
    #: say who uses them: names and addresses of clients, and the code of functions.
    REMOVAL = "removal"
    #: Set a module's options again after an upgrade. CONFIG SET changes every setting of the server.
    OPTIONS = "options"
    #: CONFIG REWRITE: the server writes its configuration file.
    REWRITE = "rewrite"


#: Commands that the agent calls, by level. A level has those of the levels before it.
COMMANDS: dict[Level, tuple[str, ...]] = {
    Level.OBSERVE: (
        "ping",
        "info",
        "module|list",
        "command|info",
        "command|list",
        "cluster|info",
        "cluster|nodes",
        "pubsub|numsub",
    ),
    # ACL LIST shows the hashes of all passwords, but without it no unload is safe: Redis 7.0 ends when a rule names a command
    # that it has lost.
    Level.LOAD: ("module|load", "module|unload", "multi", "exec", "acl|list"),
    # CONFIG SET changes every setting of the server: rules cannot name the two that keep a replica from becoming the master.
    Level.RESTART: (
        "shutdown",
        "config|get",
        "config|set",
        "config|rewrite",
        "failover",
        "cluster|failover",
        "replicaof",
        "client|pause",
        "client|unpause",
        "bgsave",
        "bgrewriteaof",
        "lastsave",
    ),
}
#: Sent by the client library when it connects.
CONNECTION = ("hello", "auth", "select", "client|setname")
EXTRAS: dict[Extra, tuple[str, ...]] = {
    Extra.KEYS: ("%R~*", "+scan", "+type", "+readonly"),
    Extra.VALUES: ("%R~*", "+scan", "+type", "+readonly", "+memory|usage", "+dump"),
    Extra.ACL_LIST: ("+acl|list",),
    Extra.CONFIG: ("+config|get",),
    Extra.MIGRATIONS: ("+cluster|getslotmigrations",),
    Extra.REMOVAL: ("+acl|list", "+bgrewriteaof", "+client|list", "+function|list"),
    Extra.OPTIONS: ("+config|get", "+config|set"),
    Extra.REWRITE: ("+config|rewrite",),
}


def needed(level: Level) -> tuple[str, ...]:
    """Return the commands that the agent calls at this level."""
    levels = tuple(Level)
    return tuple(each for one in levels[: levels.index(level) + 1] for each in COMMANDS[one])


def acl_rules(level: Level, extras: Collection[Extra] = ()) -> str:
    """Return the rules of a user for ACL SETUSER, without name and password."""
    more = [rule for extra in Extra if extra in extras for rule in EXTRAS[extra]]
    keys = [rule for rule in more if not rule.startswith("+")]
    commands = [f"+{each}" for each in (*CONNECTION, *needed(level))] + [rule for rule in more if rule.startswith("+")]
    return " ".join(["resetkeys", "resetchannels", *keys, "-@all", *commands])


def acl_line(level: Level, user: str, password: str, extras: Collection[Extra] = ()) -> str:
    """Return the line of an ACL file. It has the password's SHA-256 only."""
    return f"user {user} on #{sha256(password.encode()).hexdigest()} {acl_rules(level, extras)}"
