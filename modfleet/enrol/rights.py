"""What an agent may do: `observe` always, then `load`, `persist`, `restart`; and the server's user that it logs in as."""

from collections.abc import Iterable

#: The agent's user at the server.
SERVER_USER = "modfleet-agent"

OBSERVE = "observe"
LOAD = "load"
PERSIST = "persist"

#: The rights that `--add` adds.
ADDED = {
    LOAD: "load and unload modules in the running server",
    PERSIST: "write the file from which a start of the server loads the modules",
}
#: The rights of an installation without `--observe`.
USUAL = (LOAD, PERSIST)

_COMMANDS = {
    OBSERVE: (
        *("+hello", "+auth", "+ping", "+info", "+module|list", "+command|info", "+command|list"),
        *("+client|setname", "+select"),
    ),
    LOAD: ("+module|load", "+module|unload", "+multi", "+exec"),
}
#: Commands that show that a right is there. Nothing is executed.
PROBES = {OBSERVE: ("MODULE", "LIST"), LOAD: ("MODULE", "LOAD", "/nonexistent")}


def rules(rights: Iterable[str], password_sha256: str) -> str:
    """Return the rules of the server's user, for ACL SETUSER and for a line `user modfleet-agent ...` of a file."""
    given = [OBSERVE, *(each for each in rights if each in _COMMANDS and each != OBSERVE)]
    commands = [command for each in given for command in _COMMANDS[each]]
    return " ".join(["on", f"#{password_sha256}", "resetkeys", "resetchannels", "-@all", *commands])
